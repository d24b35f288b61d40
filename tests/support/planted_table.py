"""A result table with planted neurons, for the tests of tables, figures and reports."""

from dataclasses import asdict

import numpy as np
import pandas as pd

from jaxconf.analysis.metrics import COLUMNS, INTERVAL_COLUMNS
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Rules

ENTROPY, FREQUENCY = ["3.5", "3.17"], ["3.8"]


def planted_table(neurons: int = 60, plant: bool = True, positions: int = 300) -> NeuronTable:
    """Layer 3 of a model of width 33; with `plant`, neurons 5 and 17 meet the entropy rule and 8 the frequency rule, no
    others.
    """
    random = np.random.default_rng(0)
    frame = pd.DataFrame({column: random.uniform(0.01, 0.02, neurons) for column in COLUMNS})
    frame = frame.assign(layer=3, neuron=np.arange(neurons), rho=random.uniform(0.0, 0.3, neurons), rho_chance=0.4)
    frame = frame.assign(ln_mediated_q=0.5, freq_mediated_q=0.5, freq_mediated_chance=0.15)
    if plant:
        frame.loc[[5, 17], ["rho", "ln_mediated", "w_norm"]] = [[0.8, 0.6, 5.0], [0.7, 0.5, 4.0]]
        frame.loc[[5, 17], "ln_mediated_q"] = frame.loc[8, "freq_mediated_q"] = 1e-4
        frame.loc[8, ["freq_mediated", "kl_freq_abs_delta"]] = [0.4, 0.3]
    frame["rho_at_tighidet"] = frame["rho"]
    for column in INTERVAL_COLUMNS:
        frame[f"{column}_lo"], frame[f"{column}_hi"] = 0.9 * frame[column], 1.1 * frame[column]
    entropy = random.uniform(0, 5, positions)
    kept = pd.DataFrame(
        {"window": np.arange(positions) // 10, "position": np.arange(positions) % 10, "token": " a", "target": " b"}
    )
    kept = kept.assign(loss=entropy, entropy=entropy, kl_freq=6 - entropy + random.normal(0, 0.1, positions))
    facts = {
        "model": "some/model",
        "layer": 3,
        "k": 2,
        "seed": 0,
        "loss": 2.5,
        "entropy": 2.25,
        "rules": asdict(Rules()),
        "null_spaces": {},
    }
    facts |= {
        "tokens": 1280,
        "windows": 5,
        "positions": positions,
        "ablation": "mean",
        "ablation_value": None,
        "seconds": 1.5,
    }
    named = ENTROPY if plant else ["3.0"]
    shares = random.uniform(-0.1, 0.15, (2, 200))
    nulls = pd.DataFrame({"layer": 3, "neuron": random.integers(neurons, size=200), "w_norm": 0.015})
    nulls = nulls.assign(rho=random.uniform(0, 0.3, 200), ln_mediated=shares[0], freq_mediated=shares[1])
    nulls = nulls.assign(kl_freq_abs_delta=0.01, entropy_abs_delta=0.01, loss_abs_delta=0.01)
    cosines = random.uniform(-0.5, 0.5, (len(named), 32))
    return NeuronTable(Rules().apply(frame), facts, np.geomspace(50, 0.5, 32), cosines, named, kept, nulls)


def without_figures(value: float, positions: int = 0) -> NeuronTable:
    """As `planted_table`, with every measurement set to `value` and undefined mediated shares."""
    table = planted_table(plant=False, positions=positions)
    measured = [column for column in table.frame if table.frame[column].dtype == float]
    table.frame[measured] = value
    table.frame[[name for name in table.frame if "mediated" in name]] = np.nan
    table.frame = table.rules.apply(table.frame)
    table.singular_values, table.cosines, table.cosine_neurons = np.zeros(0), np.zeros((0, 0)), []
    return table


def of_components() -> NeuronTable:
    """Two heads and an autoencoder's latents, whose directions have length 1 but for rounding."""
    table = planted_table()
    count = len(table.frame)
    names = [f"3.h{i}" if i < 2 else f"sae.{i - 2}" for i in range(count)]
    kinds = ["head" if i < 2 else "sae" for i in range(count)]
    length = 1 + 1e-7 * np.random.default_rng(2).standard_normal(count)
    table.frame = table.frame.assign(w_norm=length, component=kinds, name=names)
    table.nulls = table.nulls.assign(component="sae")
    table.cosine_neurons = ["sae.3", "sae.15"]
    return table


TABLES = {
    "ordinary": planted_table,
    "no neuron named": lambda: planted_table(plant=False),
    "one neuron": lambda: planted_table(neurons=1, plant=False, positions=1),
    "nothing measured": lambda: without_figures(np.nan),
    "all zero": lambda: without_figures(0.0, positions=4),
    "components": of_components,
}

"""A track of six neurons over five steps, made by hand."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.analysis.metrics import COLUMNS
from jaxconf.results.rules import Rules
from jaxconf.results.run_folder import OPTIMUM
from jaxconf.training.emergence import Emergence, append, append_rows

FACTS = {"model": "some/model", "layer": 3, "k": 2, "rules": asdict(Rules())}
STEPS, WITH_EFFECTS = [0, 1, 10, 100, 1000], [0, 10, 1000]
CHANCE = [0.40, 0.41, 0.42, 0.43, 0.44]
# Steps in columns, neurons in rows; the last one is dead. Neuron 0 meets the criterion of weights first (and at step 1,
# at which effects were not measured), 1 both at once, 2 that of cause first and not for long; 3 meets weights only and
# 4 cause only.
RHO = np.array(
    [
        [0.10, 0.60, 0.60, 0.60, 0.60],
        [0.10, 0.10, 0.70, 0.70, 0.80],
        [0.10, 0.10, 0.50, 0.50, 0.50],
        [0.10, 0.10, 0.10, 0.90, 0.90],
        [0.10, 0.10, 0.10, 0.10, 0.10],
        [np.nan] * 5,
    ]
)
LN_MEDIATED = np.array(
    [
        [0.00, 0.10, 0.50],
        [0.00, 0.40, 0.40],
        [0.45, 0.10, 0.20],
        [0.00, 0.00, 0.10],
        [0.00, 0.90, 0.00],
        [np.nan] * 3,
    ]
)
WEIGHTS = ("w_norm", "logit_var", "rho")
NEURONS = [name for name in COLUMNS if name not in ("layer", "neuron", "rho_chance")]


def planted_rows(
    effects: bool = True, losses: bool = True, rho: np.ndarray = RHO, ln_mediated: np.ndarray = LN_MEDIATED
) -> Iterator[dict[str, Any]]:
    for index, (step, chance) in enumerate(zip(STEPS, CHANCE, strict=True)):
        row: dict[str, Any] = {
            "step": step,
            "rho_chance": chance,
            "singular_values": np.geomspace(8, 1, 5) / (index + 1),
            **dict.fromkeys(NEURONS),
        }
        row |= {"w_norm": np.arange(6.0) + index, "logit_var": np.arange(6.0) / 100 + index, "rho": rho[:, index]}
        if losses:
            row |= {
                "train_loss": 5.1 - index if index else np.nan,
                "loss": 5.0 - index,
                "entropy": 4.5 - index,
                "ece": 0.1 * index,
            }
        if effects and step in WITH_EFFECTS:
            row |= {name: np.full(6, 0.01) for name in NEURONS if row[name] is None}
            row["ln_mediated"] = ln_mediated[:, WITH_EFFECTS.index(step)]
            row["is_entropy_neuron"] = (row["rho"] > chance) & (row["ln_mediated"] >= 0.3)
            row["is_frequency_neuron"] = np.arange(6) == (3 if step == 10 else -1)
        yield row


def write(folder: Path, rows: Iterable[dict[str, Any]]) -> Emergence:
    for row in rows:
        append(folder, row, FACTS)
    return Emergence.load(folder)


NOISE, BEST_ENTROPY = [0.1, 0.5, 0.9], [1.0, 2.0, 3.0]
# Steps in rows, levels in columns. At step 100 the range of the entropies is half of the best one; at step 10 it is
# nearly so, but level 1 lies above level 2. The chain is learnt at step 10, where the accuracy is 0.9 of 1 - 0.1.
ENTROPY = [[4, 4, 4], [4.0, 4.0, 4.0], [2.0, 3.5, 3.2], [2.0, 2.5, 3.0], [1.1, 2.0, 2.9]]
ACCURACY = [0.0, 0.809, 0.81, 0.5, 0.9]


def planted_optimum() -> pd.DataFrame:
    """The rows of a track in a world with three levels of noise. At steps with effects neuron 3.1 is ablated too."""
    rows = []
    for index, step in enumerate(STEPS):
        sets = [("no set", "none", "", "unablated", 0.0)]
        for how in ("mean", "doubled") if step in WITH_EFFECTS else ():
            sets.append(("entropy", "set", "3.1", how, 0.5 if how == "mean" else -0.5))
            sets += [("entropy", "random", f"3.{neuron}", how, 0.01 * neuron) for neuron in (2, 3, 4)]
        for name, kind, neurons, how, more in sets:
            shared = {"step": step, "set": name, "kind": kind, "neurons": neurons, "size": len(neurons[:1]), "how": how}
            rows += [
                shared
                | {"level": level, "noise": noise, "best_entropy": best, "entropy": entropy + more}
                | {"accuracy": ACCURACY[index] if level == 0 else 0.1}
                for level, (noise, best, entropy) in enumerate(zip(NOISE, BEST_ENTROPY, ENTROPY[index], strict=True))
            ]
            whole = {"level": -1, "noise": np.nan, "best_entropy": 2.0, "entropy": 9.0, "accuracy": 0.95}
            rows.append(shared | whole)
    frame = pd.DataFrame(rows).assign(loss=2.5, best_loss=2.0, excess_loss=0.5)
    return frame.assign(entropy_error=(frame["entropy"] - frame["best_entropy"]).abs())


def write_in_world(folder: Path, rows: Iterable[dict[str, Any]]) -> Emergence:
    """A track with `planted_optimum` and with `temperature_r2`."""
    write(folder, (row | {"temperature_r2": np.arange(6) / 10} for row in rows))
    for step, of in planted_optimum().groupby("step"):
        append_rows(folder, OPTIMUM, int(step), of)
    return Emergence.load(folder)

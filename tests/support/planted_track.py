"""A track of six neurons over five steps, made by hand."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxconf.analysis.metrics import COLUMNS
from jaxconf.results.rules import Rules
from jaxconf.training.emergence import Emergence, append

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

"""The changes of the loss at single positions, which figures 2c and 3c show of the neurons that stand out.

Letters: s window, t position.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.rerun import Frozen
from jaxconf.measure.reruns import token_effects
from jaxconf.measure.work import Work
from jaxconf.report.shown import boxed
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS

ABLATED = {
    "loss_abs_delta": "loss_ablated",
    "loss_abs_delta_ln_frozen": "loss_ablated_ln_frozen",
    "loss_abs_delta_freq_frozen": "loss_ablated_freq_frozen",
}


def token_changes(
    work: Work, table: NeuronTable, ablations: Mapping[int, LayerAblation], frozen: Frozen, positions: int
) -> pd.DataFrame:
    """`NeuronTable.token_changes` of a table, at least at so many `positions` if as many are kept.

    `ablations`: layer → how its neurons are ablated.
    """
    names = {name for kind in KINDS for names in boxed(table, kind) for name in names}
    places = zip(table.frame["layer"].tolist(), table.frame["neuron"].tolist(), strict=True)
    pairs = sorted(pair for name, pair in zip(table.names, places, strict=True) if name in names)
    some = dataclasses.replace(work, kept=_some(work.kept, positions))
    frames = [pd.DataFrame()]
    for layer in sorted({layer for layer, _ in pairs}):
        own = [neuron for of, neuron in pairs if of == layer]
        effects = token_effects(some, layer, own, ablations[layer], frozen)
        changes = {name: (effects[column] - effects["loss"]).abs() for name, column in ABLATED.items()}
        frames.append(pd.DataFrame({"neuron": effects["neuron"], **changes}))
    return pd.concat(frames, ignore_index=True)


def _some(kept: np.ndarray, positions: int) -> np.ndarray:
    """The kept positions, bool [s t], of some of the windows, evenly chosen, so that about `positions` are left."""
    windows = min(len(kept), -(-positions * len(kept) // int(kept.sum())))
    rows = np.linspace(0, len(kept) - 1, windows).round().astype(int)
    chosen = np.zeros_like(kept)
    chosen[rows] = kept[rows]
    return chosen if chosen.any() else kept

"""The changes of the loss at single positions, which figures 2c and 3c show of the neurons that stand out.

Letters: c neuron, s window, t position, q position that is kept in some window.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.metrics import effects_of
from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.analysis.rerun import Frozen, compiled_base, compiled_changes
from jaxconf.measure.set_runs import SetRuns
from jaxconf.measure.work import Work
from jaxconf.models.mesh import fetched
from jaxconf.report.shown import boxed
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS

CHANGES = ("loss_abs_delta", "loss_abs_delta_ln_frozen", "loss_abs_delta_freq_frozen")


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
        frames += _of_layer(some, layer, own, ablations[layer], frozen)
    return pd.concat(frames, ignore_index=True)


def _of_layer(
    work: Work, layer: int, neurons: Sequence[int], ablation: LayerAblation, frozen: Frozen
) -> list[pd.DataFrame]:
    """The changes of each of these neurons of a layer, in a table for each group of windows and each neuron."""
    config, T = work.lm.config, work.tokens.shape[1]
    runs = SetRuns(
        work.lm, {layer: np.arange(config.d_mlp) == np.asarray(neurons)[:, None]}, work.freq, work.memory, frozen
    )
    windows, counted = np.flatnonzero(work.kept.any(1)), np.flatnonzero(work.kept.any(0))
    stage, frames = f"tokens of layer {layer}", []
    work.progress(stage, 0, len(windows) * T)
    for group, real in runs.groups(len(windows), T, len(counted)):
        rows = windows[group]
        kept = work.kept[rows][:, counted] & real[:, None]  # s q
        entry, before = runs.entry(work.tokens[rows], counted)
        base = compiled_base(config, runs.readout, work.freq, entry)
        for some, real_sets in runs.chunks(len(rows), T):
            of_sets = runs.some(some, {layer: ablation})
            effects = effects_of(compiled_changes(*runs.how, entry, before, base, of_sets))
            changes = fetched({name: effects[name] for name in CHANGES})  # c s q
            for index, neuron in enumerate(np.asarray(neurons)[some[real_sets]]):
                of_neuron = {name: x[index][kept] for name, x in changes.items()}
                frames.append(pd.DataFrame({"neuron": neuron_name(layer, neuron, config.experts), **of_neuron}))
        work.progress(stage, (int(group[real][-1]) + 1) * T, len(windows) * T)
    return frames


def _some(kept: np.ndarray, positions: int) -> np.ndarray:
    """The kept positions, bool [s t], of some of the windows, evenly chosen, so that about `positions` are left."""
    windows = min(len(kept), -(-positions * len(kept) // int(kept.sum())))
    rows = np.linspace(0, len(kept) - 1, windows).round().astype(int)
    chosen = np.zeros_like(kept)
    chosen[rows] = kept[rows]
    return chosen if chosen.any() else kept

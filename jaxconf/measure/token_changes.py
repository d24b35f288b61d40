"""The changes of the loss at single positions, which figures 2c and 3c show of the neurons that stand out.

Letters: c neuron or other component, s window, t position, q position that is kept in some window.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.metrics import effects_of
from jaxconf.analysis.rerun import Frozen, compiled_changes, unablated_sums
from jaxconf.measure.groups import Group, How, Seen
from jaxconf.measure.heads import head_token_changes
from jaxconf.measure.set_runs import SetRuns
from jaxconf.measure.work import Work
from jaxconf.models.mesh import fetched
from jaxconf.report.shown import boxed
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS

CHANGES = ("loss_abs_delta", "loss_abs_delta_ln_frozen", "loss_abs_delta_freq_frozen")


def token_changes(
    work: Work,
    how: How,
    seen: Seen,
    table: NeuronTable,
    groups: Sequence[Group],
    ablations: Sequence[LayerAblation | None],
    positions: int,
) -> pd.DataFrame:
    """`NeuronTable.token_changes` of a table, at about so many `positions` if as many are kept.

    `groups`: those of the table. `ablations`: how the components of each are ablated; None for those of attention.
    """
    names = {name for kind in KINDS for names in boxed(table, kind) for name in names}
    some = dataclasses.replace(work, kept=_some(work.kept, positions))
    frames = [pd.DataFrame()]
    for group, ablation in zip(groups, ablations, strict=True):
        own = [index for index, name in enumerate(group.names) if name in names]
        if own:
            frames += (
                head_token_changes(some, how, seen, group, own, CHANGES)
                if ablation is None
                else _of_group(some, group, own, ablation, how.frozen)
            )
    return pd.concat(frames, ignore_index=True)


def _of_group(
    work: Work, group: Group, own: Sequence[int], ablation: LayerAblation, frozen: Frozen
) -> list[pd.DataFrame]:
    """The changes of some components of a group, in a table for each batch of windows and each component."""
    layer, T = group.layer, work.tokens.shape[1]
    masks = {layer: np.arange(len(group.names)) == np.asarray(own)[:, None]}
    runs = SetRuns(work.lm, masks, work.freq, work.memory, frozen, group.dictionary)
    windows, counted = np.flatnonzero(work.kept.any(1)), np.flatnonzero(work.kept.any(0))
    stage, frames = f"tokens of layer {layer}", []
    work.progress(stage, 0, len(windows) * T)
    for batch, real in runs.groups(len(windows), T, len(counted)):
        rows = windows[batch]
        kept = work.kept[rows][:, counted] & real[:, None]  # s q
        entry, before = runs.entry(work.tokens[rows], counted)
        base = unablated_sums(work.lm.config, runs.readout, work.freq, entry)
        for some, real_sets in runs.chunks(len(rows), T):
            of_sets = runs.some(some, {layer: ablation})
            effects = effects_of(compiled_changes(*runs.how, entry, before, base, of_sets))
            changes = fetched({name: effects[name] for name in CHANGES})  # c s q
            for index, which in enumerate(np.asarray(own)[some[real_sets]]):
                of_one = {name: x[index][kept] for name, x in changes.items()}
                frames.append(pd.DataFrame({"neuron": group.names[which], **of_one}))
        work.progress(stage, (int(batch[real][-1]) + 1) * T, len(windows) * T)
    return frames


def _some(kept: np.ndarray, positions: int) -> np.ndarray:
    """The kept positions, bool [s t], of some of the windows, evenly chosen, so that about `positions` are left."""
    windows = min(len(kept), -(-positions * len(kept) // int(kept.sum())))
    rows = np.linspace(0, len(kept) - 1, windows).round().astype(int)
    chosen = np.zeros_like(kept)
    chosen[rows] = kept[rows]
    return chosen if chosen.any() else kept

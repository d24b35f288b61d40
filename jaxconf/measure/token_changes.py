"""The changes of the loss at single positions, which figures 2c and 3c show of the neurons that stand out.

Letters: c neuron or other component, s window, t position, q position that is kept in some window, r pair of a window
and such a position, D devices that windows are split over.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.effects import ablated_rows, effects_at_rows
from jaxconf.analysis.metrics import effects_of
from jaxconf.analysis.rerun import Frozen, compiled_changes, unablated_sums
from jaxconf.measure.activations import LayerActivations
from jaxconf.measure.groups import Group, How, Measured, Seen
from jaxconf.measure.heads import head_token_changes
from jaxconf.measure.set_runs import SetRuns, groups_of_windows
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
    found: Sequence[Measured],
) -> pd.DataFrame:
    """`NeuronTable.token_changes` of a table, at the kept positions of `Work.some_windows(how.token_changes)`.

    `groups`: those of the table. `found`: what was measured of each.
    """
    names = {name for kind in KINDS for names in boxed(table, kind) for name in names}
    windows = work.some_windows(how.token_changes)
    chosen = np.isin(np.arange(len(work.kept)), windows)
    some = dataclasses.replace(work, kept=work.kept & chosen[:, None])
    frames = [pd.DataFrame()]
    for group, of in zip(groups, found, strict=True):
        own = [index for index, name in enumerate(group.names) if name in names]
        if not own:
            continue
        if of.ablation is None:
            frames += head_token_changes(some, how, seen, group, own, CHANGES)
        elif of.activity is None:
            frames += _rerun(some, group, own, of.ablation, how.frozen)
        else:
            frames += _of_last_layer(some, seen, group, own, of.ablation, of.activity, windows)
    return pd.concat(frames, ignore_index=True)


def _of_last_layer(
    work: Work,
    seen: Seen,
    group: Group,
    own: Sequence[int],
    ablation: LayerAblation,
    activity: LayerActivations,
    windows: np.ndarray,
) -> Iterator[pd.DataFrame]:
    """The changes of some components of a group for whose effects no layer is run again, as from `_rerun`.

    `windows`: the indices of some windows, int [s]. `activity`: in these windows alone.
    """
    lm, which, T, D = work.lm, np.asarray(own), work.tokens.shape[1], work.lm.mesh.shape["data"]
    how = lm.config, group.readout(lm, seen.paper, "paper").of(which), work.freq
    counted, stage = np.flatnonzero(work.kept.any(0)), f"tokens of layer {group.layer}"
    work.progress(stage, 0, len(windows) * T)
    for batch, real in groups_of_windows(lm, work.memory, len(windows), T, len(counted)):
        rows = windows[batch]
        place = np.stack(np.meshgrid(np.arange(len(rows) // D), counted, indexing="ij"), -1).reshape(-1, 2)
        places = np.broadcast_to(place, (D, *place.shape))
        x, delta, post = fetched(ablated_rows(activity.last_layer(batch), places, [(ablation, which)]))  # D r …
        target = work.tokens[rows][:, counted + 1].reshape(D, -1)
        # Every device computes every part, one after the other: these pairs are too few to share.
        parts = [
            fetched(effects_at_rows(*how, *jax.tree.map(lambda y, i=i: y[i], (x, delta, target, post)), CHANGES))
            for i in range(D)
        ]
        changes = jax.tree.map(lambda *of_parts: np.concatenate(of_parts), *parts)  # r c
        kept = (work.kept[rows] & real[:, None])[:, counted].ravel()
        for index, component in enumerate(own):
            of_one = {name: x[kept, index] for name, x in changes.items()}
            yield pd.DataFrame({"neuron": group.names[component], **of_one})
        work.progress(stage, (int(batch[real][-1]) + 1) * T, len(windows) * T)


def _rerun(work: Work, group: Group, own: Sequence[int], ablation: LayerAblation, frozen: Frozen) -> list[pd.DataFrame]:
    """The changes of some neurons of a layer, in a table for each batch of windows and each neuron."""
    layer, T = group.layer, work.tokens.shape[1]
    masks = {layer: np.arange(len(group.names)) == np.asarray(own)[:, None]}
    runs = SetRuns(work.lm, masks, work.freq, work.memory, frozen)
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

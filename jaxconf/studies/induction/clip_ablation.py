"""Clip ablation of neuron sets: its effects by position and over the repeat.

Letters: b sequence, t position, n neuron, c neuron set. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import clipped
from jaxconf.analysis.clip_ablation import Clip, summed
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.neuron_sets import masks_of
from jaxconf.analysis.rerun import compiled_entry, compiled_rerun
from jaxconf.measure.named_sets import NamedSet, table_of_sets
from jaxconf.models.language_model import LanguageModel
from jaxconf.runtime.batching import batches_in_memory, joined
from jaxconf.runtime.memory import bytes_of_a_set
from jaxconf.runtime.progress import Progress
from jaxconf.studies.induction.setting import Setting

EFFECTS = ("entropy", "entropy_ln_frozen", "loss", "loss_ln_frozen")


class Clipped(NamedTuple):
    """The changes of EFFECTS by clip ablation, in nats, float64."""

    by_position: dict[str, np.ndarray]  # c t: means over sequences
    sums: dict[str, np.ndarray]  # b c: over the counted positions of each sequence


def tables_of_clip_ablation(
    setting: Setting, sets: Sequence[NamedSet], clips: Mapping[int, Clip]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `Induction.ablations` and `Induction.sets`. `clips`: of each layer that a set has neurons of."""
    tokens, repeat = setting.texts.repeated, setting.texts.repeat
    found: Clipped = setting.fitted(clip_ablation, tokens, sets, clips, np.broadcast_to(repeat, tokens.shape))
    T = tokens.shape[1]
    place = {
        "set": np.repeat([one.name for one in sets], T),
        "kind": np.repeat([one.kind for one in sets], T),
        "position": np.tile(np.arange(T), len(sets)),
    }
    by_position = pd.DataFrame({**place, **{name: x.ravel() for name, x in found.by_position.items()}})
    return by_position, table_of_sets(sets, found.sums, int(repeat.sum()), setting.bootstrap_draws, setting.seed)


def clip_ablation(
    lm: LanguageModel,
    tokens: np.ndarray,
    sets: Sequence[NamedSet],
    clips: Mapping[int, Clip],
    counted: np.ndarray,
    memory: int,
    progress: Progress,
) -> Clipped:
    """The effects of the clip ablation of each set on tokens, int32 [b t].

    `clips`: of each layer that a set has neurons of. `counted`: the positions that the sums are over, bool [b t]. In
    `by_position` the change of the loss is NaN at the last position, because no token follows it.
    """
    config, masks = lm.config, masks_of(lm.config, [one.members for one in sets])
    layers, freq = tuple(masks), frequency(np.zeros(config.vocab_size))
    mean = {layer: jnp.asarray(clips[layer].mean, jnp.float32) for layer in layers}
    rises = {layer: jnp.asarray(clips[layer].rises) for layer in layers}
    by_position = {name: np.zeros((len(sets), tokens.shape[1])) for name in EFFECTS}
    sums: dict[str, list[np.ndarray]] = {name: [] for name in EFFECTS}
    D, each = lm.mesh.shape["data"], bytes_of_a_set(config, tokens.shape[1])
    progress("clip ablation", 0, tokens.size)
    for rows, real in batches_in_memory(len(tokens), each, memory, D):
        batch, target = lm.over_data(tokens[rows]), lm.over_data(np.roll(tokens[rows], -1, 1))
        resid, h, before = compiled_entry(config, layers, lm.params, freq, batch, target)
        values = {layer: clipped(h[layer], mean[layer], rises[layer]) for layer in layers}
        parts = []
        for some, _ in batches_in_memory(len(sets), each * len(rows) // D, memory):
            chosen = {layer: mask[some] for layer, mask in masks.items()}
            parts.append(compiled_rerun(config, lm.params, freq, resid, target, before, values, chosen))
        changes = joined(parts, len(sets))
        for name in EFFECTS:
            of_positions, of_sequences = summed(getattr(changes, name), real, counted[rows])
            by_position[name] += of_positions
            sums[name].append(of_sequences)
        progress("clip ablation", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    means = {name: total / len(tokens) for name, total in by_position.items()}
    for name in ("loss", "loss_ln_frozen"):
        means[name][:, -1] = np.nan
    return Clipped(means, {name: np.concatenate(x) for name, x in sums.items()})

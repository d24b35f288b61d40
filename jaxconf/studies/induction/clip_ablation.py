"""Clip mean-ablation of sets of neurons: activations beyond a mean are put back to it.

Letters: b sequence, t position, n neuron, c set. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import clipped
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.intervals import bootstrap
from jaxconf.analysis.neuron_sets import Neurons, masks_of
from jaxconf.analysis.rerun import compiled_entry, compiled_rerun
from jaxconf.models.language_model import LanguageModel
from jaxconf.runtime.batching import batches_in_memory, joined
from jaxconf.runtime.memory import bytes_of_a_set
from jaxconf.runtime.progress import Progress

EFFECTS = ("entropy", "entropy_ln_frozen", "loss", "loss_ln_frozen")


def clip_ablation(
    lm: LanguageModel,
    tokens: np.ndarray,
    sets: Sequence[Neurons],
    means: dict[int, np.ndarray],
    rises: dict[int, np.ndarray],
    where: np.ndarray,
    memory: int,
    progress: Progress,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What clip mean-ablations change, EFFECTS of each: means over sequences, [c t], and each sequence's sum over the positions `where`, bool
    [b t], is true: [b c].
    """
    config, masks = lm.config, masks_of(lm.config, sets)
    layers, freq = tuple(masks), frequency(np.zeros(config.vocab_size))
    mean, rise = ({layer: jnp.asarray(x[layer]) for layer in layers} for x in ({i: m.astype(np.float32) for i, m in means.items()}, rises))
    by_position = {name: np.zeros((len(sets), tokens.shape[1])) for name in EFFECTS}
    sums: dict[str, list[np.ndarray]] = {name: [] for name in EFFECTS}
    D, each = lm.mesh.shape["data"], bytes_of_a_set(config, tokens.shape[1])
    for rows, real in batches_in_memory(len(tokens), each, memory, D):
        target = lm.over_data(np.roll(tokens[rows], -1, 1))
        resid, h, before = compiled_entry(config, layers, lm.params, freq, lm.over_data(tokens[rows]), target)
        values = {layer: clipped(h[layer], mean[layer], rise[layer]) for layer in layers}
        parts = []
        for some, _ in batches_in_memory(len(sets), each * len(rows) // D, memory):
            chosen = {layer: mask[some] for layer, mask in masks.items()}
            parts.append(compiled_rerun(config, lm.params, freq, resid, target, before, values, chosen))
        changes = joined(parts, len(sets))
        for name in EFFECTS:
            change = np.asarray(getattr(changes, name), np.float64)[:, real]  # c b t
            by_position[name] += change.sum(1)
            sums[name].append(np.where(where[rows[real]], change, 0).sum(-1).T)
        progress("clip mean-ablation", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    means_of = {name: total / len(tokens) for name, total in by_position.items()}
    for name in ("loss", "loss_ln_frozen"):
        means_of[name][:, -1] = np.nan
    return means_of, {name: np.concatenate(x) for name, x in sums.items()}


def summary_of(sums: dict[str, np.ndarray], named: dict[str, Any], kinds: list[str], count: int, draws: int, seed: int) -> pd.DataFrame:
    """A row per set: means over the repeat with intervals over sequences, from sums [b c]."""
    columns: dict[str, Any] = {
        "set": list(named),
        "kind": kinds,
        "members": [",".join(map(name_of, members)) for members in named.values()],
        "size": [len(members) for members in named.values()],
    }
    n_sequences = len(next(iter(sums.values())))
    for name, (estimate, low, high) in bootstrap([sums], np.full(n_sequences, count), {}, draws, seed).items():
        columns |= {name: estimate, f"{name}_lo": low, f"{name}_hi": high}
    return pd.DataFrame(columns)


def name_of(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"

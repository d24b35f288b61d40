"""Mean ablation of neuron sets, clipped and full: its effects by position and over the repeat.

Letters: b sequence, t position, n neuron, c neuron set. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5: there
only single neurons are clipped, and sets are fully ablated.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.intervals import ratio
from jaxconf.analysis.mean_ablation import set_to, summed
from jaxconf.analysis.rerun import compiled_losses
from jaxconf.measure.named_sets import NamedSet, table_of_sets
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import joined
from jaxconf.runtime.progress import Progress
from jaxconf.studies.induction.setting import Setting

EFFECTS = {  # effect → what of the unablated model it changes
    "entropy": "entropy",
    "entropy_ln_frozen": "entropy",
    "loss": "loss",
    "loss_ln_frozen": "loss",
}


class Means(NamedTuple):
    """Of each of EFFECTS; nats, float64."""

    by_position: dict[str, np.ndarray]  # c t: means over sequences
    sums: dict[str, np.ndarray]  # b c: over the counted positions of each sequence


Plan = tuple[Sequence[NamedSet], Mapping[int, LayerAblation]]
"""Neuron sets, and the ablation of each layer that a set has neurons of."""


class Ablated(NamedTuple):
    """What an ablation of neuron sets changes, and what is changed."""

    changes: Means
    before: Means  # of the unablated model; their axis c has length 1


def tables_of_ablations(
    setting: Setting, sets: Sequence[NamedSet], clips: Mapping[int, LayerAblation]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `Induction.ablations` and `Induction.sets`. `clips`: of each layer that a set has neurons of.

    Every set is clipped. Those of several neurons are also set to the same means at every position, as in the paper.
    """
    full = {layer: set_to(clip.level) for layer, clip in clips.items()}
    several = [one for one in sets if len(one.members) > 1]
    plans = {"clip": (sets, clips)} | ({"full": (several, full)} if several else {})
    tokens, repeat = setting.texts.repeated, setting.texts.repeat
    counted = np.broadcast_to(repeat, tokens.shape)
    found: list[Ablated] = setting.fitted(mean_ablations, tokens, list(plans.values()), counted)
    tables = [
        _tables(setting, name, own, ablated) for (name, (own, _)), ablated in zip(plans.items(), found, strict=True)
    ]
    by_position, of_sets = (pd.concat(frames, ignore_index=True) for frames in zip(*tables, strict=True))
    return by_position, of_sets


def _tables(setting: Setting, name: str, sets: Sequence[NamedSet], found: Ablated) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of one ablation, whose name the column `ablation` has."""
    T, count = setting.texts.repeated.shape[1], int(setting.texts.repeat.sum())
    columns = {
        "set": np.repeat([one.name for one in sets], T),
        "kind": np.repeat([one.kind for one in sets], T),
        "ablation": name,
        "position": np.tile(np.arange(T), len(sets)),
    }
    for effect, change in found.changes.by_position.items():
        columns[effect] = change.ravel()
        columns[f"{effect}_ratio"] = ratio(change, found.before.by_position[effect]).ravel()
    of_sets = table_of_ablation(sets, name, found, count, setting.bootstrap_draws, setting.seed)
    return pd.DataFrame(columns), of_sets


def table_of_ablation(
    sets: Sequence[NamedSet], name: str, found: Ablated, count: int, draws: int, seed: int
) -> pd.DataFrame:
    """A row per set, with the changes and the ratios of the EFFECTS and their intervals over sequences.

    `name`: of the ablation. `count`: how many positions of each sequence are counted.
    """
    table = table_of_sets(sets, found.changes.sums, found.before.sums, count, draws, seed)
    table.insert(2, "ablation", name)
    return table


def mean_ablations(
    lm: LanguageModel, tokens: np.ndarray, plans: Sequence[Plan], counted: np.ndarray, memory: int, progress: Progress
) -> list[Ablated]:
    """The effects of several ablations on tokens, int32 [b t]. All sets are of one population and of the same layers.

    `counted`: the positions that the sums are over, bool [b t]. In `by_position` what concerns the loss is NaN at the
    last position, because no token follows it.
    """
    T = tokens.shape[1]
    runs = [SetRuns.of(lm, sets, memory) for sets, _ in plans]
    changes: list[list[Means]] = [[] for _ in plans]
    unablated: list[Means] = []
    progress("mean ablation", 0, tokens.size)
    for rows, real in runs[0].groups(len(tokens), T, T):
        entry, before = runs[0].entry(tokens[rows], np.arange(T))
        base = {name: fetched(getattr(before, of)) for name, of in EFFECTS.items()}
        unablated.append(_summed({name: x[None] for name, x in base.items()}, real, counted[rows]))
        for own, (sets, ablations), means in zip(runs, plans, changes, strict=True):
            parts = [
                compiled_losses(lm.config, lm.params, own.readout, entry, own.some(some, ablations))
                for some, _ in own.chunks(len(rows), T)
            ]
            total, norm_frozen = joined(parts, len(sets))
            after = total._asdict() | {f"{name}_ln_frozen": x for name, x in norm_frozen._asdict().items()}
            means.append(_summed({name: after[name] - base[name] for name in EFFECTS}, real, counted[rows]))
        progress("mean ablation", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    before_all = _means(unablated, len(tokens))
    return [Ablated(_means(of_batches, len(tokens)), before_all) for of_batches in changes]


def _summed(of: Mapping[str, np.ndarray], real: np.ndarray, counted: np.ndarray) -> Means:
    """The sums over a batch, also in `by_position`. `of`: each of EFFECTS, [c b t]."""
    sums = {name: summed(values, real, counted) for name, values in of.items()}
    return Means(*({name: both[i] for name, both in sums.items()} for i in range(2)))


def _means(batches: Sequence[Means], count: int) -> Means:
    """The means over all `count` sequences, from the sums over each batch."""
    by_position = {name: np.sum([of.by_position[name] for of in batches], axis=0) / count for name in EFFECTS}
    for name, of in EFFECTS.items():
        if of == "loss":
            by_position[name][:, -1] = np.nan
    return Means(by_position, {name: np.concatenate([of.sums[name] for of in batches]) for name in EFFECTS})

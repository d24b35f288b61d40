"""Influence: how much the entropy changes if the high activations of a neuron set are clipped.

Letters: s window, t position, q position that counts in some window, u unit, c set, n neuron or component, r bootstrap
draw. A neuron is clipped to its mean where its activation is above its 0.9 quantile; of a set, each neuron is, where it
is high itself. The change is averaged over the positions at which the neuron, or one of the set, is high. Entropies are
in nats. Source: Zahrivyi, *Causal but Not Carrier* (2026).
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.intervals import resamples
from jaxconf.analysis.rerun import compiled_total_losses
from jaxconf.measure.activations import LayerActivations, activations_of_each
from jaxconf.measure.gates import where_high
from jaxconf.measure.named_sets import NamedSet, Population, by_population
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.progress import Progress
from jaxconf.studies.carry.intervals import beside_random, interval
from jaxconf.studies.carry.setting import Text


def table_of_influence(
    lm: LanguageModel,
    text: Text,
    named: Sequence[NamedSet],
    effects: int,
    draws: int,
    seed: int,
    memory: int,
    progress: Progress,
) -> pd.DataFrame:
    """A row for each set, and for each neuron of those that are not random. `Carry.influence` says which columns.

    It is measured on about `effects` tokens of windows on which no set was named, evenly chosen.
    """
    windows = max(1, min(len(text.others), effects // text.tokens.shape[1]))
    rows = text.others[np.linspace(0, len(text.others) - 1, windows).round().astype(int)]
    shown = [of for of in named if of.kind != "random"]
    alone = [
        NamedSet(population.name(member), "neuron", [member], population)
        for population, own in by_population(shown).items()
        for member in sorted({member for row in own for member in shown[row].members})
    ]
    every = [*alone, *named]
    sums, counts = np.zeros((2, len(text.part), len(every)))
    for own in by_population(every).values():
        sums[:, own], counts[:, own] = changes(lm, text, rows, [every[row] for row in own], memory, progress)
    units = np.unique(text.units[rows][text.kept[rows]])
    sums, counts = sums[units], counts[units]  # those of other units are 0
    weights = resamples(np.bincount(text.units[rows][text.kept[rows]])[units], draws, seed)
    mean, drawn = _means(sums.sum(0), counts.sum(0)), _means(weights @ sums, weights @ counts)
    gap, gap_drawn = beside_random(every, mean, drawn)
    columns = {
        "set": [of.name for of in every],
        "kind": [of.kind for of in every],
        "beside": [of.beside for of in every],
        "size": [len(of.members) for of in every],
        "positions": counts.sum(0).astype(int),
        "entropy_abs_delta": mean,
        **interval("entropy_abs_delta", drawn),
        "gap": gap,
        **interval("gap", gap_drawn),
    }
    return pd.DataFrame(columns)


def changes(
    lm: LanguageModel,
    text: Text,
    rows: np.ndarray,
    sets: Sequence[NamedSet],
    memory: int,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """|change of entropy| summed over the positions of each unit at which one of the set is high, [u c]; and how many.

    `rows`: the windows that it is measured on, int. `sets`: of one population.
    """
    config, last, T = lm.config, lm.config.n_layers - 1, text.tokens.shape[1]
    tokens, kept, units = text.tokens[rows], text.kept[rows], text.units[rows]
    runs, population = SetRuns.of(lm, sets, memory), sets[0].population
    neurons = np.flatnonzero(runs.sets[last].any(0))
    ablation, high = _clipping(lm, tokens, kept, population, neurons, memory, progress)
    counted = np.flatnonzero(kept.any(0))
    sums, counts = np.zeros((2, len(text.part), len(sets)))
    progress("influence", 0, tokens.size)
    for group, real in runs.groups(len(rows), T, len(counted)):
        entry, before = runs.entry(tokens[group], counted)
        entropy = fetched(before.entropy)
        own, of_unit = high[:, group][..., counted] & real[:, None], units[group][:, counted]
        for some, _ in runs.chunks(len(group), T):
            of_sets = runs.some(some, {last: ablation})
            total = fetched(compiled_total_losses(config, lm.params, runs.readout, entry, of_sets))
            moved = np.abs(total.entropy - entropy).astype(np.float64)  # c s q
            for change, c in zip(moved, some, strict=True):
                where = own[np.searchsorted(neurons, sets[c].indices)].any(0)
                np.add.at(sums[:, c], of_unit[where], change[where])
                np.add.at(counts[:, c], of_unit[where], 1)
        progress("influence", (int(group[real][-1]) + 1) * T, tokens.size)
    return sums, counts


def _clipping(
    lm: LanguageModel,
    tokens: np.ndarray,
    kept: np.ndarray,
    population: Population,
    neurons: np.ndarray,
    memory: int,
    progress: Progress,
) -> tuple[LayerAblation, np.ndarray]:
    """The ablation of a population of the last layer, and where each of these `neurons` of it is high, bool [n s t]."""
    last = lm.config.n_layers - 1
    level, beyond = np.zeros((2, population.count), np.float32)
    high = np.zeros((len(neurons), *tokens.shape), bool)
    activity = LayerActivations(lm, tokens, last, memory, population.dictionary)
    every = activations_of_each(activity, neurons, progress)
    for row, (neuron, h) in enumerate(zip(neurons, every, strict=True)):
        level[neuron] = h.mean()
        beyond[neuron], high[row] = where_high(h, kept)
    return LayerAblation("high", jnp.asarray(level), jnp.asarray(beyond)), high


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """NaN where there is no position."""
    return sums / np.where(counts > 0, counts, np.nan)

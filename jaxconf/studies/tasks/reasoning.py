"""Entropy and the chosen neurons' activations token by token, and whether they fire at forks.

Letters: s window, t position, n chosen neuron or component. A fork is a kept position whose prediction has an entropy
above the 0.9 quantile of all of them.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxconf.analysis.forks import Forks, at_forks, drawn_differences, forks_of
from jaxconf.analysis.intervals import resamples, units_of
from jaxconf.analysis.nulls import q_values
from jaxconf.analysis.observation import observed_neurons
from jaxconf.data.windows import Windows
from jaxconf.measure.inputs import in_words, prepared
from jaxconf.measure.named_sets import Population
from jaxconf.measure.selections import Selection
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_set, fitting
from jaxconf.runtime.progress import Progress

SHIFTS = 1000  # draws of the null


def tables_of_reasoning(
    lm: LanguageModel,
    windows: Windows,
    found: Sequence[Selection],
    draws: int,
    seed: int,
    memory: int,
    progress: Progress,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`Tasks.tokens` and `Tasks.forks`. `draws`: bootstrap resamples of the documents."""
    tokens, kept = prepared(lm, windows, None)
    chosen: dict[Population, dict[tuple[int, int], None]] = {}  # without those that are in several selections twice
    for own in found:
        chosen.setdefault(own.own.population, {}).update(dict.fromkeys(own.own.members))
    names = [of.name(member) for of, members in chosen.items() for member in members]

    def measured(memory: int) -> tuple[np.ndarray, np.ndarray]:
        every = [
            _observed(lm, tokens, of, np.array([index for _, index in members]), memory, progress)
            for of, members in chosen.items()
        ]
        return every[0][0], np.concatenate([h for _, h in every], -1)

    entropy, h = fitting(measured, memory, progress)
    forks, documents = forks_of(entropy[kept]), windows.documents[kept]
    of_null = at_forks(h[kept], forks, documents, SHIFTS, seed)
    units, _ = units_of(windows.documents, kept)
    units = np.unique(units[kept], return_inverse=True)[1]
    low, high = drawn_differences(h[kept], forks, units, resamples(np.bincount(units), draws, seed))
    s, t = np.nonzero(kept)
    places = {"document": documents, "window": s, "position": t, "token": tokens[kept], "target": tokens[s, t + 1]}
    frame = pd.DataFrame({**places, "entropy": entropy[kept], "is_fork": forks})
    activations = pd.DataFrame(h[kept], columns=pd.Index(names))
    return pd.concat([in_words(lm, frame), activations], axis=1), _table_of_forks(found, names, of_null, low, high)


def _observed(
    lm: LanguageModel, tokens: np.ndarray, of: Population, members: np.ndarray, memory: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """The entropy of each prediction, float32 [s t], and the activations of some `members` of a population, [s t n]."""
    (S, T), stage = tokens.shape, "reasoning text"
    entropy, h = np.zeros((S, T), np.float32), np.zeros((S, T, len(members)), np.float32)
    progress(stage, 0, tokens.size)
    for rows, real in batches_in_memory(S, bytes_of_a_set(lm.config, T), memory, lm.mesh.shape["data"]):
        here, last = lm.over_data(tokens[rows]), lm.config.n_layers - 1
        of_some = fetched(observed_neurons(lm.config, lm.params, here, last, members, of.dictionary))
        entropy[rows[real]], h[rows[real]] = (x[real] for x in of_some)
        progress(stage, (int(rows[real][-1]) + 1) * T, tokens.size)
    return entropy, h


def _table_of_forks(
    found: Sequence[Selection], names: Sequence[str], of: Forks, low: np.ndarray, high: np.ndarray
) -> pd.DataFrame:
    """A row per selection and neuron."""
    columns = {"activation_forks": of.at, "activation_elsewhere": of.elsewhere, "difference": of.difference}
    columns |= {"difference_lo": low, "difference_hi": high}
    columns |= {"null_mean": of.null_mean, "null_lo": of.null_lo, "null_hi": of.null_hi, "p": of.p, "q": q_values(of.p)}
    every = pd.DataFrame(columns, index=pd.Index(names, name="neuron"))
    parts = [every.loc[own.own.names].assign(selection=own.name) for own in found]
    return pd.concat(parts).reset_index()

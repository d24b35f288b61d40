"""Measures of a model's neurons: of weights, of activations, and of the effects of ablating those of its last layer.

Letters: s window, t position, l layer, n neuron, h head, d width.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.bos_attention import bos_directions, most_moved_head
from jaxconf.analysis.composition import cosines_of_pairs, reads
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.moments import Moments, activation_statistics, moments
from jaxconf.analysis.unembedding import Readout, at_layer, readout, spectrum
from jaxconf.analysis.weights import chance_rho, null_space_size, vocabulary_statistics
from jaxconf.data.windows import Windows
from jaxconf.measure.analyze import analyze
from jaxconf.measure.weights import weight_columns
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.models.norms import centre
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_window, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.studies.universal.matches import CountedText

BOS_WINDOWS = 8
EFFECTS = ("ln_mediated", "freq_mediated", "entropy_delta", "loss_abs_delta", "kl_freq_abs_delta")


class Measuring(NamedTuple):
    """The settings with which each model is measured, as for `jaxconf.universal`."""

    effects: int
    k: int | None
    seed: int
    memory: int


def describe(
    lm: LanguageModel, text: CountedText, freq: Frequency, how: Measuring, progress: Progress
) -> tuple[pd.DataFrame, np.ndarray]:
    """A row per neuron of the model, and the neurons' mean activations, float64 [l n]."""
    frame, means = fitting(functools.partial(_described, lm, text, freq, how, progress), how.memory, progress)
    return (_with_effects(lm, frame, text, how, progress) if how.effects else frame), means


def _described(
    lm: LanguageModel, text: CountedText, freq: Frequency, how: Measuring, progress: Progress, memory: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """`describe` without effects."""
    config, seen = lm.config, readout(lm.config, lm.params)
    values = spectrum(config, lm.params)
    k = null_space_size(config, how.k)
    activity = _activity(lm, text, memory, progress)
    directions = _bos_directions(lm, text.tokens)
    drawn = _random_directions(lm, seen, freq, how.seed)
    frames = []
    progress("weights", 0, config.n_layers)
    for layer in range(config.n_layers):
        here = at_layer(config, lm.params, seen, "paper", layer)
        columns = weight_columns(config, lm.params, here, freq, values, k, layer)
        own = np.arange(config.d_mlp)
        writes = centre(config, here.w_out)  # in a model without a final norm w_out has a mean over d
        columns["in_out_cosine"] = fetched(cosines_of_pairs(writes, reads(config, lm.params, layer), own, own))
        columns |= {f"{name}_chance": np.full(config.d_mlp, largest) for name, largest in drawn.items()}
        columns |= {name: x[layer] for name, x in activity.items()}
        columns |= _bos_columns(here, directions, columns["activation_std"], layer, len(values.values))
        frames.append(pd.DataFrame({"layer": layer, "neuron": own, **columns}))
        progress("weights", layer + 1, config.n_layers)
    return pd.concat(frames, ignore_index=True), activity["activation_mean"]


def _activity(lm: LanguageModel, text: CountedText, memory: int, progress: Progress) -> dict[str, np.ndarray]:
    """The columns of activations, [l n] each, from the positions that count."""
    config, (S, T) = lm.config, text.tokens.shape
    each = bytes_of_a_window(config, T) + 3 * 4 * T * config.n_layers * config.d_mlp

    def of_batch(rows: np.ndarray, real: np.ndarray, shift: np.ndarray) -> Moments:
        counted = lm.over_data(text.counted[rows] & real[:, None])
        found = fetched(moments(config, lm.params, lm.over_data(text.tokens[rows]), counted, shift))
        return Moments(*(x.astype(np.float64) for x in found))

    shift = np.zeros((config.n_layers, config.d_mlp), np.float32)
    sums: Any = None
    progress("activations", 0, text.tokens.size)
    for rows, real in batches_in_memory(S, each, memory, lm.mesh.shape["data"]):
        if sums is None:  # sums around the first batch's mean lose little precision
            count = max(1, text.counted[rows[real]].sum())
            shift = (of_batch(rows, real, shift).by_position.sum(1) / count).astype(np.float32)
        more = of_batch(rows, real, shift)
        sums = more if sums is None else jax.tree.map(np.add, sums, more)
        progress("activations", int(rows[real][-1] + 1) * T, text.tokens.size)
    return activation_statistics(sums, shift, text.counted.sum(0))


def _bos_directions(lm: LanguageModel, tokens: np.ndarray) -> np.ndarray:
    """The mean of `bos_directions` over the first windows, [l h d].

    NaN if a norm takes the sum of the stream and the writes.
    """
    of_windows = [fetched(bos_directions(lm.config, lm.params, window[None])) for window in tokens[:BOS_WINDOWS]]
    directions = np.mean(of_windows, 0)
    return np.full_like(directions, np.nan) if lm.config.norm_place == "sum" else directions


def _bos_columns(here: Readout, directions: np.ndarray, std: np.ndarray, layer: int, dimensions: int) -> dict[str, Any]:
    """For each neuron of a layer, the columns of the head above it whose attention to BOS the neuron changes most.

    `directions`: [l h d]. `std`: standard deviations of the activations, [n]. `dimensions`: the dimension of the space
    in which write directions lie.
    """
    N, H = len(std), directions.shape[1]
    above = directions[layer + 1 :].reshape(-1, directions.shape[-1])  # (l h) d
    if not len(above) or np.isnan(above).any():
        unknown = dict.fromkeys(("bos_change", "bos_cosine", "bos_cosine_chance"), np.full(N, np.nan))
        return {"bos_head": [None] * N, **unknown}
    moved = most_moved_head(fetched(here.w_out).astype(np.float64), above)
    return {
        "bos_head": [f"{layer + 1 + i // H}.{i % H}" for i in moved.head],
        "bos_change": moved.change * std,
        "bos_cosine": moved.cosine,
        "bos_cosine_chance": np.full(N, chance_rho(1, dimensions, N * len(above))[0]),
    }


def _random_directions(lm: LanguageModel, seen: Readout, freq: Frequency, seed: int) -> dict[str, float]:
    """The largest size of each statistic among as many random write directions as a layer has neurons."""
    drawn = jax.random.normal(jax.random.key(seed), (lm.config.d_mlp, lm.config.d_model))
    random = dataclasses.replace(seen, w_out=centre(lm.config.final, drawn))
    found = fetched(vocabulary_statistics(lm.mesh, random, freq.u))
    return {name: float(np.abs(found[name]).max()) for name in ("vocab_kurtosis", "logit_var", "cos_freq")}


def _with_effects(
    lm: LanguageModel, frame: pd.DataFrame, text: CountedText, how: Measuring, progress: Progress
) -> pd.DataFrame:
    """The frame with the effects of ablating each neuron of the last layer, on the first `how.effects` tokens."""
    some = slice(max(1, how.effects // text.tokens.shape[1]))
    table = analyze(
        lm,
        Windows(text.tokens[some], text.documents[some]),
        kept=text.counted[some],
        counts=text.counts,
        k=how.k,
        seed=how.seed,
        memory=how.memory,
        progress=progress,
    ).frame
    named = ["is_entropy_neuron", "is_frequency_neuron"]
    joined = frame.merge(table[["layer", "neuron", *EFFECTS, *named]], on=["layer", "neuron"], how="left")
    return joined.assign(**{name: joined[name].eq(True) for name in named})

"""For each neuron of the first model its best matches in another model, by the correlation of activations.

Letters: s window, t position, l layer, n neuron.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.correlation import Best, Matches, add, best, block_layers, matches, no_sums
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched, wait_on_cpus
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_window, fitting
from jaxconf.runtime.progress import Progress

MATCHES = 5


class Activity(NamedTuple):
    """A model and the mean activations of its neurons, float64 [l n]."""

    lm: LanguageModel
    means: np.ndarray


class CountedText(NamedTuple):
    """The windows that the models are run over, and which positions count."""

    tokens: np.ndarray  # int [s t]
    counted: np.ndarray  # bool [s t]
    documents: np.ndarray  # int [s t]: the document of each position
    counts: np.ndarray  # int [v]: token counts, for the token-frequency direction


def match_table(
    first: Activity, other: Activity, text: CountedText, key: jax.Array, memory: int, progress: Progress
) -> pd.DataFrame:
    """The rows of `Universality.matches` for one other model. `key`: the random key of the rotations."""
    found = fitting(functools.partial(_best_of_all_layers, first, other, text, key, progress), memory, progress)
    return _rows(matches(found))


def _best_of_all_layers(
    first: Activity, other: Activity, text: CountedText, key: jax.Array, progress: Progress, memory: int
) -> Best:
    """The best matches, computed in blocks of layers whose sums fit into half of the memory.

    The other half is for windows.
    """
    (L, n), (M, m) = first.means.shape, other.means.shape
    keys = jax.random.split(key, M)
    i, j = block_layers(L, n, M, m, memory // 2)
    begins = list(itertools.product(range(0, L, i), range(0, M, j)))
    found = []
    progress("correlations", 0, len(begins) * text.tokens.size)
    for run, (begin, other_begin) in enumerate(begins):

        def report(tokens: int, before: int = run * text.tokens.size) -> None:
            progress("correlations", before + tokens, len(begins) * text.tokens.size)

        layers = np.minimum(np.arange(begin, begin + i), L - 1)  # the last block repeats a layer
        other_layers = np.minimum(np.arange(other_begin, other_begin + j), M - 1)
        blocks = Block(first, layers), Block(other, other_layers)
        of_block = _best_of_block(*blocks, text, keys[other_layers], memory // 2, report)
        found.append(jax.tree.map(lambda x, i=L - begin, j=M - other_begin: x[:j, :i], of_block))
    across = -(-M // j)
    of_layers = [_joined(found[begin : begin + across], 0) for begin in range(0, len(found), across)]
    return _joined(of_layers, 1)


class Block(NamedTuple):
    """Some layers of a model, int [l]."""

    of: Activity
    layers: np.ndarray


def _best_of_block(
    first: Block, other: Block, text: CountedText, keys: jax.Array, memory: int, report: Callable[[int], None]
) -> Best:
    """The best matches among two blocks of layers.

    `keys`: random keys of the rotations of the other model's layers. `report`: called with the number of tokens so far.
    """
    lm, T, m = first.of.lm, text.tokens.shape[1], other.of.means.shape[1]
    each = sum(bytes_of_a_window(of.lm.config, T) + 2 * 4 * T * of.means.size for of in (first.of, other.of))
    sums = no_sums(lm.mesh, len(first.layers), first.of.means.shape[1], len(other.layers), m)
    sides = [
        (block.of.lm.config, block.of.lm.params, block.layers, block.of.means.astype(np.float32))
        for block in (first, other)
    ]
    for rows, real in batches_in_memory(len(text.tokens), each, memory, lm.mesh.shape["data"]):
        counted = lm.over_data(text.counted[rows] & real[:, None])
        sums = add(*sides[0], *sides[1], lm.over_data(text.tokens[rows]), counted, sums)
        wait_on_cpus(lm.mesh, sums)
        report(int(rows[real][-1] + 1) * T)
    means = (block.of.means[block.layers] for block in (first, other))
    return fetched(best(sums, text.counted.sum(), *means, keys, min(MATCHES, m)))


def _joined(parts: Sequence[Best], axis: int) -> Best:
    return jax.tree.map(lambda *x: np.concatenate(x, axis), *parts)


def _rows(found: Matches) -> pd.DataFrame:
    """A row for each neuron that has a match, and each rank."""
    layer, neuron, rank = (x.ravel() for x in np.indices(found.correlation.shape))
    frame = pd.DataFrame(
        {
            "layer": layer,
            "neuron": neuron,
            "rank": rank,
            "match_layer": found.layer.ravel(),
            "match_neuron": found.neuron.ravel(),
            "correlation": found.correlation.ravel(),
            "baseline": np.repeat(found.baseline.ravel(), found.correlation.shape[-1]),
        }
    )
    return frame[frame["correlation"].notna()].assign(excess=frame["correlation"] - frame["baseline"])

"""The share of each neuron's variance that a simple feature of the text explains at positions that were held out.

Letters: s and b window, t position, p position of a batch, f feature, c cell, l layer, n neuron.

A feature gives each position a category, for example its token. Each feature splits the positions into two halves, and
a cell is a category in a half. The mean activation of a category in one half predicts the activations of this category
in the other half, and the other way round. All of this follows from sums over the positions of each cell.

Source: Gurnee et al. 2024 (arXiv 2401.12181), section 4.3. Their features are binary, some come from annotations of
syntax and topic, and the reduction of variance is measured on the positions that it was chosen on. The features here
have many categories, need the tokens alone, and are tested on other positions.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.intervals import units_of
from jaxconf.analysis.moments import CONSTANT, activations
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params

CATEGORIES = 1000  # the most common categories of a feature, the only ones that are told apart
SHRINK = 10  # positions with the mean of all, which each category's mean includes beside its own


class Cells(NamedTuple):
    """The cell of each position for each feature. The cells of a feature are consecutive, and its halves alternate."""

    cell: np.ndarray  # int32 [s t f]
    counts: np.ndarray  # int64 [c]: the counted positions of each cell
    bounds: tuple[int, ...]  # f + 1: where the cells of each feature begin, and the number of all cells


class Sums(NamedTuple):
    """Sums over counted positions of activations less their means; float32."""

    by_cell: jax.Array  # c l n
    squares: jax.Array  # f 2 l n: of the squares, in each half of each feature


def letter_classes(words: Iterable[str]) -> np.ndarray:
    """The class of each word, int [v]: its first letter in either case, or digit, symbol or white space.

    Capital letters make three classes of each letter: of small ones, of a capital one, and of several capital ones.
    """
    return np.unique([_letter_class(word.strip()) for word in words], return_inverse=True)[1]


def _letter_class(word: str) -> str:
    if not word:
        return "white space"
    if not word[0].isalpha():
        return "digit" if word[0].isdigit() else "symbol"
    case = "capitals" if len(word) > 1 and word.isupper() else "capital" if word[0].isupper() else "small"
    return f"{word[0].lower()} {case}"


def features(
    tokens: np.ndarray, documents: np.ndarray, classes: np.ndarray | None, counted: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Feature → category and half of each position, int [s t] each.

    unigram: the token. alphabet: its class, if there are `classes`, int [v]. position: that in the window.
    previous_token: the token before, or −1. topic: the document. The halves hold every other document (or unit, see
    `units_of`), but for topic the first and the second half of the counted positions of each document.
    """
    units = units_of(documents, counted)[0] % 2
    before = np.hstack([np.full((len(tokens), 1), -1), tokens[:, :-1]])
    found = {"unigram": (tokens, units)}
    if classes is not None:
        found["alphabet"] = (classes[tokens], units)
    return {
        **found,
        "position": (np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape), units),
        "previous_token": (before, units),
        "topic": (documents, _second_half(documents, counted)),
    }


def _second_half(documents: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """1 in the second half of the counted positions of each document, else 0, int [s t]."""
    of = documents[counted]
    order = np.argsort(of, kind="stable")
    _, first, which, count = np.unique(of[order], return_index=True, return_inverse=True, return_counts=True)
    half = np.zeros(len(of), int)
    half[order] = 2 * (np.arange(len(of)) - first[which]) >= count[which]
    found = np.zeros(documents.shape, int)
    found[counted] = half
    return found


def cells_of(found: Mapping[str, tuple[np.ndarray, np.ndarray]], counted: np.ndarray) -> Cells:
    """The cells of the `features`, where categories behind the CATEGORIES most common ones are taken together."""
    cells, counts, bounds = [], [], [0]
    for category, half in found.values():
        cell = 2 * _ranks(category, counted) + half
        of_cells = np.bincount(cell[counted])
        counts.append(np.pad(of_cells, (0, len(of_cells) % 2)))
        cells.append(bounds[-1] + np.where(counted, cell, 0))
        bounds.append(bounds[-1] + len(counts[-1]))
    return Cells(np.stack(cells, -1).astype(np.int32), np.concatenate(counts), tuple(bounds))


def _ranks(category: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """0 for the category with the most counted positions, 1 for the next and so on, at most CATEGORIES; int [s t]."""
    distinct, which = np.unique(category, return_inverse=True)
    which = which.reshape(category.shape)
    rank = np.empty(len(distinct), int)
    rank[np.argsort(-np.bincount(which[counted], minlength=len(distinct)), kind="stable")] = np.arange(len(distinct))
    return np.minimum(rank, CATEGORIES)[which]


@functools.partial(jax.jit, static_argnames="config", donate_argnames="sums")
def add(
    config: DecoderConfig,
    params: Params,
    layers: jax.Array,
    means: jax.Array,
    tokens: jax.Array,
    counted: jax.Array,
    cell: jax.Array,
    sums: Sums,
) -> Sums:
    """`sums` plus those of more windows, `tokens` [b t], over the positions at which `counted`, bool [b t], is true.

    `layers`: int [l], those of the sums. `means`: of the activations of all layers, [L n]. `cell`: int [b t f].
    """
    h = (activations(config, params, tokens) - means[:, None, None])[layers]
    h = jnp.moveaxis(jnp.where(counted[..., None], h, 0), 0, 2)  # b t l n
    h, cell = h.reshape(-1, *h.shape[2:]), cell.reshape(-1, cell.shape[-1])
    by_cell = sums.by_cell
    for feature in range(cell.shape[1]):
        by_cell = by_cell.at[cell[:, feature]].add(h)
    of_half = (cell[..., None] % 2 == jnp.arange(2)).astype(h.dtype)  # p f 2
    with jax.default_matmul_precision("highest"):
        return Sums(by_cell, sums.squares + jnp.einsum("pfk,pln->fkln", of_half, h * h))


def held_out_r2(by_cell: np.ndarray, squares: np.ndarray, counts: np.ndarray, means: np.ndarray) -> np.ndarray:
    """1 − (squared errors of the categories' means) / (those of the mean of all) of a feature, float64 [n].

    Each half is predicted from the other, and the errors of both are added. A category's mean is taken as if SHRINK
    more of its positions had the mean of all. Positions that tell nothing give about 0, and slightly less. NaN for a
    constant activation, and if a half is empty. `by_cell` [c n], `squares` [2 n] and `counts` [c]: the sums of the
    feature's cells. `means` [n]: of the activations.
    """
    of_half = by_cell.astype(np.float64).reshape(-1, 2, by_cell.shape[-1])
    count = counts.reshape(-1, 2)
    size = count.sum(0)
    if not size.all():
        return np.full(len(means), np.nan)
    mean = of_half.sum(0) / size[:, None]
    errors, without = 0.0, 0.0
    for train, test in ((0, 1), (1, 0)):
        predicted = (of_half[:, train] + SHRINK * mean[train]) / (count[:, train, None] + SHRINK)
        tested, n = of_half[:, test], count[:, test, None]
        errors = errors + squares[test] + (predicted * (n * predicted - 2 * tested)).sum(0)
        without = without + squares[test] + mean[train] * (size[test] * mean[train] - 2 * tested.sum(0))
    varies = squares.sum(0) > size.sum() * (CONSTANT * means) ** 2
    return np.where(varies, 1 - errors / np.where(varies, without, 1), np.nan)

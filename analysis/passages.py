"""Which positions of a text show what a neuron does, and how its activation is spread. Letters: s window, t position.

Everything is NumPy, since a neuron's activations at all positions are small.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

LENGTH, BEFORE = 32, 20  # tokens of a passage, and how many of them stand before the position that it shows
TOP, MOST = 8, 6  # passages with the largest activations, and with the largest changes
QUANTILES = (0.99, 0.9, 0.75, 0.5, 0.25, 0.1, 0.01, 0.0)
BINS, GROUPS = 40, 10  # of a histogram; of positions with similar activations

Kind = Literal["top", "quantile", "loss", "entropy"]


class Place(NamedTuple):
    """A position, and the passage of its window that is shown with it."""

    kind: Kind
    quantile: float  # of the activation, NaN for the other kinds
    window: int
    position: int
    start: int
    stop: int


class Spread(NamedTuple):
    """How a neuron's activation is spread, and the entropies that go with it."""

    low: float
    high: float
    counts: np.ndarray  # int [BINS]: tokens in each of BINS equal bins from `low` to `high`
    group_activation: np.ndarray  # [≤ GROUPS]: means over groups of equally many positions, by activation
    group_entropy: np.ndarray  # [≤ GROUPS]: the mean entropy in each group, nats


def places(h: np.ndarray, loss_change: np.ndarray, entropy_change: np.ndarray, kept: np.ndarray) -> list[Place]:
    """The passages that show a neuron, [s t] each: those in which its activation is largest ("top"), in which it is at
    each of QUANTILES ("quantile"), and in which ablating it changes the loss or the entropy most.

    `h`: activations, NaN where they do not count. The changes are in nats. `kept`: bool, the positions that can be
    chosen. Of passages of a kind that overlap, only the first is returned.
    """
    chosen = np.flatnonzero(kept & np.isfinite(h))
    if not len(chosen):
        return []
    shape, values = h.shape, h.ravel()[chosen]
    ascending = chosen[np.argsort(values, kind="stable")]
    found = list(_apart("top", ascending[::-1], shape, TOP))
    for quantile in QUANTILES:
        at = ascending[round(quantile * (len(ascending) - 1))]
        found += (place._replace(quantile=quantile) for place in _apart("quantile", [at], shape, 1))
    kinds: tuple[tuple[Kind, np.ndarray], ...] = (("loss", loss_change), ("entropy", entropy_change))
    for kind, change in kinds:
        size = np.abs(change.ravel()[chosen])
        largest = np.argsort(-size, kind="stable")
        found += _apart(kind, chosen[largest[size[largest] > 0]], shape, MOST)
    return found


def _apart(kind: Kind, order: "np.ndarray | list[int]", shape: tuple[int, ...], most: int) -> Iterator[Place]:
    """The passages around the first positions in `order`, indices of a flat [s t], that do not overlap."""
    length, taken = shape[1], list[tuple[int, int]]()
    for flat in order:
        window, position = divmod(int(flat), length)
        start = min(max(0, position - BEFORE), max(0, length - LENGTH))
        if all(window != other or abs(start - begin) >= LENGTH for other, begin in taken):
            taken.append((window, start))
            yield Place(kind, float("nan"), window, position, start, min(start + LENGTH, length))
        if len(taken) == most:
            return


def spread(h: np.ndarray, entropy: np.ndarray, kept: np.ndarray) -> Spread:
    """The spread of activations `h` [s t] over all tokens, NaN where they do not count.

    `entropy` [s t], nats: the unablated model's. `kept`: bool [s t], the positions whose entropies count.
    """
    known = h[np.isfinite(h)]
    if not known.size:
        return Spread(float("nan"), float("nan"), np.zeros(BINS, int), np.zeros(0), np.zeros(0))
    low, high = float(known.min()), float(known.max())
    bins = np.minimum((known - low) / (high - low or 1.0) * BINS, BINS - 1).astype(int)
    both = kept & np.isfinite(h)
    order = np.argsort(h[both], kind="stable")
    groups = [group for group in np.array_split(order, GROUPS) if len(group)]
    means = [[float(x[both][group].mean()) for group in groups] for x in (h, entropy)]
    return Spread(low, high, np.bincount(bins, minlength=BINS), np.array(means[0]), np.array(means[1]))

"""Intervals of the study, from the same resamples of the documents for a set and for its random sets.

Letters: c set, r bootstrap draw.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Compared(Protocol):
    """A set, or something else that is compared with random sets."""

    @property
    def kind(self) -> str: ...  # "random" for a random set

    @property
    def beside(self) -> str: ...  # the name of the set whose random sets it is compared with


def beside_random(sets: Sequence[Compared], found: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each set is above the mean of its random sets, [c]; and in each draw, [r c].

    `found` [c], `drawn` [r c]: a measure of each set. NaN for random sets, and for a set without random ones.
    """
    gap, gaps = np.full(found.shape, np.nan), np.full(drawn.shape, np.nan)
    for row, of in enumerate(sets):
        own = [i for i, other in enumerate(sets) if other.kind == "random" and other.beside == of.beside]
        if own and of.kind != "random":
            gap[row], gaps[:, row] = found[row] - found[own].mean(), drawn[:, row] - drawn[:, own].mean(1)
    return gap, gaps


def interval(name: str, drawn: np.ndarray, level: float = 0.95) -> dict[str, np.ndarray]:
    """The columns `name`_lo and `name`_hi, [c], of what was found in each draw, [r c]; NaN without draws."""
    if not len(drawn):
        return {f"{name}_{end}": np.full(drawn.shape[1:], np.nan) for end in ("lo", "hi")}
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {f"{name}_lo": low, f"{name}_hi": high}

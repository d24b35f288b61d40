"""Sets that are ablated or scaled while a model answers, in the form that `jaxconf.analysis.ablated_sets` takes.

Letters: c set, k member of a set.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxconf.analysis.ablated_sets import Ablations
from jaxconf.measure.named_sets import NamedSet, Population, by_population


class Treated(NamedTuple):
    """A set and what is done to it, as in `Ablations`."""

    one: NamedSet
    values: Any  # float [k], or a number: what the activations are set to, or moved towards
    ablated: float


class Together(NamedTuple):
    """Treated sets of one population."""

    population: Population
    rows: np.ndarray  # int [c]: which of all sets they are
    sets: Ablations


def together(treated: Sequence[Treated]) -> list[Together]:
    """The sets, those of each population together. Smaller sets are filled up with members that stay as they are."""
    found = []
    for population, rows in by_population([of.one for of in treated]).items():
        own = [treated[row] for row in rows]
        shape = len(own), max(len(of.one.members) for of in own)
        members, values, ablated = np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for c, of in enumerate(own):
            size = len(of.one.members)
            members[c] = np.pad(of.one.indices, (0, shape[1] - size), mode="edge")
            values[c, :size], ablated[c, :size] = of.values, of.ablated
        found.append(Together(population, np.array(rows), Ablations(members, values, ablated)))
    return found

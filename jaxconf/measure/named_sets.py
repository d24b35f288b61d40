"""Sets of neurons, directions or attention heads, with the names that tables and pages give them.

Letters: b sequence, c set, n neuron or direction.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.intervals import bootstrap, columns_of
from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.analysis.neuron_sets import masks_of, random_sets, widths_of
from jaxconf.analysis.unembedding import Readout, of_directions
from jaxconf.models.config import DecoderConfig

Members = Sequence[tuple[int, int]]
"""(layer, index) of each neuron, direction or head."""


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """What the members of a set, and of the random sets beside it, are drawn from.

    They are the neurons of a model, or all directions of one kind that are written into its last stream, whose
    coefficients are in the activations' place. Those are of the last layer.
    """

    component: str  # "neuron", or the kind of the directions
    widths: tuple[int, ...]  # how many there are in each group of a layer, as in `jaxconf.analysis.neuron_sets`
    names: Sequence[str] = ()  # of directions
    dictionary: Dictionary | None = None  # of directions

    @classmethod
    def of_neurons(cls, config: DecoderConfig) -> "Population":
        return cls("neuron", widths_of(config))

    @property
    def count(self) -> int:
        """How many there are in a layer."""
        return sum(self.widths)

    @property
    def noun(self) -> str:
        """What a member is."""
        return "neuron" if self.dictionary is None else "component"

    def name(self, member: tuple[int, int]) -> str:
        """The name of a member, such as "11.584" or "sae.12"."""
        if self.names:
            return self.names[member[1]]
        return neuron_name(*member, self.widths if len(self.widths) > 1 else ())

    def masks(self, sets: Sequence[Members]) -> dict[int, np.ndarray]:
        """Layer → which are in each set, bool [c n], as `jaxconf.analysis.neuron_sets.masks_of`."""
        return masks_of(self.count, sets)

    def random(self, members: Members, count: int, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
        """`count` random sets of as many others, as `jaxconf.analysis.neuron_sets.random_sets`."""
        return random_sets(self.widths, members, count, rng)

    def readout(self, config: DecoderConfig, seen: Readout) -> Readout:
        """The readout `seen` of the last layer, in the paper's convention, with the directions if it is of these."""
        return seen if self.dictionary is None else of_directions(config, seen, "paper", self.dictionary.w)


UNNAMED = Population("neuron", ())
"""That of heads, and of neurons that are only named."""


class NamedSet(NamedTuple):
    name: str
    kind: str
    members: Members
    population: Population = UNNAMED
    beside: str = ""  # the set whose random sets it is compared with, where several sets have some

    @property
    def names(self) -> list[str]:
        """The names of the members."""
        return [self.population.name(member) for member in self.members]

    @property
    def listed(self) -> str:
        """The names of the members, such as "11.584,11.2378"."""
        return ",".join(self.names)

    @property
    def indices(self) -> list[int]:
        """The indices of the members in their layers."""
        return [index for _, index in self.members]


def beside_random(population: Population, chosen: Members, controls: int, rng: np.random.Generator) -> list[NamedSet]:
    """The chosen set, and `controls` random sets that it is compared with."""
    drawn = enumerate(population.random(chosen, controls, rng), 1)
    random = [NamedSet(f"random {number}", "random", members, population) for number, members in drawn]
    return [NamedSet("the set", "set", chosen, population), *random]


def by_population(sets: Sequence[NamedSet]) -> dict[Population, list[int]]:
    """Population → which of the sets are of it."""
    found: dict[Population, list[int]] = {}
    for row, one in enumerate(sets):
        found.setdefault(one.population, []).append(row)
    return found


def table_of_sets(
    sets: Sequence[NamedSet],
    changes: Mapping[str, np.ndarray],
    before: Mapping[str, np.ndarray],
    count: int,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """A row per set, with the mean change and the ratio of each metric, and bootstrap intervals over sequences.

    `changes`: metric → its change, summed over each sequence's counted positions, [b c]. `before`: metric → what is
    changed, summed likewise, [b 1]. `count`: how many positions of each sequence are counted. `draws`: bootstrap
    resamples. The columns are `set`, `kind`, `members` and `size`, and for each metric one with its name for the mean
    change and one that ends in `_ratio` for the mean after the change over the mean before it (NaN where the latter is
    0); each has two more that end in `_lo` and `_hi` for its interval.
    """
    columns: dict[str, Any] = {
        "set": [one.name for one in sets],
        "kind": [one.kind for one in sets],
        "members": [one.listed for one in sets],
        "size": [len(one.members) for one in sets],
    }
    counts = np.full(len(next(iter(changes.values()))), count)
    sums = dict(changes)
    for name, change in changes.items():  # after/before is 1 − (before − after)/before, a share
        sums |= {f"{name}_fall": -change, f"{name}_before": before[name]}
    shares = {f"{name}_ratio": (f"{name}_fall", f"{name}_before") for name in changes}
    found = bootstrap([(np.arange(len(counts)), sums)], counts, shares, draws, seed)
    wanted = [column for name in changes for column in (name, f"{name}_ratio")]
    return pd.DataFrame(columns | columns_of({column: found[column] for column in wanted}))

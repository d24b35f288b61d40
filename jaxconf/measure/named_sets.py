"""Sets of neurons or of attention heads, with the names that tables and pages give them.

Letters: b sequence, c set.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.intervals import bootstrap, columns_of

Members = Sequence[tuple[int, int]]
"""(layer, index) of each neuron or head."""


class NamedSet(NamedTuple):
    name: str
    kind: str
    members: Members

    @property
    def listed(self) -> str:
        """The names of the members, such as "11.584,11.2378"."""
        return ",".join(f"{layer}.{index}" for layer, index in self.members)


def beside_random(chosen: Members, drawn: Sequence[Members]) -> list[NamedSet]:
    """The chosen set, and the random sets that it is compared with."""
    random = [NamedSet(f"random {i + 1}", "random", members) for i, members in enumerate(drawn)]
    return [NamedSet("the set", "set", chosen), *random]


def table_of_sets(
    sets: Sequence[NamedSet], sums: Mapping[str, np.ndarray], count: int, draws: int, seed: int
) -> pd.DataFrame:
    """A row per set, with the mean of each metric over the counted positions, and a bootstrap interval over sequences.

    `sums`: metric → its sum over each sequence's counted positions, [b c]. `count`: how many positions of each sequence
    are counted. `draws`: bootstrap resamples. The columns are `set`, `kind`, `members`, `size`, one with the name of
    each metric, and two more that end in `_lo` and `_hi` for its interval.
    """
    columns: dict[str, Any] = {
        "set": [one.name for one in sets],
        "kind": [one.kind for one in sets],
        "members": [one.listed for one in sets],
        "size": [len(one.members) for one in sets],
    }
    counts = np.full(len(next(iter(sums.values()))), count)
    return pd.DataFrame(columns | columns_of(bootstrap([(np.arange(len(counts)), sums)], counts, {}, draws, seed)))

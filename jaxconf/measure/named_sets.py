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

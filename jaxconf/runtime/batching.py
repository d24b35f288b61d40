"""Long work is done in batches of one size, so that each program is compiled once.

Letters: s window, t position, c neuron set.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxconf.models.mesh import fetched
from jaxconf.runtime.memory import usable

Batch = tuple[np.ndarray, np.ndarray]
"""Indices, int [size], and which are real, bool [size]: the last batch repeats the last index to fill its size."""


def batches(count: int, size: int) -> Iterator[Batch]:
    """The indices 0 to count - 1 in batches of `size`."""
    for begin in range(0, count, size):
        index = np.arange(begin, begin + size)
        yield np.minimum(index, count - 1), index < count


def batches_in_memory(count: int, each: int, memory: int, devices: int = 1) -> Iterator[Batch]:
    """The indices 0 to count - 1 in batches as large as `memory` allows, with as many on each of the `devices`.

    `each`: bytes that one of them takes. `memory`: bytes that a device may use for them.
    """
    on_a_device = int(np.clip(usable(memory) // each, 1, -(-count // devices)))
    return batches(count, devices * on_a_device)


def joined(parts: Sequence[Any], count: int) -> Any:
    """The results of all batches, trees of arrays, joined along their first axis without what was repeated."""
    return jax.tree.map(lambda *x: np.concatenate(fetched(x))[:count], *parts)

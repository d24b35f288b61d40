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
"""Indices, int [size], and which of them are real, bool [size]. The last batch is filled up to `size` by repeats of the
last index, which are not real.
"""


def even_size(count: int, most: int) -> int:
    """The size of batches of up to `most` for `count` indices: they are as few as can be, and then as small."""
    return -(-count // -(-count // most))


def batches(count: int, size: int) -> Iterator[Batch]:
    """The indices 0 to count - 1 in batches of `size`."""
    for begin in range(0, count, size):
        index = np.arange(begin, begin + size)
        yield np.minimum(index, count - 1), index < count


def batches_in_memory(count: int, each: int, memory: int, devices: int = 1) -> Iterator[Batch]:
    """The indices 0 to count - 1 in batches as large as `memory` allows, each to be split evenly over `devices`.

    `each`: bytes for one index. `memory`: bytes that one device may use for its part of a batch.
    """
    on_a_device = int(np.clip(usable(memory) // each, 1, -(-count // devices)))
    return batches(count, devices * on_a_device)


def joined(parts: Sequence[Any], count: int) -> Any:
    """The results of all batches (trees of arrays), joined along their first axis and cut to the `count` real ones."""
    return jax.tree.map(lambda *x: np.concatenate(fetched(x))[:count], *parts)

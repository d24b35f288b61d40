"""Batches against plain slicing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxconf.runtime.batching import batches, batches_in_memory, joined


@given(st.integers(1, 40), st.integers(1, 50))
def test_batches_have_one_size_and_give_every_index_once(count, size):
    found = list(batches(count, size))
    assert {(len(index), len(real)) for index, real in found} == {(size, size)}
    assert np.concatenate([index[real] for index, real in found]).tolist() == list(range(count))
    assert all((index[~real] == count - 1).all() for index, real in found)
    assert joined([index for index, _ in found], count).tolist() == list(range(count))


@given(st.integers(1, 40), st.integers(1, 2**20), st.integers(1, 2**24), st.sampled_from([1, 2, 8]))
def test_batches_in_memory_fill_what_the_devices_have_and_no_more_than_needed(count, each, memory, devices):
    [size] = {len(index) for index, _ in batches_in_memory(count, each, memory, devices)}
    on_a_device = size // devices
    assert size == on_a_device * devices
    assert on_a_device == 1 or (on_a_device * each <= memory and (on_a_device - 1) * devices < count)
    assert (on_a_device + 1) * each > memory or size >= count

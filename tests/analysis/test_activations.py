"""Statistics of activations against numpy. Letters: s window, t position, p token position, n neuron."""

import hypothesis.extra.numpy as arrays
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from jaxconf.analysis.activations import BINS, Moments, merged, mode, statistics_of


def moments(h: np.ndarray) -> Moments:
    return Moments(np.full(4, len(h)), h.mean(0), ((h - h.mean(0)) ** 2).sum(0), h.min(0), h.max(0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20))
def test_merged_parts_have_the_moments_of_the_whole(seed: int, first: int, second: int) -> None:
    h = 1e3 + np.random.default_rng(seed).standard_normal((first + second, 4))
    found = statistics_of(merged(moments(h[:first]), moments(h[first:])))
    for name, expected in {"mean": h.mean(0), "std": h.std(0), "low": h.min(0), "high": h.max(0)}.items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-10, atol=1e-10, err_msg=name)


def test_the_mode_is_the_middle_of_the_fullest_bin() -> None:
    h = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    h[:200] = 1.5
    counts, edges = np.histogram(h, BINS)
    assert abs(mode(h) - (edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2) < 1e-6
    assert abs(mode(h) - 1.5) <= np.ptp(h) / BINS


def test_of_equally_full_bins_the_lowest_counts() -> None:
    assert mode(np.array([0, 1000], np.float32)) == 0.5


@example(np.array([8.5e-44, 0], np.float32))  # ranges that are not normal numbers
@example(np.array([1.99626e-40, 0], np.float32))
@given(arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)))
def test_the_mode_lies_within_a_bin_of_an_activation(h: np.ndarray) -> None:
    spread = max(np.ptp(h), np.finfo(np.float32).tiny)  # of a range that is no normal number, bins are wider
    assert np.abs(h - mode(h)).min() <= spread / BINS * (1 + 1e-4)
    assert h.min() <= mode(h) <= h.max()


def test_an_activation_that_never_changes_is_its_own_mode() -> None:
    assert mode(np.full(7, 0.1, np.float32)) == np.float32(0.1)

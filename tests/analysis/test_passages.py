"""Which passages are shown of a neuron, and how its activation is spread, on arrays that say what must be found."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxconf.analysis.passages import LENGTH, MOST, QUANTILES, TOP, places, spread


def planted(seed: int, windows: int, length: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    h, loss, entropy = rng.standard_normal((3, windows, length)).astype(np.float32)
    kept = rng.random((windows, length)) < 0.8
    h[rng.random(h.shape) < 0.1] = np.nan
    return h, loss, entropy, kept


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 100))
def test_each_kind_begins_with_its_extreme_and_no_two_passages_of_a_kind_overlap(
    seed: int, windows: int, length: int
) -> None:
    h, loss, entropy, kept = planted(seed, windows, length)
    found = places(h, loss, entropy, kept)
    can = kept & np.isfinite(h)
    assert bool(found) == bool(can.any())
    for kind, size, most in (("top", h, TOP), ("loss", abs(loss), MOST), ("entropy", abs(entropy), MOST)):
        own = [place for place in found if place.kind == kind]
        assert len(own) <= most
        for place in own:
            assert can[place.window, place.position]
            assert place.start <= place.position < place.stop <= length
            assert place.stop - place.start == min(LENGTH, length)
        if own:
            assert size[own[0].window, own[0].position] == size[can].max()
            values = [size[place.window, place.position] for place in own]
            assert values == sorted(values, reverse=True)
        begins = [(place.window, place.start) for place in own]
        for i, (window, start) in enumerate(begins):
            assert all(window != other or abs(start - begin) >= LENGTH for other, begin in begins[:i])


def test_quantiles_are_those_of_the_activations_that_count() -> None:
    h = np.arange(1000, dtype=np.float32).reshape(10, 100)
    zero = np.zeros_like(h)
    found = places(h, zero, zero, h >= 500)
    by = {place.quantile: h[place.window, place.position] for place in found if place.kind == "quantile"}
    assert list(by) == list(QUANTILES)
    for quantile, value in by.items():
        assert abs(value - np.quantile(np.arange(500, 1000), quantile)) <= 0.5
    assert not [place for place in found if place.kind in ("loss", "entropy")]  # nothing changes anywhere


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 100))
def test_the_spread_counts_every_token_and_its_groups_have_the_mean_of_all(
    seed: int, windows: int, length: int
) -> None:
    h, _, entropy, kept = planted(seed, windows, length)
    of, both = spread(h, entropy, kept), kept & np.isfinite(h)
    assert of.counts.sum() == np.isfinite(h).sum()
    if np.isfinite(h).any():
        assert (of.low, of.high) == (np.nanmin(h), np.nanmax(h))
    assert list(of.group_activation) == sorted(of.group_activation)
    if both.sum() and both.sum() % 10 == 0:
        np.testing.assert_allclose(of.group_activation.mean(), h[both].mean(), atol=1e-5)
        np.testing.assert_allclose(of.group_entropy.mean(), entropy[both].mean(), atol=1e-5)


def test_a_neuron_that_never_counts_and_one_that_never_varies() -> None:
    nothing, constant = np.full((2, 8), np.nan, np.float32), np.full((2, 8), 3.0, np.float32)
    kept, zero = np.ones((2, 8), bool), np.zeros((2, 8))
    assert places(nothing, zero, zero, kept) == []
    assert spread(nothing, zero, kept).counts.sum() == 0
    assert spread(constant, zero, kept).counts.sum() == 16
    assert {place.kind for place in places(constant, zero, zero, kept)} == {"top", "quantile"}

"""Bootstrap intervals: against the plain definition, and their coverage."""

import numpy as np
import pytest

from jaxconf.analysis.intervals import bootstrap, columns_of, share


def test_estimates_and_shares_are_ratios_of_sums():
    rng = np.random.default_rng(0)
    sums = {"whole": rng.random((6, 4)), "part": rng.random((6, 4))}
    counts = np.array([3, 1, 0, 5, 2, 9])
    result = bootstrap([sums], counts, {"share": ("part", "whole")}, draws=200, seed=0)
    np.testing.assert_allclose(result["whole"][0], sums["whole"].sum(0) / counts.sum())
    np.testing.assert_allclose(result["share"][0], 1 - sums["part"].sum(0) / sums["whole"].sum(0))
    for estimate, low, high in result.values():
        assert (low <= estimate).all()
        assert (estimate <= high).all()


def test_draws_are_those_of_resampling_sequences():
    rng = np.random.default_rng(1)
    values, counts = rng.random((5, 1)), np.array([1, 2, 3, 4, 5])
    _, low, high = bootstrap([{"x": values}], counts, {}, draws=20000, seed=0)["x"]
    chosen = rng.integers(0, 5, (20000, 5))
    plain = values[chosen, 0].sum(1) / counts[chosen].sum(1)
    np.testing.assert_allclose([low[0], high[0]], np.quantile(plain, [0.025, 0.975]), atol=0.005)


def test_coverage_is_near_its_level():
    rng = np.random.default_rng(2)
    S, N = 40, 400  # every neuron is one experiment
    counts = np.full(S, 10)
    sums = rng.exponential(1.0, (S, N)) * 10
    _, low, high = bootstrap([{"x": sums}], counts, {}, draws=1000, seed=0)["x"]
    assert ((low < 1) & (high > 1)).mean() == pytest.approx(
        0.93, abs=0.04
    )  # percentile intervals of 40 skewed values fall a little short


def test_same_seed_same_interval_and_no_draws_no_interval():
    sums, counts = {"x": np.random.default_rng(3).random((8, 3))}, np.full(8, 2)
    first, second, other = (bootstrap([sums], counts, {}, 100, seed)["x"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert (first[1] != other[1]).any()
    assert np.isnan(bootstrap([sums], counts, {}, 0, 0)["x"][1:]).all()


def test_a_neuron_without_effect_has_no_share():
    assert np.isnan(share(np.zeros(1), np.zeros(1))).all()
    assert share(np.ones(1), np.full(1, 4.0)) == 0.75


def test_a_share_of_rounding_is_no_share():
    assert np.isnan(share(np.array([2e-7]), np.array([9e-7]))).all()


def test_one_sequence_tells_nothing_about_its_spread():
    sums, counts = {"x": np.random.default_rng(4).random((3, 2))}, np.array([0, 5, 0])
    estimate, low, high = bootstrap([sums], counts, {}, 50, 0)["x"]
    np.testing.assert_allclose(estimate, sums["x"].sum(0) / 5)
    assert np.isnan([low, high]).all()


def test_parts_are_as_good_as_the_whole():
    rng = np.random.default_rng(5)
    sums, counts = rng.random((7, 3)), np.array([2, 0, 1, 4, 3, 2, 2])
    whole = bootstrap([{"x": sums}], counts, {}, 300, 0)["x"]
    for cuts in ((3,), (1, 2, 6)):
        parts = bootstrap(iter([{"x": part} for part in np.split(sums, cuts)]), counts, {}, 300, 0)["x"]
        np.testing.assert_allclose(parts, whole, rtol=1e-6)


def test_columns_are_named_after_the_ends_of_their_intervals():
    found = columns_of({"x": (np.array([1.0]), np.array([0.5]), np.array([2.0])), "y": (np.zeros(1),) * 3})
    assert {name: value.item() for name, value in found.items()} == {
        **{"x": 1, "x_lo": 0.5, "x_hi": 2},
        **dict.fromkeys(("y", "y_lo", "y_hi"), 0),
    }

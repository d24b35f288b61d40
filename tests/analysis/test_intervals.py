"""Bootstrap intervals: against the plain definition, their coverage, and what they draw again.

Letters: s window, t position, n neuron.
"""

import numpy as np
import pytest

from jaxconf.analysis.intervals import FEWEST, bootstrap, columns_of, ratio, share, signs, units_of


def whole(sums):
    """One part, in which each unit has a row."""
    return np.arange(len(next(iter(sums.values())))), sums


def test_estimates_and_shares_are_ratios_of_sums():
    rng = np.random.default_rng(0)
    sums = {"whole": rng.random((6, 4)), "part": rng.random((6, 4))}
    counts = np.array([3, 1, 0, 5, 2, 9])
    result = bootstrap([whole(sums)], counts, {"share": ("part", "whole")}, draws=200, seed=0)
    np.testing.assert_allclose(result["whole"][0], sums["whole"].sum(0) / counts.sum())
    np.testing.assert_allclose(result["share"][0], 1 - sums["part"].sum(0) / sums["whole"].sum(0))
    for estimate, low, high in result.values():
        assert (low <= estimate).all()
        assert (estimate <= high).all()


def test_draws_are_those_of_resampling_sequences():
    rng = np.random.default_rng(1)
    values, counts = rng.random((5, 1)), np.array([1, 2, 3, 4, 5])
    _, low, high = bootstrap([whole({"x": values})], counts, {}, draws=20000, seed=0)["x"]
    chosen = rng.integers(0, 5, (20000, 5))
    plain = values[chosen, 0].sum(1) / counts[chosen].sum(1)
    np.testing.assert_allclose([low[0], high[0]], np.quantile(plain, [0.025, 0.975]), atol=0.005)


def test_coverage_is_near_its_level():
    rng = np.random.default_rng(2)
    S, N = 40, 400  # every neuron is one experiment
    counts = np.full(S, 10)
    sums = rng.exponential(1.0, (S, N)) * 10
    _, low, high = bootstrap([whole({"x": sums})], counts, {}, draws=1000, seed=0)["x"]
    assert ((low < 1) & (high > 1)).mean() == pytest.approx(
        0.93, abs=0.04
    )  # percentile intervals of 40 skewed values fall a little short


def test_same_seed_same_interval_and_no_draws_no_interval():
    sums, counts = {"x": np.random.default_rng(3).random((8, 3))}, np.full(8, 2)
    first, second, other = (bootstrap([whole(sums)], counts, {}, 100, seed)["x"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert (first[1] != other[1]).any()
    assert np.isnan(bootstrap([whole(sums)], counts, {}, 0, 0)["x"][1:]).all()


def test_a_neuron_without_effect_has_no_share():
    assert np.isnan(share(np.zeros(1), np.zeros(1))).all()
    assert share(np.ones(1), np.full(1, 4.0)) == 0.75


def test_a_share_of_rounding_is_no_share():
    assert np.isnan(share(np.array([2e-7]), np.array([9e-7]))).all()


def test_one_sequence_tells_nothing_about_its_spread():
    sums, counts = {"x": np.random.default_rng(4).random((3, 2))}, np.array([0, 5, 0])
    estimate, low, high = bootstrap([whole(sums)], counts, {}, 50, 0)["x"]
    np.testing.assert_allclose(estimate, sums["x"].sum(0) / 5)
    assert np.isnan([low, high]).all()


def test_parts_are_as_good_as_the_whole():
    rng = np.random.default_rng(5)
    sums, counts = rng.random((7, 3)), np.array([2, 0, 1, 4, 3, 2, 2])
    at_once = bootstrap([whole({"x": sums})], counts, {}, 300, 0)["x"]
    for cuts in ((3,), (1, 2, 6)):
        units = np.split(np.arange(7), cuts)
        parts = bootstrap(zip(units, ({"x": sums[unit]} for unit in units), strict=True), counts, {}, 300, 0)["x"]
        np.testing.assert_allclose(parts, at_once, rtol=1e-6)


def test_a_unit_may_be_in_several_parts():
    rng = np.random.default_rng(6)
    rows, units = rng.random((9, 3)), np.array([0, 0, 1, 2, 2, 2, 3, 1, 0])
    sums = np.array([rows[units == unit].sum(0) for unit in range(4)])
    counts = np.array([2, 5, 3, 4])
    expected = bootstrap([whole({"x": sums})], counts, {}, 300, 0)["x"]
    found = bootstrap([(units[:4], {"x": rows[:4]}), (units[4:], {"x": rows[4:]})], counts, {}, 300, 0)["x"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_columns_are_named_after_the_ends_of_their_intervals():
    found = columns_of({"x": (np.array([1.0]), np.array([0.5]), np.array([2.0])), "y": (np.zeros(1),) * 3})
    assert {name: value.item() for name, value in found.items()} == {
        **{"x": 1, "x_lo": 0.5, "x_hi": 2},
        **dict.fromkeys(("y", "y_lo", "y_hi"), 0),
    }


def test_units_are_documents_where_there_are_enough():
    documents = np.repeat(np.arange(30), 5).reshape(10, 15) * 7
    kept = np.ones(documents.shape, bool)
    units, block = units_of(documents, kept)
    assert block == 0
    np.testing.assert_array_equal(units, documents // 7)


def test_long_documents_are_cut_into_blocks_of_consecutive_windows():
    documents = np.repeat([0, 1, 2], [40, 10, 10])[:, None] * np.ones(4, int)
    units, block = units_of(documents, np.ones(documents.shape, bool))
    assert block == 3  # 14 + 4 + 4 blocks; of four windows there would be 10 + 3 + 3
    assert len(np.unique(units)) == 22 >= FEWEST
    for unit in np.unique(units):
        windows = np.unique(np.nonzero(units == unit)[0])
        assert len(np.unique(documents[units == unit])) == 1
        assert len(windows) == np.ptp(windows) + 1 <= 3


def test_few_windows_are_units_by_themselves():
    documents = np.zeros((8, 5), int)
    kept = np.arange(5) > np.zeros((8, 1))
    units, block = units_of(documents, kept)
    assert block == 1
    np.testing.assert_array_equal(units, np.arange(8)[:, None] * np.ones(5))


def test_intervals_over_documents_cover_where_those_over_windows_do_not():
    """Windows of a document are alike; every neuron is one experiment."""
    rng = np.random.default_rng(7)
    D, N = 80, 1500
    length = rng.integers(1, 8, D)  # windows of a document
    document = np.repeat(np.arange(D), length)
    of_windows = rng.standard_normal((D, N))[document] + 1.2 * rng.standard_normal((len(document), N))
    windows = np.arange(len(document))
    pairs = [np.corrcoef(x[:-1][np.diff(document) == 0], x[1:][np.diff(document) == 0])[0, 1] for x in of_windows.T]
    assert np.mean(pairs) == pytest.approx(0.41, abs=0.05)

    def coverage(units, counts):
        _, low, high = bootstrap([(units, {"x": of_windows})], counts, {}, draws=1000, seed=0)["x"]
        return ((low < 0) & (high > 0)).mean()

    assert 0.93 <= coverage(document, length) <= 0.97
    assert coverage(windows, np.ones(len(document), int)) < 0.85


def test_shares_are_drawn_over_documents_too():
    """The share of an effect whose parts vary together from document to document: coverage of its true value."""
    rng = np.random.default_rng(8)
    D, N = 80, 1000
    length = rng.integers(1, 6, D)
    document = np.repeat(np.arange(D), length)
    size = rng.gamma(4, 0.25, (D, N))[document] * rng.gamma(8, 1 / 8, (len(document), N))
    part = size * np.clip(0.6 + 0.15 * rng.standard_normal((D, N))[document], 0, None)
    sums = {"whole": size, "part": part}
    _, low, high = bootstrap([(document, sums)], length, {"share": ("part", "whole")}, draws=1000, seed=0)["share"]
    assert 0.93 <= ((low < 0.4) & (high > 0.4)).mean() <= 0.97


def test_the_sign_of_an_interval_is_0_where_it_includes_0_or_is_not_known():
    low, high = np.array([1.0, -2, -1, np.nan, 0]), np.array([2.0, -1, 1, np.nan, 1])
    assert signs(low, high).tolist() == [1, -1, 0, 0, 0]


def test_a_ratio_is_after_over_before():
    before, after = np.array([[2.0, 0.5], [1.0, 0.0]]), np.array([[3.0, 0.1], [1.0, 1.0]])
    np.testing.assert_allclose(ratio(after - before, before), [[1.5, 0.2], [1.0, np.nan]])

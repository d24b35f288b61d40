"""Tables of transitions: every prompt once, ratios and scores, three classes, measures of sets, and quantiles.

Letters: p prompt, c neuron set.
"""

import functools

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from jaxconf.analysis.transitions import (
    CLASSES,
    LEAST,
    MEASURES,
    conversion_ratios,
    means_by_transition,
    measures_of_sets,
    quantile_among,
    three_classes,
    transition_scores,
    transition_tables,
)

of_classes = functools.partial(arrays.arrays, np.int64, elements=st.integers(0, 2))


def test_a_table_by_hand() -> None:
    before, after = np.array([0, 0, 0, 1, 1]), np.array([[0, 1, 1, 1, 0], [0, 0, 0, 1, 1]])
    tables = transition_tables(before, after)
    np.testing.assert_array_equal(tables[0], [[1, 2, 0], [1, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(conversion_ratios(tables), [[2 / 3, 1 / 2, np.nan], [0, 0, np.nan]])
    np.testing.assert_allclose(transition_scores(tables), [3 / 5, 0])
    means = means_by_transition(before, after, np.array([[1.0, 2, 4, 8, 16], [0] * 5]))
    np.testing.assert_allclose(means[0], [[1, 3, np.nan], [16, 8, np.nan], [np.nan] * 3])


@given(data=st.data(), P=st.integers(1, 12), C=st.integers(1, 4))
def test_tables_hold_every_prompt_once(data: st.DataObject, P: int, C: int) -> None:
    before, after = data.draw(of_classes(shape=P)), data.draw(of_classes(shape=(C, P)))
    tables = transition_tables(before, after)
    np.testing.assert_array_equal(tables.sum(2), np.broadcast_to(np.bincount(before, minlength=3), (C, 3)))
    np.testing.assert_array_equal(tables.sum(1), [np.bincount(of_set, minlength=3) for of_set in after])
    np.testing.assert_allclose(transition_scores(tables), (after != before).mean(1))
    weights = np.bincount(before, minlength=3) / P
    np.testing.assert_allclose(np.nansum(conversion_ratios(tables) * weights, 1), transition_scores(tables), atol=1e-12)


@given(others=arrays.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 5)), own=st.integers(0, 5))
def test_quantiles_have_clopper_and_pearsons_intervals(others: np.ndarray, own: int) -> None:
    quantile, low, high = quantile_among(own, others)
    below, most = int((others < own).sum()), int((others <= own).sum())
    assert quantile == pytest.approx((below + most) / 2 / len(others))
    assert low == pytest.approx(scipy.stats.binomtest(below, len(others)).proportion_ci().low)
    assert high == pytest.approx(scipy.stats.binomtest(most, len(others)).proportion_ci().high)
    assert low <= quantile <= high


@given(
    log_p=arrays.arrays(np.float32, (2, 3, 2), elements=st.floats(-20, -0.75, width=32)),
)
def test_three_classes_share_all_probability(log_p: np.ndarray) -> None:
    found = three_classes(log_p)
    np.testing.assert_array_equal(found[..., :2], log_p)
    rest = 1 - np.exp(log_p[..., 0].astype(np.float64)) - np.exp(log_p[..., 1].astype(np.float64))
    np.testing.assert_allclose(np.exp(found[..., 2]), np.maximum(rest, LEAST), rtol=1e-9)


def test_what_is_left_of_one_is_never_less_than_can_be_told() -> None:
    assert three_classes(np.float32([[0, -30]]))[0, 2] == pytest.approx(np.log(LEAST))


def test_measures_are_means_and_shares_of_each_set() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 3, 20), rng.integers(0, 3, (4, 20))
    entropy, log_p, first = (rng.standard_normal(shape) for shape in ((4, 20), (4, 20, 3), (4, 20, 2)))
    found = measures_of_sets(transition_tables(before, after), entropy, log_p, first)
    assert tuple(found) == MEASURES
    for c in range(4):
        assert found["transition_score"][c] == pytest.approx(np.mean(before != after[c]))
        assert found["entropy_change"][c] == pytest.approx(entropy[c].mean())
        for i, name in enumerate(CLASSES):
            own = before == i
            assert found[f"conversion_{name}"][c] == pytest.approx(np.mean(after[c][own] != i))
            assert found[f"share_{name}"][c] == pytest.approx(np.mean(after[c] == i))
            assert found[f"log_p_{name}_change"][c] == pytest.approx(log_p[c, :, i].mean())
        for i, name in enumerate(("CK", "PK")):
            assert found[f"log_p_first_{name}_change"][c] == pytest.approx(first[c, :, i].mean())

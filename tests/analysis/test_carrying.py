"""Ridge regression from sums: against numpy on the features themselves, and features that predict a known share.

Letters: p position, f feature, c set of features, y value.
"""

import numpy as np
import pytest

from jaxconf.analysis.carrying import (
    PENALTIES,
    Sums,
    add,
    components,
    constants,
    errors_by_unit,
    filled_up,
    fit,
    mean_errors,
    moments,
    no_sums,
    of_sets,
    r2,
    r2_of_components,
    ridge,
)

RNG = np.random.default_rng(0)
POSITIONS, FEATURES = 900, 7
PART = RNG.integers(0, 5, POSITIONS)
TRAIN, TEST = [0, 1, 2], [3, 4]
SETS = [(0, 1, 2), (4,), (2, 5, 6, 0), (3, 1)]
X = (RNG.standard_normal((POSITIONS, FEATURES)) @ RNG.standard_normal((FEATURES, FEATURES)) + 3).astype(np.float32)
Y = (X[:, :2] @ [[1, 0.2], [-1, 0]] + RNG.standard_normal((POSITIONS, 2)) + 5).astype(np.float32)


def sums_of(x: np.ndarray, y: np.ndarray, part: np.ndarray = PART) -> Sums:
    """The sums, added in three pieces."""
    sums = no_sums(part.max() + 1, x.shape[1], y.shape[1])
    for rows in np.array_split(np.arange(len(x)), 3):
        add(sums, x[rows], y[rows], part[rows])
    return sums


def by_numpy(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """The weights and the constant of ridge regression, as least squares with rows added for the penalty."""
    mean, std = x.mean(0), x.std(0)
    rows = np.sqrt(penalty * len(x)) * np.eye(x.shape[1])
    z = np.concatenate([(x - mean) / std, rows])
    weights = np.linalg.lstsq(z, np.concatenate([y - y.mean(), np.zeros(len(rows))]), rcond=None)[0] / std
    return weights, y.mean() - mean @ weights


def left_out(x: np.ndarray, y: np.ndarray, penalty: float) -> float:
    """The squared errors of training positions whose part was left out of the fit."""
    total = 0.0
    for part in TRAIN:
        own, others = part == PART, np.isin(PART, TRAIN) & (part != PART)
        weights, constant = by_numpy(x[others], y[others], penalty)
        total += ((y[own] - x[own] @ weights - constant) ** 2).sum()
    return total


def test_every_set_is_numpys_ridge_regression_with_the_penalty_that_predicts_left_out_parts_best() -> None:
    x, y = X.astype(np.float64), Y.astype(np.float64)
    found = fit(sums_of(X, Y), TRAIN, *filled_up(SETS))
    train = np.isin(PART, TRAIN)
    for c, members in enumerate(SETS):
        for value in range(2):
            own, of = x[:, list(members)], y[:, value]
            penalty = min(PENALTIES, key=lambda of_it, own=own, of=of: left_out(own, of, of_it))
            assert found.penalty[c, value] == penalty
            weights, constant = by_numpy(own[train], of[train], penalty)
            np.testing.assert_allclose(found.weights[c, : len(members), value], weights, atol=1e-6)
            np.testing.assert_allclose(found.constant[c, value], constant, atol=1e-6)
            assert not found.weights[c, len(members) :].any()


def test_a_large_penalty_is_chosen_where_features_only_fit_noise() -> None:
    noise = RNG.standard_normal((POSITIONS, 60))
    found = fit(sums_of(noise, RNG.standard_normal((POSITIONS, 1))), TRAIN, *filled_up([range(60)]))
    assert found.penalty[0, 0] == PENALTIES[-1]


def test_errors_from_moments_are_those_of_the_predictions() -> None:
    sums, (indices, counts) = sums_of(X, Y), filled_up(SETS)
    train, test = (of_sets(moments(sums, parts), indices, counts) for parts in (TRAIN, TEST))
    weights = ridge(train, 0.1)
    found, constant = mean_errors(weights, train, test), constants(weights, train)
    held_out = np.isin(PART, TEST)
    for c, members in enumerate(SETS):
        predicted = X[held_out][:, list(members)].astype(np.float64) @ weights[c, : len(members)] + constant[c]
        np.testing.assert_allclose(found[c], np.square(Y[held_out] - predicted).mean(0), rtol=1e-10)


def test_sums_keep_features_that_are_far_from_zero() -> None:
    """Features of mean 1e4 and deviation 1: against the covariance of the same numbers less their mean."""
    x = (1e4 + RNG.standard_normal((POSITIONS, 3))).astype(np.float32)
    found = moments(sums_of(x, Y), [0, 1])
    own = x[PART < 2].astype(np.float64)
    np.testing.assert_allclose(found.covariance, np.cov(own.T, ddof=0), rtol=1e-6, atol=1e-7)


def test_a_constant_feature_predicts_the_mean_and_nothing_is_undefined() -> None:
    x = np.column_stack([np.full(POSITIONS, 0.1), RNG.standard_normal(POSITIONS), np.zeros(POSITIONS)])
    found = fit(sums_of(x.astype(np.float32), Y), TRAIN, *filled_up([(0,), (0, 1), (2,)]))
    assert not found.weights[[0, 2]].any()
    assert np.isfinite(found.weights).all()
    np.testing.assert_allclose(found.constant[[0, 2]], [Y[np.isin(PART, TRAIN)].mean(0)] * 2, rtol=1e-6)
    assert found.weights[1, 1].all()


def test_principal_component_regression_is_that_of_the_singular_vectors() -> None:
    sums, train, test = sums_of(X, Y), np.isin(PART, TRAIN), np.isin(PART, TEST)
    of_train, of_test = moments(sums, TRAIN), moments(sums, TEST)
    found = components(of_train)
    curve = r2_of_components(found, of_train, of_test)
    mean, of_values = X[train].mean(0, dtype=np.float64), Y[train].mean(0, dtype=np.float64)
    directions = np.linalg.svd(X[train] - mean, full_matrices=False)[2]
    for number in (1, 3, FEATURES):
        score, of_held_out = ((X[rows] - mean) @ directions[:number].T for rows in (train, test))
        coefficients = np.linalg.lstsq(score, Y[train] - of_values, rcond=None)[0]
        errors = np.square(Y[test] - of_values - of_held_out @ coefficients).sum(0)
        without = np.square(Y[test] - of_values).sum(0)
        np.testing.assert_allclose(curve[number - 1], 1 - errors / without, atol=1e-6)
        np.testing.assert_allclose(found.first(number), directions[:number].T @ coefficients, atol=1e-5)


def test_directions_without_variance_are_left_out() -> None:
    x = np.column_stack([X, X[:, :2].sum(1)])  # of rank 7
    sums = sums_of(x.astype(np.float64), Y)
    found = components(moments(sums, TRAIN))
    assert not found.coefficients[-1].any()
    assert np.abs(found.coefficients[:-1]).min() > 0


def test_errors_are_summed_by_unit_and_r2_compares_them_with_the_mean() -> None:
    unit, predicted = RNG.integers(0, 4, POSITIONS), RNG.standard_normal((POSITIONS, 3, 2))
    errors = np.zeros((5, 3, 2))
    for rows in np.array_split(np.arange(POSITIONS), 2):
        errors_by_unit(errors, Y[rows], predicted[rows], unit[rows])
    for u in range(5):
        own = unit == u
        np.testing.assert_allclose(errors[u], np.square(predicted[own] - Y[own, None]).sum(0))
    found = r2(np.array([[4.0, 1.0], [8.0, 0.0]]), np.array([8.0, 0.0]))
    np.testing.assert_array_equal(found, [[0.5, np.nan], [0.0, np.nan]])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_set_that_carries_a_share_by_construction_has_it_as_r2(share: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((20_000, 3)).astype(np.float32)
    carried = x @ np.ones((3, 1)) / 3**0.5
    y = share**0.5 * carried + (1 - share) ** 0.5 * rng.standard_normal((20_000, 1))
    part = rng.integers(0, 5, 20_000)
    sums, (indices, counts) = sums_of(x, y, part), filled_up([(0, 1, 2)])
    found, test = fit(sums, TRAIN, indices, counts), moments(sums, TEST)
    train = moments(sums, TRAIN)
    errors = mean_errors(found.weights, of_sets(train, indices, counts), of_sets(test, indices, counts))
    without = test.variance + (test.value_mean - train.value_mean) ** 2
    assert r2(errors, without)[0, 0] == pytest.approx(share, abs=0.03)

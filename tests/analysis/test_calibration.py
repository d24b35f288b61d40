"""Calibration: from sums over units as from the positions themselves. Letters: p position, u unit, r resample."""

import numpy as np
import pytest

from jaxconf.analysis.calibration import (
    BINS,
    Predicted,
    calibration,
    calibration_change,
    expected_calibration_error,
    reliability,
    unit_sums,
)


def drawn_again(units: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The indices of the positions if each unit is taken so many times, one unit after the other."""
    return np.concatenate([np.flatnonzero(units == u) for u in np.repeat(np.arange(len(times)), times)])


def test_calibration_is_that_of_the_drawn_units() -> None:
    rng = np.random.default_rng(3)
    loss, entropy, brier, confidence = rng.random((4, 35))
    correct, units = rng.random(35) < 0.6, rng.integers(0, 5, 35)
    sums = unit_sums(Predicted(loss, entropy, brier, confidence, correct), units, 5)
    assert sums["bin_count"].shape == (5, BINS)
    weights = np.array([[1, 1, 1, 1, 1], [0, 2, 0, 1, 2]])
    found = calibration(sums, weights)
    for draw, times in enumerate(weights):
        at = drawn_again(units, times)
        for name, values in (("loss", loss), ("entropy", entropy), ("brier", brier), ("accuracy", correct)):
            assert found[name][draw] == pytest.approx(values[at].mean())
        assert found["ece"][draw] == pytest.approx(expected_calibration_error(confidence[at], correct[at]))


def random_sums(seed: int) -> tuple[dict[str, np.ndarray], Predicted, np.ndarray]:
    """`unit_sums` of random predictions [p], the predictions, and the unit of each position."""
    rng = np.random.default_rng(seed)
    loss, entropy, brier, confidence = rng.random((4, 50))
    correct = rng.random(50) < confidence
    units = np.random.default_rng(0).integers(0, 6, 50)
    of = Predicted(loss, entropy, brier, confidence, correct)
    return unit_sums(of, units, 6), of, units


def test_changes_of_calibration_have_the_intervals_of_the_same_resamples() -> None:
    (sums, of, units), (base, of_base, _) = random_sums(1), random_sums(2)
    resampled = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), 40)
    found = calibration_change(sums, base, resampled)
    assert list(found) == ["loss", "entropy", "brier", "accuracy", "ece"]
    draws = [drawn_again(units, times) for times in resampled]
    for name, values, others in (("loss", of.loss, of_base.loss), ("accuracy", of.correct, of_base.correct)):
        drawn = [np.asarray(values)[at].mean() for at in draws]
        changes = [a - np.asarray(others)[at].mean() for a, at in zip(drawn, draws, strict=True)]
        mean, of_other = np.asarray(values).mean(), np.asarray(others).mean()
        assert found[name].value == pytest.approx(mean)
        assert found[name].change == pytest.approx(mean - of_other)
        assert found[name][1:3] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
        assert found[name][4:] == pytest.approx(np.quantile(changes, [0.025, 0.975]))
    ece = expected_calibration_error(np.asarray(of.confidence), np.asarray(of.correct))
    assert found["ece"].value == pytest.approx(ece)
    same = calibration_change(sums, sums, resampled)
    assert all((row.change, row.change_lo, row.change_hi) == (0, 0, 0) for row in same.values())
    alone = calibration_change(sums, base, resampled[:0])
    assert np.isnan([alone["loss"].value_lo, alone["loss"].change_hi]).all()


def test_reliability_is_that_of_the_positions_in_a_bin() -> None:
    sums, of, _ = random_sums(4)
    confidence, correct = np.asarray(of.confidence), np.asarray(of.correct)
    found = reliability(sums)
    assert found["count"].sum() == len(confidence)
    for i in range(BINS):
        inside = (confidence >= i / BINS) & (confidence < (i + 1) / BINS)
        assert found["count"][i] == inside.sum()
        if inside.any():
            assert found["confidence"][i] == pytest.approx(confidence[inside].mean())
            assert found["accuracy"][i] == pytest.approx(correct[inside].mean())

"""Calibration: from sums over windows as from the positions themselves. Letters: s window, t position, r resample."""

import numpy as np
import pytest

from jaxconf.analysis.calibration import (
    BINS,
    Predicted,
    calibration,
    calibration_change,
    expected_calibration_error,
    reliability,
    window_sums,
)


def test_calibration_is_that_of_the_drawn_windows() -> None:
    rng = np.random.default_rng(3)
    loss, entropy, brier, confidence = rng.random((4, 5, 7))
    correct, kept = rng.random((2, 5, 7)) < 0.6
    sums = window_sums(Predicted(loss, entropy, brier, confidence, correct), kept)  # type: ignore[arg-type]
    assert sums["bin_count"].shape == (5, BINS)
    weights = np.array([[1, 1, 1, 1, 1], [0, 2, 0, 1, 2]])
    found = calibration(sums, weights)
    for draw, times in enumerate(weights):
        rows = np.repeat(np.arange(5), times)
        for name, values in (("loss", loss), ("entropy", entropy), ("brier", brier), ("accuracy", correct)):
            assert found[name][draw] == pytest.approx(values[rows][kept[rows]].mean())
        assert found["ece"][draw] == pytest.approx(
            expected_calibration_error(confidence[rows][kept[rows]], correct[rows][kept[rows]])
        )


def random_sums(seed: int) -> tuple[dict[str, np.ndarray], Predicted, np.ndarray]:
    """`window_sums` of random predictions [s t], the predictions, and the positions that count."""
    rng = np.random.default_rng(seed)
    loss, entropy, brier, confidence = rng.random((4, 6, 9))
    correct = rng.random((6, 9)) < confidence
    kept = np.random.default_rng(0).random((6, 9)) < 0.7
    of = Predicted(loss, entropy, brier, confidence, correct)  # type: ignore[arg-type]
    return window_sums(of, kept), of, kept


def test_changes_of_calibration_have_the_intervals_of_the_same_resamples() -> None:
    (sums, of, kept), (base, of_base, _) = random_sums(1), random_sums(2)
    resampled = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), 40)
    found = calibration_change(sums, base, resampled)
    assert list(found) == ["loss", "entropy", "brier", "accuracy", "ece"]
    rows = [np.repeat(np.arange(6), times) for times in resampled]
    for name, values, others in (("loss", of.loss, of_base.loss), ("accuracy", of.correct, of_base.correct)):
        drawn = [np.asarray(values)[row][kept[row]].mean() for row in rows]
        changes = [a - np.asarray(others)[row][kept[row]].mean() for a, row in zip(drawn, rows, strict=True)]
        mean, of_other = np.asarray(values)[kept].mean(), np.asarray(others)[kept].mean()
        assert found[name].value == pytest.approx(mean)
        assert found[name].change == pytest.approx(mean - of_other)
        assert found[name][1:3] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
        assert found[name][4:] == pytest.approx(np.quantile(changes, [0.025, 0.975]))
    ece = expected_calibration_error(np.asarray(of.confidence)[kept], np.asarray(of.correct)[kept])
    assert found["ece"].value == pytest.approx(ece)
    same = calibration_change(sums, sums, resampled)
    assert all((row.change, row.change_lo, row.change_hi) == (0, 0, 0) for row in same.values())
    alone = calibration_change(sums, base, resampled[:0])
    assert np.isnan([alone["loss"].value_lo, alone["loss"].change_hi]).all()


def test_reliability_is_that_of_the_positions_in_a_bin() -> None:
    sums, of, kept = random_sums(4)
    confidence, correct = np.asarray(of.confidence)[kept], np.asarray(of.correct)[kept]
    found = reliability(sums)
    assert found["count"].sum() == kept.sum()
    for i in range(BINS):
        inside = (confidence >= i / BINS) & (confidence < (i + 1) / BINS)
        assert found["count"][i] == inside.sum()
        if inside.any():
            assert found["confidence"][i] == pytest.approx(confidence[inside].mean())
            assert found["accuracy"][i] == pytest.approx(correct[inside].mean())

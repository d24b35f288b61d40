"""Measures of answers to questions, beside counts over all pairs, orders and repeats. Letters: q question, j choice."""

import itertools

import numpy as np
import pytest

from jaxconf.analysis.calibration import Predicted, expected_calibration_error
from jaxconf.analysis.question_scores import MEASURES, answered, choice_scores, measures, risk_coverage, said


def of_confidence(confidence: np.ndarray, correct: np.ndarray) -> Predicted:
    zero = np.zeros(len(confidence))
    return Predicted(zero, zero, zero, confidence, correct)


def counted_auroc(confidence: np.ndarray, correct: np.ndarray) -> float:
    pairs = [(a > b) + (a == b) / 2 for a in confidence[correct] for b in confidence[~correct]]
    return float(np.mean(pairs)) if pairs else np.nan


def ordered_aurc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The mean over all orders in which the confidence never rises."""
    areas = []
    for order in itertools.permutations(range(len(confidence))):
        if (np.diff(confidence[list(order)]) <= 0).all():
            wrong = np.cumsum(~correct[list(order)])
            areas.append(np.mean(wrong / np.arange(1, len(order) + 1)))
    return float(np.mean(areas))


def tied(seed: int, count: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Confidences with ties, and correctness."""
    rng = np.random.default_rng(seed)
    return rng.choice([0.2, 0.5, 0.6, 0.9], count), rng.random(count) < 0.6


@pytest.mark.parametrize("seed", range(6))
def test_auroc_and_aurc_are_counted(seed: int) -> None:
    confidence, correct = tied(seed)
    found = measures(of_confidence(confidence, correct))
    np.testing.assert_allclose(found["auroc"], counted_auroc(confidence, correct))
    np.testing.assert_allclose(found["aurc"], ordered_aurc(confidence, correct))


def test_a_weight_repeats_a_question() -> None:
    confidence, correct = tied(0, 30)
    rng = np.random.default_rng(1)
    predicted = Predicted(*rng.random((3, 30)), confidence, correct)
    weights = rng.integers(0, 4, (5, 30))
    found = measures(predicted, weights)
    assert tuple(found) == MEASURES
    for draw, times in enumerate(weights):
        at = np.repeat(np.arange(30), times)
        again = measures(Predicted(*(x[at] for x in predicted)))
        for name in MEASURES:
            np.testing.assert_allclose(found[name][draw], again[name][0], err_msg=name)
        assert again["accuracy"][0] == pytest.approx(correct[at].mean())
        assert again["confidence"][0] == pytest.approx(confidence[at].mean())
        assert again["brier"][0] == pytest.approx(predicted.brier[at].mean())
        assert again["entropy"][0] == pytest.approx(predicted.entropy[at].mean())
        assert again["ece"][0] == pytest.approx(expected_calibration_error(confidence[at], correct[at]))


def test_confidence_that_orders_the_answers_has_the_best_areas() -> None:
    correct = np.arange(40) >= 10
    best, worst = (measures(of_confidence(x, correct)) for x in (np.linspace(0, 1, 40), np.linspace(1, 0, 40)))
    constant = measures(of_confidence(np.full(40, 0.5), correct))
    assert (best["auroc"], constant["auroc"], worst["auroc"]) == (1, 0.5, 0)
    assert constant["aurc"] == pytest.approx(0.25)  # each order's risk is the share of wrong answers on average
    assert best["aurc"] < constant["aurc"] < worst["aurc"]
    assert np.isnan(measures(of_confidence(np.linspace(0, 1, 40), np.ones(40, bool)))["auroc"])


def test_the_risk_at_each_coverage() -> None:
    coverage, risk = risk_coverage(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
    np.testing.assert_allclose(coverage, [0.25, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 3, 0.5])


def test_scores_and_confidence_of_choices() -> None:
    rng = np.random.default_rng(2)
    log_p = -rng.random((2, 5, 4)) * 9
    size = {"acc_norm": rng.integers(2, 9, (5, 4)), "acc_token": rng.integers(1, 4, (5, 4))}
    real = np.ones((5, 4), bool)
    real[3, 3] = False  # a question of three choices
    right = np.array([0, 1, 2, 1, 3])
    found = choice_scores(log_p, size, real)
    for name, by in {"acc": np.ones((5, 4)), **size}.items():
        got = answered(found[name], right)
        for c in range(2):
            for q in range(5):
                score = (log_p[c, q] / by[q])[real[q]]
                p = np.exp(score) / np.exp(score).sum()
                assert got.confidence[c, q] == pytest.approx(p.max())
                assert got.correct[c, q] == (score.argmax() == right[q])
                assert got.loss[c, q] == pytest.approx(-np.log(p[right[q]]))
                assert got.entropy[c, q] == pytest.approx(-(p * np.log(p)).sum())
                assert got.brier[c, q] == pytest.approx(((p - np.eye(len(p))[right[q]]) ** 2).sum())


def test_confidence_of_short_answers() -> None:
    found = said(np.log([[0.5, 0.8]]), np.array([[True, False]]), np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(found.confidence, [[0.5, 0.8]])
    np.testing.assert_allclose(found.brier, [[0.25, 0.64]])
    np.testing.assert_allclose(found.loss, -np.log([[0.5, 0.8]]))

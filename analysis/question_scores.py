"""How a model answers questions: the scores of the choices, its confidence, and whether that tells right from wrong.

Letters: q question, j choice, r resample, k distinct confidence. Log-probabilities are natural. Each resample takes a
question a whole number of times, its weight; without resamples each counts once.
"""

from collections.abc import Mapping

import numpy as np

from jaxconf.analysis.calibration import Predicted, calibration, unit_sums

SCORES = ("acc", "acc_norm", "acc_token")
"""The scores of a choice: its log-probability, the same per byte of its text, and per token of it."""
MEASURES = ("accuracy", "confidence", "ece", "brier", "auroc", "aurc", "entropy")
"""The measures of a set of questions: see `measures`."""


def choice_scores(log_p: np.ndarray, size: Mapping[str, np.ndarray], real: np.ndarray) -> dict[str, np.ndarray]:
    """Each of SCORES, float64 [… q j], of the log-probabilities of the choices, [… q j] in nats.

    `size`: "acc_norm" → the bytes of each choice in UTF-8, and "acc_token" → its tokens, int [q j]. `real`: which
    choices there are, bool [q j]; the score of any other is -inf. Source: the names, and the normalisation by the
    length of the text, are those of lm-eval (Gao et al., EleutherAI/lm-evaluation-harness), whose code counts
    characters, which are bytes in ASCII.
    """
    by = {name: size.get(name, np.ones(real.shape)) for name in SCORES}
    return {name: np.where(real, log_p.astype(np.float64) / np.maximum(by[name], 1), -np.inf) for name in SCORES}


def answered(score: np.ndarray, right: np.ndarray) -> Predicted:
    """What is predicted by the softmax over the choices of a `score` [… q j]; `right`: the answers' indices, int [q].

    Arrays [… q], float64: the loss and the entropy in nats, the Brier score Σ_j (p_j − [j = right])², the confidence,
    which is the largest probability, and whether the likeliest choice is right; of equal ones the first counts.
    """
    top = score.max(-1, keepdims=True)
    lp = score - top - np.log(np.exp(score - top).sum(-1, keepdims=True))
    p = np.exp(lp)
    own = np.take_along_axis(lp, np.broadcast_to(right, lp.shape[:-1])[..., None], -1)[..., 0]
    entropy = -np.where(p > 0, p * np.where(p > 0, lp, 0), 0).sum(-1)
    brier = (p * p).sum(-1) - 2 * np.exp(own) + 1
    return Predicted(-own, entropy, brier, p.max(-1), score.argmax(-1) == right)


def said(log_p: np.ndarray, correct: np.ndarray, entropy: np.ndarray) -> Predicted:
    """What is predicted by short answers: float64 [… q].

    `log_p`: the mean log-probability of the tokens of each answer, whose exponential is the confidence; the loss is
    −log_p. `correct`: whether each is right. `entropy`: of the first token's prediction. The Brier score is that of the
    confidence, (confidence − [correct])².
    """
    log_p = log_p.astype(np.float64)
    confidence = np.exp(log_p)
    return Predicted(-log_p, entropy.astype(np.float64), (confidence - correct) ** 2, confidence, correct)


def measures(of: Predicted, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """MEASURES of questions [q], float64 [r] each. `weights` [r q].

    "accuracy", "confidence", "brier" and "entropy" are means; "ece" is the expected calibration error (Guo et
    al. 2017) in 15 bins; "auroc" and "aurc" are `auroc` and `aurc`.
    """
    confidence, correct = (np.asarray(x, np.float64) for x in (of.confidence, of.correct))
    weights = np.ones((1, len(confidence))) if weights is None else np.asarray(weights, np.float64)
    found = calibration(unit_sums(of, np.arange(len(confidence)), len(confidence)), weights)
    found["confidence"] = weights @ confidence / weights.sum(1)
    tied = _tied(confidence, correct, weights)
    found |= {"auroc": auroc(*tied), "aurc": aurc(*tied)}
    return {name: found[name] for name in MEASURES}


def _tied(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many questions are right and wrong at each distinct confidence, ascending: float64 [r k] each."""
    order = np.argsort(confidence, kind="stable")
    begins = np.flatnonzero(np.diff(confidence[order], prepend=-np.inf) > 0)
    right, wrong = ((weights * x)[:, order] for x in (correct, 1 - correct))
    return np.add.reduceat(right, begins, axis=1), np.add.reduceat(wrong, begins, axis=1)


def auroc(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The area under the ROC curve of confidence for correctness, float64 [r].

    It is the probability that a right answer has a higher confidence than a wrong one, where equal ones count half.
    `right`, `wrong`: how many answers are so at each distinct confidence, ascending, [r k]. NaN if all are right, or
    all wrong.
    """
    below = np.cumsum(wrong, 1) - wrong / 2
    pairs = right.sum(1) * wrong.sum(1)
    return np.where(pairs > 0, (right * below).sum(1) / np.where(pairs > 0, pairs, 1), np.nan)


def aurc(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The area under the risk–coverage curve, float64 [r]; lower is better.

    It is the mean, over n = 1 … all questions, of the share of wrong answers among the n of the highest confidence.
    Where confidences are equal, it is the mean over the orders of these questions. `right`, `wrong`: as for `auroc`,
    whole numbers. Source: Geifman and El-Yaniv 2017 (arXiv 1705.08500); Geifman et al. 2019 (arXiv 1805.08206).
    """
    right, wrong = (x[:, ::-1] for x in (right, wrong))
    count = right + wrong
    behind = np.cumsum(count, 1)
    before, errors = behind - count, np.cumsum(wrong, 1) - wrong
    share = wrong / np.maximum(count, 1)
    # Σ_m (E + m·share)/(n + m) over the m-th of equal ones is share·count + (E − share·n)·(H(n + count) − H(n)).
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(behind.max()) + 1))])
    between = harmonic[behind.astype(int)] - harmonic[before.astype(int)]
    return (share * count + (errors - share * before) * between).sum(1) / behind[:, -1]


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of the risk–coverage curve, float64 [k] each, by rising coverage.

    For each distinct confidence [q], from the highest: the share of the questions that have at least this confidence,
    and the share of wrong answers among these. `correct`: bool [q].
    """
    right, wrong = _tied(
        np.asarray(confidence, np.float64), np.asarray(correct, np.float64), np.ones((1, len(correct)))
    )
    errors, count = (np.cumsum(x[0, ::-1]) for x in (wrong, right + wrong))
    return count / len(correct), errors / count

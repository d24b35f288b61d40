"""How far a model's confidence is from its accuracy. Letters: p position, s window, t position in it, r resample.

Source: Guo et al. 2017 (arXiv 1706.04599), section 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BINS = 15


class Predicted(NamedTuple):
    """Of each prediction, in nats where that is a unit."""

    loss: jax.Array
    entropy: jax.Array
    brier: jax.Array
    confidence: jax.Array  # the largest probability
    correct: jax.Array  # whether that token follows


def predicted(lp: jax.Array, target: jax.Array) -> Predicted:
    """From log-probabilities [… v] and the tokens that follow [ … ]."""
    P = jnp.exp(lp)
    own = jnp.take_along_axis(lp, target[..., None], -1)[..., 0]
    brier = jnp.sum(P * P, -1) - 2 * jnp.exp(own) + 1
    return Predicted(-own, -jnp.sum(P * lp, -1), brier, P.max(-1), lp.argmax(-1) == target)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """ECE: over `bins` equal bins of confidence, the mean |accuracy − confidence|, weighted by how many positions fall into each.

    `confidence` [p]: probability (0 to 1) of the most likely token; `correct` [p]: whether it is the token that follows.
    """
    gaps = np.bincount(_bin_of(confidence, bins), weights=correct.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def window_sums(of: Predicted, kept: np.ndarray, bins: int = BINS) -> dict[str, np.ndarray]:
    """Sums over the kept positions [s t] of each window, float64: of the predictions [s t] "loss", "entropy", "brier" and "correct" [s], and in each
    bin of confidence [s bins] "bin_count", "bin_confidence" and "bin_correct".
    """
    loss, entropy, brier, confidence, correct = (np.asarray(x, np.float64) for x in of)
    sums = {
        name: np.where(kept, x, 0).sum(1)
        for name, x in zip(("loss", "entropy", "brier", "correct"), (loss, entropy, brier, correct), strict=True)
    }
    place = np.arange(len(kept))[:, None] * bins + _bin_of(confidence, bins)
    for name, x in (("bin_count", np.ones_like(loss)), ("bin_confidence", confidence), ("bin_correct", correct)):
        sums[name] = np.bincount(place[kept], weights=x[kept], minlength=len(kept) * bins).reshape(len(kept), bins)
    return sums


def calibration(sums: dict[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Mean loss and entropy (nats), Brier score, accuracy and ECE, [r] each, of the windows whose `window_sums` are given, weighted [r s]."""
    weights = np.asarray(weights, np.float64)
    count = weights @ sums["bin_count"].sum(1)
    gaps = weights @ (sums["bin_correct"] - sums["bin_confidence"])
    means = {
        name: weights @ sums[of] / count
        for name, of in (("loss", "loss"), ("entropy", "entropy"), ("brier", "brier"), ("accuracy", "correct"))
    }
    return means | {"ece": np.abs(gaps).sum(1) / count}


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((confidence * bins).astype(int), bins - 1)

"""How far a model's confidence is from its accuracy.

Letters: p position, v vocabulary, u unit that is drawn again, such as a document, r resample. Losses and entropies are
in nats.
Source: Guo et al. 2017 (arXiv 1706.04599), section 3.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BINS = 15


class Predicted(NamedTuple):
    """The measures of each prediction."""

    loss: Any
    entropy: Any
    brier: Any  # the Brier score
    confidence: Any  # the largest probability
    correct: Any  # bool: whether the most likely token is the one that follows


def predicted(lp: jax.Array, target: jax.Array) -> Predicted:
    """The measures of log-probabilities `lp` [… v]. `target`: the tokens that follow, int […]."""
    P = jnp.exp(lp)
    own = jnp.take_along_axis(lp, target[..., None], -1)[..., 0]
    brier = jnp.sum(P * P, -1) - 2 * jnp.exp(own) + 1
    entropy = -jnp.sum(jnp.where(P > 0, P * lp, 0.0), -1)  # a token that is ruled out has the log-probability -inf
    return Predicted(-own, entropy, brier, P.max(-1), lp.argmax(-1) == target)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """ECE: the mean |accuracy − confidence| over `bins` equal bins of confidence, weighted by the positions in each.

    `confidence` [p]: probability (0 to 1) of the most likely token; `correct` [p]: whether it is the one that follows.
    """
    gaps = np.bincount(_bin_of(confidence, bins), weights=correct.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def unit_sums(of: Predicted, units: np.ndarray, count: int, bins: int = BINS) -> dict[str, np.ndarray]:
    """Sums over the positions of each of `count` units, float64, from the predictions `of` [p] and `units`, int [p].

    "loss", "entropy", "brier" and "correct" are [u]. "bin_count", "bin_confidence" and "bin_correct" are the sums in
    each bin of confidence, [u bins].
    """
    values = {name: np.asarray(x, np.float64) for name, x in of._asdict().items()}
    confidence, correct = values["confidence"], values["correct"]
    sums = {name: np.bincount(units, values[name], count) for name in ("loss", "entropy", "brier", "correct")}
    place = units * bins + _bin_of(confidence, bins)
    for name, x in {"count": np.ones_like(confidence), "confidence": confidence, "correct": correct}.items():
        sums[f"bin_{name}"] = np.bincount(place, x, count * bins).reshape(count, bins)
    return sums


def calibration(sums: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Mean "loss", "entropy", "brier" and "accuracy", and "ece", [r] each, of units weighted by `weights` [r u].

    `sums`: from `unit_sums`.
    """
    weights = np.asarray(weights, np.float64)
    count = weights @ sums["bin_count"].sum(1)
    gaps = weights @ (sums["bin_correct"] - sums["bin_confidence"])
    means = {
        name: weights @ sums[of] / count
        for name, of in (("loss", "loss"), ("entropy", "entropy"), ("brier", "brier"), ("accuracy", "correct"))
    }
    return means | {"ece": np.abs(gaps).sum(1) / count}


class Calibrated(NamedTuple):
    """A measure of a model and its difference from that of another model, with 95% bootstrap intervals over units."""

    value: float
    value_lo: float
    value_hi: float
    change: float
    change_lo: float
    change_hi: float


def calibration_change(
    sums: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray], resampled: np.ndarray
) -> dict[str, Calibrated]:
    """Each measure of `calibration` for a model, and its change from a base model on the same positions.

    `sums`, `base`: `unit_sums` of the two. `resampled` [r u]: how often each resample takes each unit, the same for
    both; if there are no resamples, the intervals are NaN.
    """
    once = np.ones((1, resampled.shape[1]))
    estimates, drawn = ([calibration(of, weights) for of in (sums, base)] for weights in (once, resampled))

    def spread(values: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
        return float(low), float(high)

    return {
        measure: Calibrated(
            float(estimates[0][measure][0]),
            *spread(drawn[0][measure]),
            float(estimates[0][measure][0] - estimates[1][measure][0]),
            *spread(drawn[0][measure] - drawn[1][measure]),
        )
        for measure in estimates[0]
    }


def reliability(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For each bin, [bins]: the "count" of its positions, int, and their mean "confidence" and "accuracy".

    `sums`: from `unit_sums`.
    """
    count, confidence, correct = (sums[f"bin_{name}"].sum(0) for name in ("count", "confidence", "correct"))
    filled = np.maximum(count, 1)
    return {"count": count.astype(int), "confidence": confidence / filled, "accuracy": correct / filled}


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((confidence * bins).astype(int), bins - 1)

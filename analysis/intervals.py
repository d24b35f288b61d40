"""Means and bootstrap intervals from sums over sequences. Letters: s sequence, n neuron, r bootstrap draw."""

from collections.abc import Mapping

import numpy as np

Interval = tuple[np.ndarray, np.ndarray, np.ndarray]  # estimate, low, high; float64 [n] each


def bootstrap(
    sums: Mapping[str, np.ndarray], counts: np.ndarray, shares: Mapping[str, tuple[str, str]], draws: int, seed: int, level: float = 0.95
) -> dict[str, Interval]:
    """Estimates with percentile intervals over sequences drawn with replacement.

    `sums`: metric → [s n], its sum over each sequence's kept positions; `counts` [s]: how many those are. Each metric's estimate is
    Σ sums / Σ counts. `shares`: name → (part, whole), the mediated share 1 − part/whole of two of the metrics; NaN where the whole is 0.
    With `draws` 0 the intervals are NaN.
    """
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws).astype(np.float32)  # r s
    weights = weights[weights @ counts > 0]
    tails = [(1 - level) / 2, (1 + level) / 2]
    estimates = {name: value.sum(0, dtype=np.float64) / counts.sum() for name, value in sums.items()}
    drawn = {name: (weights @ value) / (weights @ counts)[:, None] for name, value in sums.items()}  # r n
    for name, (part, whole) in shares.items():
        estimates[name] = share(estimates[part], estimates[whole])
        drawn[name] = share(drawn[part], drawn[whole])
    result = {}
    for name, estimate in estimates.items():
        if len(weights):
            low, high = np.quantile(drawn[name], tails, axis=0)
        else:
            low = high = np.full(estimate.shape, np.nan)
        result[name] = (estimate, low, high)
    return result


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """1 − part/whole, NaN where the whole is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, 1 - part / whole, np.nan)

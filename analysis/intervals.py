"""Means and bootstrap intervals from sums over sequences. Letters: s sequence, n neuron, r bootstrap draw."""

from collections.abc import Mapping

import numpy as np

Interval = tuple[np.ndarray, np.ndarray, np.ndarray]  # estimate, low, high; float64 [n] each


NOISE = 1e-6  # nats: mean effects below this are the rounding of float32 sums


def bootstrap(
    sums: Mapping[str, np.ndarray], counts: np.ndarray, shares: Mapping[str, tuple[str, str]], draws: int, seed: int, level: float = 0.95
) -> dict[str, Interval]:
    """Estimates with percentile intervals over sequences drawn with replacement.

    `sums`: metric → [s n], its sum over each sequence's kept positions; `counts` [s]: how many those are. Each metric's estimate is
    Σ sums / Σ counts. `shares`: name → (part, whole), the mediated share 1 − part/whole of two of the metrics (see `share`). With
    `draws` 0, or fewer than two sequences that have kept positions, the intervals are NaN.
    """
    rng = np.random.default_rng(seed)
    if np.count_nonzero(counts) < 2:
        draws = 0
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws).astype(np.float32)  # r s
    weights = weights[weights @ counts > 0]
    totals = (weights @ counts).astype(np.float32)[:, None]

    def mean(name: str) -> np.ndarray:
        return sums[name].sum(0, dtype=np.float64) / counts.sum()

    def drawn(name: str) -> np.ndarray:
        return (weights @ sums[name].astype(np.float32)) / totals  # r n

    def interval(estimate: np.ndarray, values: np.ndarray) -> Interval:
        if not len(weights):
            return estimate, np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return estimate, low, high

    result = {name: interval(mean(name), drawn(name)) for name in sums}
    for name, (part, whole) in shares.items():
        result[name] = interval(share(mean(part), mean(whole)), share(drawn(part), drawn(whole)))
    return result


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """1 − part/whole; NaN where the whole is no more than NOISE, since a share of rounding means nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > NOISE, 1 - part / whole, np.nan)

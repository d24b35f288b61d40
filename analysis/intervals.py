"""Means and bootstrap intervals from sums over sequences. Letters: s sequence, n neuron, r bootstrap draw."""

from collections.abc import Iterable, Mapping

import numpy as np

Interval = tuple[np.ndarray, np.ndarray, np.ndarray]  # estimate, low, high; float64 [n] each


NOISE = 1e-6  # nats: mean effects below this are the rounding of float32 sums


def bootstrap(
    parts: Iterable[Mapping[str, np.ndarray]],
    counts: np.ndarray,
    shares: Mapping[str, tuple[str, str]],
    draws: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Estimates with percentile intervals over sequences drawn with replacement.

    `parts`: a mapping for each group of sequences, metric → its sum over each sequence's kept positions, [s n]. Only
    totals of the parts are held, so memory does not grow with the number of sequences. `counts` [s]: how many positions
    each sequence of all groups keeps. A metric's estimate is Σ sums / Σ counts. `shares`: name → (part, whole), for the
    mediated share 1 − part/whole of two of the metrics (see `share`). With `draws` 0, or fewer than two sequences with
    kept positions, the intervals are NaN.
    """
    weights = resamples(counts, draws, seed)
    totals = (weights @ counts).astype(np.float32)[:, None]

    begin = 0
    whole: dict[str, np.ndarray] = {}  # n
    drawn: dict[str, np.ndarray] = {}  # r n
    for part in parts:
        for name, sums in part.items():
            end = begin + len(sums)
            whole[name] = whole.get(name, 0) + sums.sum(0, dtype=np.float64)
            drawn[name] = drawn.get(name, 0) + weights[:, begin:end] @ sums.astype(np.float32)
        begin = end
    estimates = {name: total / counts.sum() for name, total in whole.items()}
    resampled = {name: total / totals for name, total in drawn.items()}

    def interval(estimate: np.ndarray, values: np.ndarray) -> Interval:
        if not len(weights):
            return estimate, np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return estimate, low, high

    result = {name: interval(estimates[name], resampled[name]) for name in estimates}
    for name, (of, all_of_it) in shares.items():
        result[name] = interval(share(estimates[of], estimates[all_of_it]), share(resampled[of], resampled[all_of_it]))
    return result


def columns_of(effects: Mapping[str, Interval]) -> dict[str, np.ndarray]:
    """The columns of a table: each name with its estimate, and with `_lo` and `_hi` the ends of its interval."""
    columns: dict[str, np.ndarray] = {}
    for name, (estimate, low, high) in effects.items():
        columns |= {name: estimate, f"{name}_lo": low, f"{name}_hi": high}
    return columns


def resamples(counts: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each sequence is drawn in each resample, float32 [r s].

    Resamples without kept positions are left out of the `draws`, and there are none at all if fewer than two sequences
    have kept positions. `counts` [s]: how many positions each sequence keeps.
    """
    if np.count_nonzero(counts) < 2:
        draws = 0
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws).astype(np.float32)
    return weights[weights @ counts > 0]


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """1 − part/whole; NaN where the whole is at most NOISE, since it may then be rounding alone."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > NOISE, 1 - part / whole, np.nan)

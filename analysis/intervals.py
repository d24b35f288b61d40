"""Means and bootstrap intervals from sums over units that are drawn again, such as documents.

Letters: u unit, n neuron, r bootstrap draw, s window, t position, p row of a part.
"""

from collections.abc import Iterable, Mapping

import numpy as np

Interval = tuple[np.ndarray, np.ndarray, np.ndarray]  # estimate, low, high; float64 [n] each


Rows = tuple[np.ndarray, Mapping[str, np.ndarray]]  # int [p], the unit of each row, and metric → sums, [p n]

NOISE = 1e-6  # nats: mean effects below this are the rounding of float32 sums
FEWEST = 20  # units: with fewer, intervals are too narrow


def units_of(documents: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, int]:
    """The unit of each position, int [s t] counted from 0, and how many windows a unit spans at most (0: no limit).

    Positions of one document depend on each other, so a unit is a document, however many windows it spans. If fewer
    than FEWEST documents have kept positions, a unit is a block of consecutive windows of a document, as many as leave
    FEWEST units, or one window. `documents`: the document of each position, int [s t]. `kept`: bool [s t].
    """

    def numbered(labels: np.ndarray) -> np.ndarray:
        return np.unique(labels, return_inverse=True)[1].reshape(documents.shape)

    documents = numbered(documents)
    if len(np.unique(documents[kept])) >= FEWEST:
        return documents, 0
    windows = np.broadcast_to(np.arange(len(documents))[:, None], documents.shape)
    first, last = np.full(documents.max() + 1, len(documents)), np.zeros(documents.max() + 1, int)
    np.minimum.at(first, documents, windows)
    np.maximum.at(last, documents, windows)
    for size in range(len(documents), 0, -1):
        if size > 1 and (1 + (last - first) // size).sum() < FEWEST:
            continue  # found without a look at every position, of which there may be millions
        units = documents * len(documents) + (windows - first[documents]) // size
        if size == 1 or len(np.unique(units[kept])) >= FEWEST:
            break
    return numbered(units), size


def bootstrap(
    parts: Iterable[Rows],
    counts: np.ndarray,
    shares: Mapping[str, tuple[str, str]],
    draws: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Estimates with percentile intervals over units drawn with replacement.

    `parts`: rows, each with the sums of some kept positions of one unit. Only totals of the parts are held, so memory
    does not grow with their number. `counts` [u]: how many positions each unit keeps. A metric's estimate is
    Σ sums / Σ counts. `shares`: name → (part, whole), for the mediated share 1 − part/whole of two of the metrics (see
    `share`). With `draws` 0, or fewer than two units with kept positions, the intervals are NaN.
    """
    weights = resamples(counts, draws, seed)
    totals = (weights @ counts).astype(np.float32)[:, None]

    whole: dict[str, np.ndarray] = {}  # n
    drawn: dict[str, np.ndarray] = {}  # r n
    for units, part in parts:
        for name, sums in part.items():
            whole[name] = whole.get(name, 0) + sums.sum(0, dtype=np.float64)
            drawn[name] = drawn.get(name, 0) + weights[:, units] @ sums.astype(np.float32)
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
    """How often each unit is drawn in each resample, float32 [r u].

    Resamples without kept positions are left out of the `draws`, and there are none at all if fewer than two units have
    kept positions. `counts` [u]: how many positions each unit keeps.
    """
    if np.count_nonzero(counts) < 2:
        draws = 0
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws).astype(np.float32)
    return weights[weights @ counts > 0]


def signs(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """1 where an interval [n] is above 0, -1 where it is below, 0 where it includes 0 or is not known; float64 [n]."""
    return np.where(low > 0, 1.0, np.where(high < 0, -1.0, 0.0))


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """1 − part/whole; NaN where the whole is at most NOISE, since it may then be rounding alone."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > NOISE, 1 - part / whole, np.nan)


def ratio(change: np.ndarray, before: np.ndarray) -> np.ndarray:
    """after/before, from the change after − before; NaN where `before` is at most NOISE."""
    return share(-change, before)

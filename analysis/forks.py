"""Whether neurons are more active at forks: the tokens at which a model's prediction has a high entropy.

Letters: t position that counts, all documents one after the other, n neuron, f document, r draw. The null shifts the
forks of each document circularly by a random number of its positions. So the runs of forks and of activations stay as
they are, and only their alignment is lost.
"""

from typing import NamedTuple

import numpy as np

QUANTILE = 0.9
"""Entropies above this quantile of them all are forks."""


class Forks(NamedTuple):
    """Activations at forks and elsewhere, float64 [n] each."""

    at: np.ndarray  # the mean activation at forks
    elsewhere: np.ndarray
    difference: np.ndarray
    null_mean: np.ndarray  # of the difference, and its 2.5% and 97.5% quantiles, over the draws
    null_lo: np.ndarray
    null_hi: np.ndarray
    p: np.ndarray  # two-sided: twice the smaller of both one-sided p, at most 1


def forks_of(entropy: np.ndarray) -> np.ndarray:
    """Which positions are forks, bool [t], by the entropies [t] of the predictions there."""
    return entropy > np.quantile(entropy, QUANTILE)


def at_forks(h: np.ndarray, forks: np.ndarray, documents: np.ndarray, draws: int, seed: int) -> Forks:
    """The activations `h` [t n] at `forks`, bool [t], beside `draws` circular shifts within documents, int [t].

    p is two-sided: min(1, 2·min(p≥, p≤)) with p≥ = (1 + #{draws with a difference ≥ the own}) / (1 + draws). All is NaN
    if there are no forks, or nothing else.
    """
    h = np.asarray(h, np.float64)
    count, rest = int(forks.sum()), int((~forks).sum())
    if not count or not rest:
        return Forks(*np.full((7, h.shape[1]), np.nan))
    rng, total = np.random.default_rng(seed), h.sum(0)

    def differences(at_forks: np.ndarray) -> np.ndarray:
        """Of the sums over forks, [… n]."""
        return at_forks / count - (total - at_forks) / rest

    drawn = np.zeros((draws, h.shape[1]))
    for document in np.unique(documents):
        own = documents == document
        if forks[own].any():  # the sums over forks without any are 0 at every shift
            drawn += _shifted_sums(h[own], forks[own])[rng.integers(0, own.sum(), draws)]
    own_sums = h[forks].sum(0)
    found, null = differences(own_sums), differences(drawn)
    slack = 1e-9 * np.abs(h).max(0, initial=0)  # rounding of the transforms
    above, below = ((1 + (sign * null >= sign * found - slack).sum(0)) / (1 + draws) for sign in (1, -1))
    low, high = np.quantile(null, [0.025, 0.975], axis=0) if draws else np.full((2, h.shape[1]), np.nan)
    p = np.minimum(1, 2 * np.minimum(above, below))
    mean = null.mean(0) if draws else np.full(h.shape[1], np.nan)
    return Forks(own_sums / count, (total - own_sums) / rest, found, mean, low, high, p)


def _shifted_sums(h: np.ndarray, forks: np.ndarray) -> np.ndarray:
    """The sums of h [t n] over the forks, bool [t], shifted circularly by each number of positions, [t n]."""
    length = len(h)
    spectrum = np.conj(np.fft.rfft(forks.astype(np.float64)))[:, None] * np.fft.rfft(h, axis=0)
    return np.fft.irfft(spectrum, length, axis=0)


def drawn_differences(
    h: np.ndarray, forks: np.ndarray, units: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95% interval of the difference of each neuron's mean at forks and elsewhere, float64 [n] each.

    `h` [t n]. `units`: int [t], the document of each position, or another unit that is drawn again. `weights` [r u]:
    how often each resample takes each unit. NaN without resamples.
    """
    if not len(weights):
        return np.full(h.shape[1], np.nan), np.full(h.shape[1], np.nan)
    means = []
    for some in (forks, ~forks):
        sums = np.zeros((weights.shape[1], h.shape[1]))
        np.add.at(sums, units[some], h[some])
        count = np.bincount(units[some], minlength=weights.shape[1])
        with np.errstate(invalid="ignore"):  # a resample may have no forks
            means.append(weights @ sums / (weights @ count)[:, None])
    low, high = np.nanquantile(means[0] - means[1], [0.025, 0.975], axis=0)
    return low, high

"""Candidate entropy neurons, chosen by their weights: how many two models share, and how measures of them change.

Letters: n neuron, d model width, c candidate, r random set. Source: Du et al. 2025 (arXiv 2504.02904) for the
candidates and the ratio. The chance levels and the matching of neurons are this project's own.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.stats

from jaxconf.analysis.unembedding import unit

BLOCK = 1024  # neurons whose cosines with all others are on the device at once


def large(w_norm: np.ndarray, share: float) -> np.ndarray:
    """The top `share` (0 to 1) of the neurons by norm, at least one, bool [n]; of equal norms, the first ones."""
    chosen = np.zeros(len(w_norm), bool)
    chosen[np.argsort(-w_norm, kind="stable")[: max(1, round(share * len(w_norm)))]] = True
    return chosen


def candidates(w_norm: np.ndarray, logit_var: np.ndarray, share: float, lowest: int) -> np.ndarray:
    """Among the top `share` of neurons by norm, the `lowest` by LogitVar, bool [n]; all of them if they are fewer.

    A neuron that writes nothing has no LogitVar (NaN) and is never a candidate.
    """
    eligible = np.flatnonzero(large(w_norm, share) & np.isfinite(logit_var))
    chosen = np.zeros(len(w_norm), bool)
    chosen[eligible[np.argsort(logit_var[eligible], kind="stable")[:lowest]]] = True
    return chosen


def norm_ratio(w_norm: np.ndarray, logit_var: np.ndarray) -> np.ndarray:
    """‖w‖ / log LogitVar, float64 [n]; NaN for a neuron that writes nothing.

    It is negative. For a given norm, it is the closer to 0 the smaller LogitVar is.
    """
    return np.asarray(w_norm, np.float64) / np.log(np.where(logit_var > 0, logit_var, np.nan), dtype=np.float64)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two sets of neurons, bool [n] each; NaN if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else float("nan")


def chance_iou(
    pools: tuple[np.ndarray, np.ndarray], sizes: tuple[int, int], level: float = 0.95
) -> tuple[float, float, float]:
    """The expected IoU of two random sets of these sizes, one from each pool, and the range of the middle `level`.

    `pools`: bool [n] each. The number of neurons of the first set that lie in both pools is hypergeometric, and so is
    the number of those that the second set takes. If both pools are all neurons, the result is exactly the mean and the
    range over all permutations of a model's neurons.
    """
    (first, second), (a, b) = pools, sizes
    if not a + b:
        return (float("nan"),) * 3
    x, common = np.arange(a + 1), np.arange(min(a, b) + 1)
    reachable = scipy.stats.hypergeom.pmf(x, np.count_nonzero(first), np.count_nonzero(first & second), a)
    share = scipy.stats.hypergeom.pmf(common[:, None], np.count_nonzero(second), x, b) @ reachable
    values = common / (a + b - common)
    low, high = np.searchsorted(np.cumsum(share), [(1 - level) / 2, (1 + level) / 2])
    return float(share @ values), float(values[low]), float(values[high])


Weights = tuple[np.ndarray, np.ndarray]
"""Norm and LogitVar of each neuron of a layer, [n] each."""


class Overlap(NamedTuple):
    """How many candidates two models share. Candidates: the `lowest` by LogitVar among the top `share` by norm."""

    share: float
    lowest: int
    base: int  # candidates of the base model
    tuned: int  # candidates of the tuned model
    common: int
    iou: float
    chance: float  # the expected IoU over all permutations of the neurons
    chance_lo: float  # 95% of the permutations give an IoU between this and `chance_hi`
    chance_hi: float
    norm_chance: float  # the expected IoU if each set is drawn only from its model's top `share` by norm
    norm_chance_lo: float
    norm_chance_hi: float


def overlaps(
    base: Weights, tuned: Weights, order: np.ndarray, shares: Sequence[float], lowest: Sequence[int]
) -> Iterator[Overlap]:
    """The overlap for each pair of thresholds. `order`: int [n], the tuned neuron that matches each base neuron."""
    everyone = np.ones(len(order), bool)
    for share in shares:
        heavy = large(base[0], share), large(tuned[0], share)[order]
        for count in lowest:
            first, second = candidates(*base, share, count), candidates(*tuned, share, count)[order]
            sizes = int(first.sum()), int(second.sum())
            chance, norm_chance = (chance_iou(pools, sizes) for pools in ((everyone, everyone), heavy))
            yield Overlap(share, count, *sizes, int((first & second).sum()), iou(first, second), *chance, *norm_chance)


class Change(NamedTuple):
    """How a measure of the candidates changes from the base model to the tuned one."""

    base: float  # mean over the candidates
    tuned: float  # mean over the neurons that they are matched with
    change: float  # mean over the candidates
    random_lo: float  # 95% of the random sets have a change between this and `random_hi`
    random_hi: float
    correlation: float  # rank correlation of the two models' values, over all neurons


def change_of_candidates(base: np.ndarray, tuned: np.ndarray, chosen: np.ndarray, random: np.ndarray) -> Change:
    """The change of a measure with the values `base` and `tuned`, [n], both in the base model's order of neurons.

    `chosen`: the candidates, int [c]. `random`: sets to compare them with, int [r c]. A neuron whose measure is NaN in
    one of the models is left out. If every neuron of every random set is left out, the range is NaN.
    """
    known = ~(np.isnan(base) | np.isnan(tuned))
    base, tuned = np.where(known, base, np.nan), np.where(known, tuned, np.nan)
    change = tuned - base
    of_random = _mean(change[random])
    of_random = of_random[~np.isnan(of_random)]
    low, high = np.quantile(of_random, [0.025, 0.975]) if len(of_random) else (np.nan, np.nan)
    first, second, moved = (float(_mean(x[chosen])) for x in (base, tuned, change))
    return Change(first, second, moved, float(low), float(high), _rank_correlation(base[known], tuned[known]))


def sets_from(pool: np.ndarray, size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` random sets of `size` different neurons of the pool, bool [n]: int [count size].

    There are none if the pool has only `size` neurons.
    """
    members = np.flatnonzero(pool)
    drawn = rng.permuted(np.tile(members, (count, 1)), axis=1)[:, :size]
    return drawn[:0] if size == len(members) else drawn


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean along the last axis without NaN values; NaN where all are NaN."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    return np.where(count > 0, np.where(known, values, 0).sum(-1) / np.maximum(count, 1), np.nan)


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation; NaN if one of the two does not vary."""
    ranks = [scipy.stats.rankdata(x) for x in (first, second)]
    return float(np.corrcoef(ranks)[0, 1]) if all(len(np.unique(x)) > 1 for x in ranks) else float("nan")


def cosine_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines, float32 [n n], between the write directions [n d] of two models; 0 for a neuron that writes nothing.

    The device holds BLOCK rows of the matrix at a time. The host holds the whole: 0.5 GB for 11,008 neurons.
    """
    cosines = np.empty((len(first), len(second)), np.float32)
    for begin in range(0, len(first), BLOCK):
        cosines[begin : begin + BLOCK] = _cosines(first[begin : begin + BLOCK], second)
    return cosines


@jax.jit
def _cosines(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.matmul(unit(first)[0], unit(second)[0].T, precision="highest")


def one_to_one(cosines: np.ndarray) -> np.ndarray:
    """For each neuron of the first model, a different neuron of the second, int [n].

    It is the one-to-one matching with the largest sum of `cosines` [n n]. It is found by shortest augmenting paths on
    the host, in a float64 copy of the matrix: 1 GB for 11,008 neurons. This takes O(n³) time at worst, and far less if
    most neurons have a clear counterpart (docs/companions.md).
    """
    return scipy.optimize.linear_sum_assignment(cosines, maximize=True)[1]


def chance_cosine(dimensions: int, n: int, quantile: float = 0.99) -> float:
    """The exact `quantile` of the largest cosine of a direction with n random ones.

    For a direction uniform on the sphere in D dimensions (1 + cosine)/2 is Beta((D − 1)/2, (D − 1)/2).
    """
    half = (dimensions - 1) / 2
    return float(2 * scipy.stats.beta(half, half).ppf(quantile ** (1 / n)) - 1)

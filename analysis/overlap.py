"""Candidates for entropy neurons by their weights alone: how many of them two models share, and what becomes of them.

Letters: n neuron, d model width, c candidate, r random set. Source: Du et al. 2025 (arXiv 2504.02904) for the
candidates and the ratio; what chance gives and the matching of neurons are ours.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.stats

BLOCK = 1024  # neurons whose cosines with all others are on the device at once


def large(w_norm: np.ndarray, share: float) -> np.ndarray:
    """The top `share` (0 to 1) of the neurons by norm, at least one, bool [n]; of equal norms those that come first."""
    chosen = np.zeros(len(w_norm), bool)
    chosen[np.argsort(-w_norm, kind="stable")[: max(1, round(share * len(w_norm)))]] = True
    return chosen


def candidates(w_norm: np.ndarray, logit_var: np.ndarray, share: float, lowest: int) -> np.ndarray:
    """The `lowest` neurons by LogitVar among the top `share` by norm, bool [n], or all of those where they are fewer.

    A neuron that writes nothing has no LogitVar (NaN) and is never a candidate.
    """
    eligible = np.flatnonzero(large(w_norm, share) & np.isfinite(logit_var))
    chosen = np.zeros(len(w_norm), bool)
    chosen[eligible[np.argsort(logit_var[eligible], kind="stable")[:lowest]]] = True
    return chosen


def norm_ratio(w_norm: np.ndarray, logit_var: np.ndarray) -> np.ndarray:
    """‖w‖ / log LogitVar, float64 [n]; NaN for a neuron that writes nothing.

    It is below 0, and the closer to 0, the less of its norm a neuron shows to the logits.
    """
    return np.asarray(w_norm, np.float64) / np.log(np.where(logit_var > 0, logit_var, np.nan), dtype=np.float64)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two sets of neurons, bool [n] each; NaN if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else float("nan")


def chance_iou(
    pools: tuple[np.ndarray, np.ndarray], sizes: tuple[int, int], level: float = 0.95
) -> tuple[float, float, float]:
    """The expected IoU of two random sets of these sizes, one from each pool, and the range of a `level` of all pairs.

    `pools`: bool [n] each. How many of the first set lie in both pools is hypergeometric, and so is how many of those
    the second set takes. Permuting a model's neurons at random draws just such sets, from all neurons: mean and range
    are exactly those of all permutations.
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
    """How many candidates two models share: of the top `share` by norm the `lowest` by LogitVar are candidates."""

    share: float
    lowest: int
    base: int  # candidates of the base model
    tuned: int  # candidates of the tuned model
    common: int
    iou: float
    chance: float  # the expected IoU over all permutations of the neurons
    chance_lo: float  # between this and `chance_hi` lie 95% of them
    chance_hi: float
    norm_chance: float  # the same where only the choice among the neurons with a large norm is random
    norm_chance_lo: float
    norm_chance_hi: float


def overlaps(
    base: Weights, tuned: Weights, order: np.ndarray, shares: Sequence[float], lowest: Sequence[int]
) -> Iterator[Overlap]:
    """For each pair of thresholds. `order`: int [n], the tuned model's neuron for each of the base model's."""
    everyone = np.ones(len(order), bool)
    for share in shares:
        heavy = large(base[0], share), large(tuned[0], share)[order]
        for count in lowest:
            first, second = candidates(*base, share, count), candidates(*tuned, share, count)[order]
            sizes = int(first.sum()), int(second.sum())
            chance, norm_chance = (chance_iou(pools, sizes) for pools in ((everyone, everyone), heavy))
            yield Overlap(share, count, *sizes, int((first & second).sum()), iou(first, second), *chance, *norm_chance)


class Change(NamedTuple):
    """What becomes of a measure of the candidates."""

    base: float  # mean over them
    tuned: float  # mean over the neurons that they are matched with
    change: float
    random_lo: float  # between this and `random_hi` lies the change of 95% of the random sets
    random_hi: float
    correlation: float  # of the ranks of all neurons


def change_of_candidates(base: np.ndarray, tuned: np.ndarray, chosen: np.ndarray, random: np.ndarray) -> Change:
    """Of a measure, [n], whose `tuned` values stand in the order of the neurons that they are matched with.

    `chosen`: int [c]; `random`: int [r c], sets to compare them with. A neuron whose measure is NaN in one of the
    models is left out; if no set is left, the range is NaN.
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
    """`count` sets of `size` different neurons of the pool, bool [n]: int [count size]; none if there is no choice."""
    members = np.flatnonzero(pool)
    drawn = rng.permuted(np.tile(members, (count, 1)), axis=1)[:, :size]
    return drawn[:0] if size == len(members) else drawn


def _mean(values: np.ndarray) -> np.ndarray:
    """Along the last axis, without what is NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    return np.where(count > 0, np.where(known, values, 0).sum(-1) / np.maximum(count, 1), np.nan)


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """NaN where one of the two does not vary."""
    ranks = [scipy.stats.rankdata(x) for x in (first, second)]
    return float(np.corrcoef(ranks)[0, 1]) if all(len(np.unique(x)) > 1 for x in ranks) else float("nan")


def cosine_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines, float32 [n n], of write directions [n d]; 0 for a neuron that writes nothing.

    A device holds BLOCK rows of the matrix, which takes 0.5 GB of the host for 11,008 neurons.
    """
    cosines = np.empty((len(first), len(second)), np.float32)
    for begin in range(0, len(first), BLOCK):
        cosines[begin : begin + BLOCK] = _cosines(first[begin : begin + BLOCK], second)
    return cosines


@jax.jit
def _cosines(first: jax.Array, second: jax.Array) -> jax.Array:
    def unit(w: jax.Array) -> jax.Array:
        length = jnp.linalg.norm(w, axis=1, keepdims=True)
        return jnp.where(length > 0, w / length, 0)

    return jnp.matmul(unit(first), unit(second).T, precision="highest")


def one_to_one(cosines: np.ndarray) -> np.ndarray:
    """For each neuron of the first model one of the second, int [n], each taken once.

    No other such choice has a larger sum of the cosines [n n]. It is found by shortest augmenting paths on the host, in
    a float64 copy of the matrix: 1 GB for 11,008 neurons. This takes O(n³) at worst, and far less where most neurons
    have a clear counterpart (docs/companions.md).
    """
    return scipy.optimize.linear_sum_assignment(cosines, maximize=True)[1]


def chance_cosine(dimensions: int, n: int, quantile: float = 0.99) -> float:
    """The exact `quantile` of the largest cosine of a direction with n random ones.

    For a direction uniform on the sphere in D dimensions (1 + cosine)/2 is Beta((D − 1)/2, (D − 1)/2).
    """
    half = (dimensions - 1) / 2
    return float(2 * scipy.stats.beta(half, half).ppf(quantile ** (1 / n)) - 1)

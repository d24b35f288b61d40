"""Candidates for entropy neurons by their weights alone, how many of them two models share, and which neuron of one is which of the other.

Letters: n neuron, d model width. Source: Du et al. 2025 (arXiv 2504.02904), whose candidates and ratio these are; what chance gives and the
matching are ours.
"""

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
    """‖w‖ / log LogitVar, float64 [n]: below 0, and the smaller in size the less of its norm a neuron shows to the logits. NaN for a neuron
    that writes nothing."""
    return np.asarray(w_norm, np.float64) / np.log(np.where(logit_var > 0, logit_var, np.nan), dtype=np.float64)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two sets of neurons, bool [n] each; NaN if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else float("nan")


def chance_iou(pools: tuple[np.ndarray, np.ndarray], sizes: tuple[int, int], level: float = 0.95) -> tuple[float, float, float]:
    """The expected IoU of two random sets of these sizes, one from each pool of neurons, and the quantiles between which `level` of all such pairs lie.

    `pools`: bool [n] each. How many of the first set lie in both pools is hypergeometric, and so is how many of those the second set takes.
    Permuting a model's neurons at random draws just such sets, from all neurons: mean and interval are those of all permutations, exactly.
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


def cosine_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines, float32 [n n], of write directions [n d]; 0 for a neuron that writes nothing. Of the matrix, which for 11,008 neurons takes 0.5 GB of
    the host, a device holds BLOCK rows."""
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
    """For each neuron of the first model one of the second, int [n], each taken once, so that the sum of the cosines [n n] is as large as can be.

    An assignment by shortest augmenting paths on the host, in a float64 copy of the matrix: 1 GB for 11,008 neurons. Its time is O(n³) at
    worst, and far less where most neurons have a clear counterpart (docs/companions.md).
    """
    return scipy.optimize.linear_sum_assignment(cosines, maximize=True)[1]


def chance_cosine(dimensions: int, n: int, quantile: float = 0.99) -> float:
    """What the largest cosine of a direction with n random ones stays below with the probability `quantile`, exactly: for a direction uniform on
    the sphere in D dimensions (1 + cosine)/2 is Beta((D − 1)/2, (D − 1)/2)."""
    half = (dimensions - 1) / 2
    return float(2 * scipy.stats.beta(half, half).ppf(quantile ** (1 / n)) - 1)

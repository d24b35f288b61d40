"""Null baselines: rows with a random write direction, and what they say of a neuron's mediated shares.

Letters: n neuron, m null, d model width, D directions that count (d, or d − 1 if the final norm is LayerNorm).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError

LEAST = 200  # nulls: fewer say little of the tail
TAIL = 0.25  # the share of the nulls, the largest, that the tail is fitted to
LEAST_P = 1e-9  # a tail that is fitted to so few nulls is not followed further
COUNTED = 10  # p-values are counted where at least so many nulls reach the value, and else taken from the fitted tail


class Nulls(NamedTuple):
    """Rows that are like a neuron in everything but the direction that they write."""

    neurons: np.ndarray  # int m: the neuron whose activations a null has
    directions: np.ndarray  # float32 [m d]: its write direction, as long as that neuron's


def check_nulls(nulls: int) -> None:
    """Raises InputError for a number of nulls that is neither 0 nor at least LEAST."""
    if nulls != 0 and nulls < LEAST:
        raise InputError(f"nulls is {nulls}; give 0 for none, or at least {LEAST}")


def draw_nulls(config: DecoderConfig, w_out: np.ndarray, count: int, seed: int) -> Nulls:
    """`count` nulls of the neurons with the write directions `w_out` [n d].

    Neurons that write something are taken in turn, in a random order; if there are none, there are no nulls. The
    directions are uniform on the sphere, or where the final norm is LayerNorm on that of the directions without a mean,
    which the norm does not ignore.
    """
    rng = np.random.default_rng(seed)
    lengths = np.linalg.norm(w_out.astype(np.float64), axis=1)
    writing = np.flatnonzero(lengths > 0)
    neurons = np.resize(rng.permutation(writing), count if len(writing) else 0)
    drawn = rng.standard_normal((len(neurons), w_out.shape[1]))
    if config.final.norm == "layer":
        drawn -= drawn.mean(1, keepdims=True)
    drawn *= (lengths[neurons] / np.linalg.norm(drawn, axis=1))[:, None]
    return Nulls(neurons, drawn.astype(np.float32))


def with_nulls(readout: Readout, nulls: Nulls) -> Readout:
    """The readout with the nulls behind its neurons.

    The scale of a norm behind the MLP changes as for the neuron whose activations a null has.
    """
    w_out, w_mlp = _with_nulls(readout.w_out, readout.w_mlp, *nulls)
    return dataclasses.replace(readout, w_out=w_out, w_mlp=w_mlp)


@jax.jit
def _with_nulls(
    w_out: jax.Array, w_mlp: jax.Array, neurons: np.ndarray, directions: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    return jnp.concatenate([w_out, directions]), jnp.concatenate([w_mlp, w_mlp[neurons]])


def p_values(values: np.ndarray, nulls: np.ndarray) -> np.ndarray:
    """p of each value [n]: (1 + how many nulls are as large) / (1 + how many nulls there are); float64 [n].

    `nulls` [m]. NaN among the nulls is left out. p is NaN where the value is, and everywhere without nulls.
    """
    nulls = np.sort(nulls[~np.isnan(nulls)])
    p = (1 + _reached(values, nulls)) / (1 + len(nulls))
    return np.where(np.isnan(values) | (len(nulls) == 0), np.nan, p)


def tail_p_values(values: np.ndarray, nulls: np.ndarray) -> np.ndarray:
    """p of each value as in `p_values`, or less from a fitted tail where fewer than COUNTED nulls are as large.

    Counting alone gives no p below 1/(1 + m), which no neuron of a large layer survives when p is corrected for the
    number of neurons. So the largest quarter of the nulls is taken to have a generalised Pareto tail (Knijnenburg et
    al. 2009, Bioinformatics 25), fitted by probability-weighted moments (Hosking and Wallis 1987). A tail that falls
    faster than an exponential is taken to be exponential, which makes p larger. No p is below LEAST_P.
    """
    counted = p_values(values, nulls)
    nulls = np.sort(nulls[~np.isnan(nulls)])
    beyond = round(TAIL * len(nulls))
    if beyond < COUNTED:
        return counted
    above = _reached(values, nulls)
    threshold = (nulls[-beyond - 1] + nulls[-beyond]) / 2
    excess = nulls[-beyond:] - threshold
    first = excess.mean()
    second = np.mean(excess * (1 - (np.arange(1, beyond + 1) - 0.35) / beyond))
    if not first > 2 * second > 0:  # nulls that are all equal have no tail
        return counted
    shape = max(0.0, 2 - first / (first - 2 * second))
    scale = first * (1 - shape)  # the tail's mean stays that of the nulls
    over = np.maximum(values - threshold, 0) / scale
    log_survival = -over if shape == 0 else -np.log1p(shape * over) / shape
    return np.where(above < COUNTED, np.minimum(counted, np.maximum(LEAST_P, TAIL * np.exp(log_survival))), counted)


def q_values(p: np.ndarray) -> np.ndarray:
    """The false discovery rates of Benjamini and Hochberg (1995) at which each p [n] is rejected; NaN stays NaN."""
    q = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(-p[known], kind="stable")]
    ranks = np.arange(len(order), 0, -1)
    q[order] = np.minimum.accumulate(np.minimum(1, p[order] * len(order) / ranks))
    return q


def rho_p_values(rho: np.ndarray, k: int, dimensions: int) -> np.ndarray:
    """p of each ρ_k [n] if directions are uniform on the sphere in D `dimensions`: ρ² is Beta(k/2, (D − k)/2)."""
    if k >= dimensions:
        return np.where(np.isnan(rho), np.nan, 1.0)
    return scipy.special.betaincc(k / 2, (dimensions - k) / 2, np.clip(rho, 0, 1) ** 2)


def robust_z(values: np.ndarray) -> np.ndarray:
    """Each value's distance from the median, in standard deviations as estimated from the median absolute deviation.

    [n]; NaN is left out, and everything is NaN if more than half of the values are equal.
    """
    if np.isnan(values).all():
        return np.full(values.shape, np.nan)
    centred = values - np.nanmedian(values)
    spread = 1.4826 * np.nanmedian(np.abs(centred))  # that of a Gaussian is its standard deviation
    return centred / spread if spread > 0 else np.full(values.shape, np.nan)


def _reached(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """How many of the `ordered` nulls are at least as large as each value."""
    return len(ordered) - np.searchsorted(ordered, values, side="left")

"""Activations of neurons, and their statistics over text.

Letters: s window, t position, p token position (all windows and positions in one axis), n neuron, k value.

What is said of a layer's neurons and their activations holds as well for a dictionary's directions and coefficients
(`jaxconf.analysis.dictionaries`).

In a mixture of experts, only the tokens for which a neuron's expert is chosen count for the neuron. All statistics of a
neuron that has no such token are NaN.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.mlp import of_neurons

BINS = 1000  # between a neuron's smallest and largest activation, for the mode


class ActivationStatistics(NamedTuple):
    """Statistics of the neurons of a layer over all tokens; float64 [n] each."""

    mean: np.ndarray
    std: np.ndarray  # with the number of tokens in the denominator
    low: np.ndarray  # the smallest activation
    high: np.ndarray  # the largest
    median: np.ndarray | None = None
    mode: np.ndarray | None = None


class Moments(NamedTuple):
    """Moments of a layer's activations at some tokens; float64 [n] each."""

    tokens: np.ndarray  # how many tokens count for the neuron
    mean: np.ndarray
    squares: np.ndarray  # the sum of the squared distances from the mean
    low: np.ndarray
    high: np.ndarray


class Activations(NamedTuple):
    """A layer's activations, which the down projection reads."""

    h: jax.Array  # float32 s t n
    counted: Any  # in a mixture of experts, those of chosen experts: bool s t n; else all: True, s 1 1

    @classmethod
    def of(cls, h: jax.Array, weight: jax.Array | None) -> "Activations":
        """`weight`: in a mixture of experts, the router's weight of each neuron's expert, [s t n]."""
        return cls(h, np.ones((len(h), 1, 1), bool) if weight is None else weight > 0)


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def activations(
    config: DecoderConfig, params: Params, tokens: jax.Array, layer: int, dictionary: Dictionary | None = None
) -> Activations:
    """A layer's activations for tokens int [s t], or the coefficients of a `dictionary`, whose site is in the layer.

    What is computed from them are programs of their own, so that the model is compiled once for all of these.
    """
    if dictionary is not None:
        run = forward(config, params, tokens, capture=[dictionary.reads], stop_at_layer=layer + 1)
        return Activations.of(dictionary.read(run.captured), None)
    post, router = (f"blocks.{layer}.mlp.{name}" for name in ("hook_post", "hook_router"))
    sites = [post, router] if config.experts else [post]
    captured = forward(config, params, tokens, capture=sites, stop_at_layer=layer + 1).captured
    weight = of_neurons(config, captured[router]) if config.experts else None
    return Activations.of(captured[post].astype(jnp.float32), weight)


@jax.jit
def moments_of_a_layer(
    of: Activations, real: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """How many tokens count, int [n]; mean, sum of squared distances from it, smallest and largest activation, float32
    [n] each.

    `real`: bool [s], the windows that count. Of a neuron without tokens, the mean and the sum are 0.
    """
    h, counted = of.h, jnp.broadcast_to(real[:, None, None] & of.counted, of.h.shape)
    number = counted.sum((0, 1))
    mean = jnp.where(counted, h, 0).sum((0, 1)) / jnp.maximum(number, 1)
    away = jnp.where(counted, h, mean).reshape(-1, h.shape[-1]) - mean
    low, high = (jnp.where(counted, h, far) for far in (jnp.inf, -jnp.inf))
    return number, mean, jnp.square(away).sum(0), low.min((0, 1)), high.max((0, 1))


@jax.jit
def activations_of_neurons(of: Activations, neurons: jax.Array) -> jax.Array:
    """The activations, float32 [s t k], of some `neurons` of a layer, int [k]; NaN where they do not count."""
    return jnp.where(of.counted, of.h, jnp.nan)[..., neurons]


@functools.partial(jax.jit, static_argnames=("config", "site"))
def products_of_a_site(
    config: DecoderConfig, params: Params, tokens: jax.Array, counted: jax.Array, site: str, about: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Σ y [d] and Σ y·yᵀ [d d], float32, over the positions that count, where y is a site's value minus `about` [d].

    `tokens`: int [s t]. `counted`: bool [s t].
    """
    captured = forward(config, params, tokens, capture=[site], stop_at_layer=config.n_layers).captured
    away = jnp.where(counted[..., None], captured[site].astype(jnp.float32) - about, 0)
    return away.sum((0, 1)), jnp.einsum("std,ste->de", away, away, precision="highest")


class Products(NamedTuple):
    """Sums over positions; [n] and [k n], or [1] and [k 1] where they are the same for all neurons."""

    count: Any  # the positions
    first: Any  # of h − mean, n
    second: Any  # of (h − mean)², n
    of_values: Any  # of the values
    squares: Any  # of the squared values
    products: Any  # of their products, k n


@jax.jit
def sums_of_products(of: Activations, counted: jax.Array, values: jax.Array, mean: jax.Array) -> Products:
    """The sums over the positions that count.

    `counted`: 1 or 0, float32 [s t]. `values`: float32 [s t k], 0 where a position does not count.
    `mean`: about that of the activations, [n], so that rounding stays small; that of the values should be about 0.
    """
    own = counted[..., None] * jnp.where(of.counted, 1.0, 0.0)  # s t n, or s t 1 where all have the same
    away = jnp.where(own > 0, of.h - mean, 0)
    with jax.default_matmul_precision("highest"):
        of_values, squares = (jnp.einsum("stn,stk->kn", own, power) for power in (values, values**2))
        products = jnp.einsum("stn,stk->kn", away, values)
    return Products(own.sum((0, 1)), away.sum((0, 1)), jnp.square(away).sum((0, 1)), of_values, squares, products)


def correlations(sums: Products) -> np.ndarray:
    """Pearson correlations, float64 [k n]. NaN where an activation or a value does not vary beyond rounding."""
    count = np.maximum(sums.count, 1)
    spread = np.maximum(sums.second - sums.first**2 / count, 0)
    of_values = np.maximum(sums.squares - sums.of_values**2 / count, 0)
    varies = (spread > 1e-6 * sums.second) & (of_values > 1e-6 * sums.squares)
    shared = sums.products - sums.first * sums.of_values / count
    return np.where(varies, shared / np.sqrt(np.where(varies, spread * of_values, 1)), np.nan)


def merged(one: Moments, other: Moments) -> Moments:
    """The moments over the tokens of both, by the formula of Chan, Golub and LeVeque (1979)."""
    tokens, away = one.tokens + other.tokens, other.mean - one.mean
    some = np.maximum(tokens, 1)
    return Moments(
        tokens,
        one.mean + away * other.tokens / some,
        one.squares + (other.squares + away**2 * one.tokens * other.tokens / some),
        np.minimum(one.low, other.low),
        np.maximum(one.high, other.high),
    )


def statistics_of(found: Moments) -> ActivationStatistics:
    """The statistics without the median and the mode, which do not follow from moments."""
    std = np.sqrt(found.squares / np.maximum(found.tokens, 1))
    return ActivationStatistics(*(np.where(found.tokens, x, np.nan) for x in (found.mean, std, found.low, found.high)))


def mode(h: np.ndarray) -> float:
    """The middle of the fullest of BINS equal bins between the smallest and the largest activation.

    `h`: a neuron's activations, float32 [p]. If several bins are equally full, the lowest of them is taken. Source:
    Tighidet et al. 2025 (arXiv 2509.10663).
    """
    low, high = h.min(), h.max()
    if low == high:
        return float(low)
    width = max(high - low, np.finfo(np.float32).tiny) / np.float32(BINS)
    counts = np.bincount(np.minimum((h - low) / width, BINS - 1).astype(np.int64), minlength=BINS)
    return float(min(low + (counts.argmax() + 0.5) * width, high))

"""Activations of neurons, and their statistics over text.

Letters: s window, t position, p token position (all windows and positions in one axis), n neuron, k value.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward

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
    """Moments of a layer's activations at some tokens; float64 [n] each, but for the number of these tokens."""

    tokens: int  # how many
    mean: np.ndarray
    squares: np.ndarray  # the sum of the squared distances from the mean
    low: np.ndarray
    high: np.ndarray


def activations(
    config: DecoderConfig, params: Params, tokens: jax.Array, layers: Sequence[int]
) -> dict[int, jax.Array]:
    """Layer → its activations, which the down projection reads, float32 [s t n], for tokens int [s t]."""
    sites = {layer: f"blocks.{layer}.mlp.hook_post" for layer in layers}
    captured = forward(config, params, tokens, capture=list(sites.values()), stop_at_layer=max(layers) + 1).captured
    return {layer: captured[site].astype(jnp.float32) for layer, site in sites.items()}


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def moments_of_a_layer(
    config: DecoderConfig, params: Params, tokens: jax.Array, real: jax.Array, layer: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Mean, sum of squared distances from it, smallest and largest activation, float32 [n] each.

    `tokens`: int [s t]. `real`: bool [s], the windows that count.
    """
    h, counted = activations(config, params, tokens, [layer])[layer], real[:, None, None]
    mean = jnp.where(counted, h, 0).sum((0, 1)) / (real.sum() * h.shape[1])
    away = jnp.where(counted, h, mean).reshape(-1, config.d_mlp) - mean
    low, high = (jnp.where(counted, h, far) for far in (jnp.inf, -jnp.inf))
    return mean, jnp.square(away).sum(0), low.min((0, 1)), high.max((0, 1))


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def activations_of_neurons(
    config: DecoderConfig, params: Params, tokens: jax.Array, neurons: jax.Array, layer: int
) -> jax.Array:
    """The activations, float32 [s t k], of some `neurons` of a layer, int [k]."""
    return activations(config, params, tokens, [layer])[layer][..., neurons]


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def sums_of_products(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    counted: jax.Array,
    values: jax.Array,
    mean: jax.Array,
    layer: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Over the counted positions, the sums of h − mean [n], of its square [n], and of its products with values [k n].

    `tokens`: int [s t]. `counted`: 1 or 0, float32 [s t]. `values`: float32 [s t k], 0 where a position does not count.
    `mean`: about that of the activations, [n], so that rounding stays small.
    """
    away = activations(config, params, tokens, [layer])[layer] - mean
    with jax.default_matmul_precision("highest"):
        first, second = (jnp.einsum("stn,st->n", power, counted) for power in (away, away**2))
        return first, second, jnp.einsum("stn,stk->kn", away, values)


def correlations(
    count: int, first: np.ndarray, second: np.ndarray, products: np.ndarray, squares: np.ndarray
) -> np.ndarray:
    """Pearson correlations, float64 [k n], from `sums_of_products` over `count` positions.

    `squares`: the sums of the squared values, [k], whose means must be 0. NaN where an activation or a value does not
    vary beyond rounding.
    """
    spread = np.maximum(second - first**2 / count, 0)
    varies = (spread > 1e-6 * second) & (squares[:, None] > 0)
    return np.where(varies, products / np.sqrt(np.where(varies, spread * squares[:, None], 1)), np.nan)


def merged(one: Moments, other: Moments) -> Moments:
    """The moments over the tokens of both, by the formula of Chan, Golub and LeVeque (1979)."""
    tokens, away = one.tokens + other.tokens, other.mean - one.mean
    return Moments(
        tokens,
        one.mean + away * other.tokens / tokens,
        one.squares + (other.squares + away**2 * one.tokens * other.tokens / tokens),
        np.minimum(one.low, other.low),
        np.maximum(one.high, other.high),
    )


def statistics_of(found: Moments) -> ActivationStatistics:
    """The statistics without the median and the mode, which do not follow from moments."""
    return ActivationStatistics(found.mean, np.sqrt(found.squares / found.tokens), found.low, found.high)


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

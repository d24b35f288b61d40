"""Activations of neurons, and their statistics over text.

Letters: s window, t position, p token position (all windows and positions in one axis), n neuron.
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

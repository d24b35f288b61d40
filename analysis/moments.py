"""Activations of all layers and their moments, from sums over windows.

Letters: b window, t position, l layer, n neuron.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward

CONSTANT = 1e-6  # an activation counts as constant if its standard deviation is a smaller share of its mean


class Moments(NamedTuple):
    """Sums over counted tokens of each activation's difference from a shift."""

    by_position: jax.Array  # l t n: over windows
    powers: jax.Array  # 3 l n: of the square, cube and fourth power, over windows and positions


def activations(config: DecoderConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """The activations of all layers, which the down projections read, float32 [l b t n], for tokens [b t]."""
    sites = [f"blocks.{layer}.mlp.hook_post" for layer in range(config.n_layers)]
    captured = forward(config, params, tokens, capture=sites, stop_at_layer=config.n_layers).captured
    return jnp.stack([captured[site].astype(jnp.float32) for site in sites])


@functools.partial(jax.jit, static_argnames="config")
def moments(config: DecoderConfig, params: Params, tokens: jax.Array, counted: jax.Array, shift: jax.Array) -> Moments:
    """The moments, float32, over the positions of `tokens` [b t] at which `counted`, bool [b t], is true.

    `shift` [l n]: subtracted from the activations; the powers lose least to rounding if it is near the mean.
    """
    distance = jnp.where(counted[..., None], activations(config, params, tokens) - shift[:, None, None], 0)
    return Moments(distance.sum(1), jnp.stack([jnp.sum(distance**power, (1, 2)) for power in (2, 3, 4)]))


def activation_statistics(sums: Moments, shift: np.ndarray, count_at: np.ndarray) -> dict[str, np.ndarray]:
    """Column → mean, standard deviation, skew, kurtosis or `position_r2` of each activation, float64 [l n].

    `sums`: what `moments` gives, added up in float64. `count_at`: int [t], how many tokens count at each position. The
    kurtosis of a normal distribution is 3. `position_r2` is the share of the variance that lies between positions. The
    last three are NaN for a constant activation.
    """
    by_position, powers = sums
    count, some = count_at.sum(), count_at > 0
    away = by_position.sum(1) / count  # of the mean from the shift
    second, third, fourth = powers / count
    variance = second - away**2
    at = count_at[some][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = ((by_position[:, some] / at - away[:, None]) ** 2 * at).sum(1) / count
        varies = np.where(variance > (CONSTANT * (shift + away)) ** 2, variance, np.nan)
        return {
            "activation_mean": shift + away,
            "activation_std": np.sqrt(np.maximum(variance, 0)),
            "activation_skew": (third - 3 * away * second + 2 * away**3) / varies**1.5,
            "activation_kurtosis": (fourth - 4 * away * third + 6 * away**2 * second - 3 * away**4) / varies**2,
            "position_r2": between / varies,
        }

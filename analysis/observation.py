"""A model's predictions and activations at every position of windows.

Letters: b window, t position, l layer, h head, n neuron, c set of heads. Losses and entropies are in nats.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.induction import bos_ablation
from jaxconf.analysis.whole_logits import Prediction, prediction
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, final_norm_name, forward
from jaxconf.models.sites import Edit


class Totals(NamedTuple):
    """Sums over windows, float32."""

    entropy: jax.Array  # t
    loss: jax.Array  # t
    scale: jax.Array  # t: of the final norm
    activations: dict[int, jax.Array]  # layer → t n


def activation_sites(layers: Iterable[int]) -> dict[int, str]:
    """Layer → the site of its activations, which the down projection reads."""
    return {layer: f"blocks.{layer}.mlp.hook_post" for layer in layers}


@functools.partial(jax.jit, static_argnames=("config", "sites"))
def observed(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    sites: tuple[str, ...],
    edits: Mapping[str, Edit] | None = None,
) -> tuple[Prediction, dict[str, jax.Array]]:
    """The predictions [b t] of the model with `edits` on windows, int [b t], and the values of the sites.

    The target of the last position, which has none of its own, is the first token of the window.
    """
    output = forward(config, params, tokens, edits=edits or {}, capture=sites)
    assert output.logits is not None
    predictions = prediction(output.logits, frequency(np.zeros(config.vocab_size)), jnp.roll(tokens, -1, 1))
    return predictions, {site: output.captured[site] for site in sites}


@functools.partial(jax.jit, static_argnames=("config", "layers"))
def observed_totals(
    config: DecoderConfig, params: Params, tokens: jax.Array, real: jax.Array, layers: tuple[int, ...]
) -> Totals:
    """Sums over the windows `tokens`, int [b t], that are real. `real`: float32 [b], 1 for a real window, else 0."""
    scale, sites = f"{final_norm_name(config)}.hook_scale", activation_sites(layers)
    predictions, captured = observed(config, params, tokens, (scale, *sites.values()))

    def total(x: jax.Array) -> jax.Array:
        return jnp.einsum("b,b...->...", real, x.astype(jnp.float32))

    activations = {layer: total(captured[site]) for layer, site in sites.items()}
    return Totals(total(predictions.entropy), total(predictions.loss), total(captured[scale][..., 0]), activations)


@functools.partial(jax.jit, static_argnames=("config", "edited", "layers"))
def observed_at_bos(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    heads: jax.Array,
    edited: tuple[int, ...],
    layers: tuple[int, ...],
) -> tuple[jax.Array, jax.Array, dict[int, jax.Array]]:
    """Entropy and loss [c b t], and the layers' activations [c b t n], if each set's heads attend to BOS alone.

    `heads`: which heads each set has, bool [c l h]. `edited`: the layers in which a set has heads; what is below them
    is run once for all sets. `tokens`: windows that begin with BOS, int [b t]. Source: Stolfo et al. 2024 (arXiv
    2406.16254), section 5.
    """
    sites = activation_sites(layers)

    def one(heads: jax.Array) -> tuple[jax.Array, jax.Array, dict[int, jax.Array]]:
        edits = bos_ablation(heads, edited, tokens.shape[1])
        predictions, captured = observed(config, params, tokens, tuple(sites.values()), edits)
        return predictions.entropy, predictions.loss, {layer: captured[site] for layer, site in sites.items()}

    return jax.vmap(one)(heads)

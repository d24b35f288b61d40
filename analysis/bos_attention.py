"""Directions in the residual stream that make a head attend to the first position, as inactive heads do; and how the
ablation of a neuron changes that attention.

Letters: b window, t and q position, l layer, j layer above the ablated neurons, n neuron, k ablated neuron, h head,
d width, p position of any window. Source: Gurnee et al. 2024 (arXiv 2401.12181),
section 5. They rate a neuron with the write w for a head by w·W_Q·k, where k is the key of BOS. This is the change of
one attention score before the softmax. The directions of this module also take into account the norm before the
queries, rotated, capped or biased scores, and the keys of the other positions.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.sites import Ablate, Edit, Replace


@functools.partial(jax.jit, static_argnames="config")
def bos_directions(config: DecoderConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """For each head the gradient of its mean attention to position 0, float32 [l h d], for tokens [b t].

    The mean is over windows and the later positions. The gradient is with respect to a vector that is added to the
    stream which enters the head's layer, at every position but 0: adding c·w for a small c changes that attention by
    c·⟨w, gradient⟩, to first order in c. This holds for every family.
    """
    streams = [f"blocks.{layer}.hook_resid_pre" for layer in range(config.n_layers)]
    patterns = [f"blocks.{layer}.attn.hook_pattern" for layer in range(config.n_layers)]
    as_it_is = forward(config, params, tokens, capture=streams, stop_at_layer=config.n_layers).captured

    def attention(added: jax.Array) -> jax.Array:
        """The mean attention to position 0, [l h]. A vector of `added` [l d] changes only its own layer's attention."""
        edits: dict[str, Edit] = {
            site: Replace(as_it_is[site].at[:, 1:].add(added[layer])) for layer, site in enumerate(streams)
        }
        captured = forward(
            config, params, tokens, edits=edits, capture=patterns, stop_at_layer=config.n_layers
        ).captured
        return jnp.stack([captured[site][:, :, 1:, 0].astype(jnp.float32).mean((0, 2)) for site in patterns])

    _, backward = jax.vjp(attention, jnp.zeros((config.n_layers, config.d_model)))

    def gradient(head: jax.Array) -> jax.Array:
        return backward(jnp.broadcast_to(head, (config.n_layers, config.n_heads)))[0]

    return jnp.moveaxis(jax.lax.map(gradient, jnp.eye(config.n_heads)), 0, 1)


class MovedHead(NamedTuple):
    """For each neuron, the head whose attention to position 0 it changes most."""

    head: np.ndarray  # n: int
    change: np.ndarray  # n: of its mean attention to position 0, to first order, when the activation rises by 1
    cosine: np.ndarray  # n: of the write with the head's gradient; NaN for a neuron that writes nothing


def most_moved_head(writes: np.ndarray, directions: np.ndarray) -> MovedHead:
    """The most changed head for neurons with these `writes`, float64 [n d]; `directions`: `bos_directions` [h d]."""
    moved = writes @ directions.T
    head = np.abs(moved).argmax(1)
    change = moved[np.arange(len(writes)), head]
    length = np.linalg.norm(writes, axis=1) * np.linalg.norm(directions, axis=1)[head]
    return MovedHead(head, change, change / np.where(length > 0, length, np.nan))


class AblatedAttention(NamedTuple):
    """The attention to position 0 of the heads in the layers above some neurons, at each later position; float32."""

    activation: jax.Array  # k b q: of each neuron
    before: jax.Array  # b q j h: in the unablated model
    after: jax.Array  # k b q j h: with each neuron ablated by itself


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def ablated_attention(
    config: DecoderConfig, params: Params, tokens: jax.Array, neurons: jax.Array, layer: int
) -> AblatedAttention:
    """The attention to position 0 when each of the `neurons` of a layer, int [k], is set to 0; for tokens [b t].

    A neuron is ablated at every position but 0, so that the keys and values of position 0 stay as they are. The layers
    above are run again, and everything there reacts. In the paper only the queries of one head react.
    """
    entry = f"blocks.{layer}.hook_resid_pre", f"blocks.{layer}.mlp.hook_post"
    captured = forward(config, params, tokens, capture=entry, stop_at_layer=layer + 1).captured
    resid, h = captured[entry[0]], captured[entry[1]]
    later = (jnp.arange(tokens.shape[1]) > 0)[:, None]
    patterns = [f"blocks.{above}.attn.hook_pattern" for above in range(layer + 1, config.n_layers)]

    def attention(ablated: jax.Array) -> jax.Array:
        edits = {f"blocks.{layer}.mlp.hook_post": Ablate(later & ablated, jnp.float32(0))}
        captured = forward(
            config, params, resid, edits, patterns, start_at_layer=layer, stop_at_layer=config.n_layers
        ).captured
        return jnp.stack([captured[site][:, :, 1:, 0].astype(jnp.float32) for site in patterns], 1)  # b j h q

    ablated = jnp.arange(config.d_mlp) == jnp.append(neurons, -1)[:, None]  # the last row ablates none
    found = jnp.moveaxis(jax.lax.map(attention, ablated), -1, 2)
    activation = jnp.moveaxis(h[:, 1:, neurons].astype(jnp.float32), -1, 0)
    return AblatedAttention(activation, found[-1], found[:-1])


class AttentionChange(NamedTuple):
    """How the ablation of a neuron changes the attention of each head to position 0; float64 [j h]."""

    attention: np.ndarray  # the mean in the unablated model
    change: np.ndarray  # of this mean
    size: np.ndarray  # the mean size of the change
    slope: np.ndarray  # least squares through the origin: the attention lost by the ablation, for an activation of 1


def attention_change(activation: np.ndarray, before: np.ndarray, after: np.ndarray) -> AttentionChange:
    """The change by ablating one neuron, from its activation [p] and the attention [p j h] before and after."""
    h, before = activation.astype(np.float64), before.astype(np.float64)
    change = after - before
    slope = -np.einsum("p,pjh->jh", h, change) / max(h @ h, np.finfo(float).tiny)
    return AttentionChange(before.mean(0), change.mean(0), np.abs(change).mean(0), slope)

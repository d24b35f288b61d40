"""Which directions in the stream make a head attend to the first position, where heads rest that find nothing to do.

Letters: b window, t and q position, l layer, n neuron, h head, d width. Source: Gurnee et al. 2024 (arXiv 2401.12181),
section 5. Their score of a neuron w for a head is w·W_Q·k, where k is the key of BOS: the change of one score before
the softmax. The direction below also takes into account the norm before the queries, rotated, capped or biased scores,
and the keys of the other positions.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.sites import Edit, Replace


@functools.partial(jax.jit, static_argnames="config")
def bos_directions(config: DecoderConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """For each head the gradient of its mean attention to position 0, float32 [l h d], for tokens [b t].

    The mean is over windows and the later positions. The gradient is by a vector that is added to the stream which
    enters the head's layer, at every position but 0: adding c·w for a small c changes that attention by
    c·⟨w, gradient⟩, exactly in the limit, in every family.
    """
    streams = [f"blocks.{layer}.hook_resid_pre" for layer in range(config.n_layers)]
    patterns = [f"blocks.{layer}.attn.hook_pattern" for layer in range(config.n_layers)]
    as_it_is = forward(config, params, tokens, capture=streams, stop_at_layer=config.n_layers).captured

    def attention(added: jax.Array) -> jax.Array:
        """[l h], with `added` [l d]; layers read unchanged streams, so that each vector reaches its own layer alone."""
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
    """Of each neuron the head whose attention to position 0 it changes most."""

    head: np.ndarray  # n: int
    change: np.ndarray  # n: of its mean attention, to first order, as the activation rises by 1
    cosine: np.ndarray  # n: of the write with the head's direction; NaN for a neuron that writes nothing


def most_moved_head(writes: np.ndarray, directions: np.ndarray) -> MovedHead:
    """Among the heads whose `bos_directions` are given, [h d], for neurons with the writes [n d], float64."""
    moved = writes @ directions.T
    head = np.abs(moved).argmax(1)
    change = moved[np.arange(len(writes)), head]
    length = np.linalg.norm(writes, axis=1) * np.linalg.norm(directions, axis=1)[head]
    return MovedHead(head, change, change / np.where(length > 0, length, np.nan))

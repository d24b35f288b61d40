"""Which directions in the stream make a head attend to the first position, where heads rest that find nothing to do.

Letters: b window, t and q position, l layer, h head, d width. Source: Gurnee et al. 2024 (arXiv 2401.12181), section 5, whose score of a
neuron w for a head is w·W_Q·k, k being the key of BOS. That is the change of one score before the softmax; the direction below takes the norm
before the queries, rotated, capped or biased scores and the other positions' keys along.
"""

import functools

import jax
import jax.numpy as jnp

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.sites import Edit, Replace


@functools.partial(jax.jit, static_argnames="config")
def bos_directions(config: DecoderConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """For each head the gradient of its mean attention to position 0, over windows and the later positions, by a vector that is added to the
    stream which enters its layer, at every position but 0: float32 [l h d], for tokens [b t].

    A small multiple c·w of a direction changes that attention by c·⟨w, gradient⟩, exactly in the limit, in every family.
    """
    streams = [f"blocks.{layer}.hook_resid_pre" for layer in range(config.n_layers)]
    patterns = [f"blocks.{layer}.attn.hook_pattern" for layer in range(config.n_layers)]
    as_it_is = forward(config, params, tokens, capture=streams, stop_at_layer=config.n_layers).captured

    def attention(added: jax.Array) -> jax.Array:
        """[l h], with `added` [l d]; every layer reads the stream that it had, so that each vector reaches its own layer alone."""
        edits: dict[str, Edit] = {site: Replace(as_it_is[site].at[:, 1:].add(added[layer])) for layer, site in enumerate(streams)}
        captured = forward(config, params, tokens, edits=edits, capture=patterns, stop_at_layer=config.n_layers).captured
        return jnp.stack([captured[site][:, :, 1:, 0].astype(jnp.float32).mean((0, 2)) for site in patterns])

    _, backward = jax.vjp(attention, jnp.zeros((config.n_layers, config.d_model)))
    heads = jnp.eye(config.n_heads)
    return jnp.moveaxis(jax.lax.map(lambda head: backward(jnp.broadcast_to(head, (config.n_layers, config.n_heads)))[0], heads), 0, 1)

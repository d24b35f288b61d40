"""Composition of neurons: how far what a neuron writes lies along what a neuron of a later layer reads.

Letters: n neuron that writes, m neuron of a later layer that reads, d width, p pair, x block of writing neurons.

Source: Gurnee et al. 2024 (arXiv 2401.12181), whose composition scores are the cosines of W_out and W_in.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.unembedding import unit
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, layer_norm
from jaxconf.models.norms import centre, gain

BLOCK = 1024  # writing neurons whose cosines with all reading ones are held at once


class Strongest(NamedTuple):
    """For each neuron of two layers, its cosine of the largest size with a neuron of the other layer."""

    write_cosine: jax.Array  # n: float32
    reader: jax.Array  # n: int
    read_cosine: jax.Array  # m: float32
    writer: jax.Array  # m: int


def reads(config: DecoderConfig, params: Params, layer: int) -> jax.Array:
    """What each neuron of a layer reads from the stream, float32 [m d]: its input weights (of the gate, if it has one).

    The gain of a norm before the MLP is folded in, and for LayerNorm, which ignores it, the mean over d is subtracted.
    """
    w = params["blocks"]["mlp"]["w_gate" if config.gated else "w_in"][layer].astype(jnp.float32).T
    if config.norm_place not in ("pre", "both"):
        return w
    return centre(config, w * gain(config, layer_norm(params, "ln1" if config.shared_norm else "ln2", layer)))


@jax.jit
def strongest(writes: jax.Array, reads: jax.Array) -> Strongest:
    """The strongest pairs of write directions [n d] and read directions [m d]. A direction of 0 has the cosine 0."""
    read, _ = unit(reads)
    blocks = jnp.pad(unit(writes)[0], ((0, -len(writes) % BLOCK), (0, 0))).reshape(-1, BLOCK, writes.shape[1])

    def of_block(write: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        with jax.default_matmul_precision("highest"):
            cosine = write @ read.T
        return _largest(cosine, 1), _largest(cosine, 0)

    (write_cosine, reader), (read_cosine, writer) = jax.lax.map(of_block, blocks)  # x n, x m
    largest, block = _largest(read_cosine, 0)
    writer = block * BLOCK + jnp.take_along_axis(writer, block[None], 0)[0]
    return Strongest(write_cosine.ravel()[: len(writes)], reader.ravel()[: len(writes)], largest, writer)


@jax.jit
def cosines_of_pairs(writes: jax.Array, reads: jax.Array, writers: jax.Array, readers: jax.Array) -> jax.Array:
    """The cosines, float32 [p], of the pairs of `writers`, int [p], with `readers`, int [p]."""
    return jnp.sum(unit(writes[writers])[0] * unit(reads[readers])[0], -1)


def _largest(cosine: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The cosine of the largest size along an axis, and its index."""
    index = jnp.abs(cosine).argmax(axis)
    return jnp.take_along_axis(cosine, jnp.expand_dims(index, axis), axis).squeeze(axis), index

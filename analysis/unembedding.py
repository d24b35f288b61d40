"""The path from neurons to the logits: the write directions of an MLP's neurons, and the folded unembedding.

Letters: d model width, n neuron, v vocabulary, D singular directions that count. Source: Stolfo et al. 2024
(arXiv 2406.16254), section 3, with TransformerLens's fold_ln, center_writing_weights and center_unembed.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, final_norm, layer_norm, unembedding
from jaxconf.models.mesh import fetched
from jaxconf.models.norms import centre, gain

Convention = Literal["paper", "raw"]

BLOCK = 2048  # columns of W_U that are held in float64 at once


@struct.dataclass
class Readout:
    """The folded unembedding and the write directions of an MLP's neurons.

    In the paper's convention the logits are (centred x · W_U)/σ + b_U, up to a constant of each position and before a
    soft cap; x is the stream that enters the final norm, and σ is that norm's scale. Without a final norm, x is not
    centred and σ is 1.
    """

    W_U: jax.Array  # d v
    b_U: jax.Array  # v
    w_out: jax.Array  # n d, one write direction a row
    w_mlp: jax.Array  # n d, the output weights as stored
    # [d] or a number: w_out is w_mlp · write_gain, centred if the final norm is LayerNorm. It is the factor on what is
    # added to the stream, times the gain of a norm after the MLP.
    write_gain: jax.Array | float

    def of(self, neurons: ArrayLike) -> "Readout":
        """The readout with the write directions of some neurons alone, int [n]."""
        return dataclasses.replace(self, w_out=self.w_out[neurons], w_mlp=self.w_mlp[neurons])


def readout(config: DecoderConfig, params: Params, convention: Convention = "paper") -> Readout:
    """The last layer's readout, float32. Changes nothing in `params`.

    "paper": the final norm's gain and bias and the factor on the logits are folded into W_U and b_U; the factor on what
    is added to the stream, and the gain of a norm after the MLP, are folded into the write directions. In LayerNorm
    models, each column of W_U and each write direction loses its mean over d, which the norm ignores; not so without a
    final norm. W_U and b_U lose their mean over the vocabulary, which the softmax ignores, unless logits are
    soft-capped. "raw": weights as stored.
    """
    return _readout(config, params, convention)


# JAX would compile a function with a default twice: for callers who leave the argument out, and for those who do not.
@functools.partial(jax.jit, static_argnames=("config", "convention"))
def _readout(config: DecoderConfig, params: Params, convention: Convention) -> Readout:
    W_U = unembedding(config, params).astype(jnp.float32)
    b_U = params["unembed"]["b"].astype(jnp.float32) if config.head_bias else jnp.zeros(W_U.shape[1])
    writes = _writes(config, params, convention, -1)
    if convention == "raw":
        return Readout(W_U, b_U, *writes)
    with jax.default_matmul_precision("highest"):
        if config.final.norm_bias:
            b_U = b_U + final_norm(config, params)["bias"].astype(jnp.float32) @ W_U
    W_U, b_U = _folded(config, params, W_U), b_U * config.logit_scale
    if config.logit_softcap is None:
        W_U, b_U = W_U - W_U.mean(1, keepdims=True), b_U - b_U.mean()
    return Readout(W_U, b_U, *writes)


def at_layer(config: DecoderConfig, params: Params, seen: Readout, convention: Convention, layer: int) -> Readout:
    """The readout `seen` with the write directions of `layer`, which need not be the last."""
    w_out, w_mlp, write_gain = _writes(config, params, convention, layer)
    return dataclasses.replace(seen, w_out=w_out, w_mlp=w_mlp, write_gain=write_gain)


def of_directions(config: DecoderConfig, seen: Readout, convention: Convention, w: jax.Array) -> Readout:
    """The readout `seen` with directions `w` [n d] that are added to the last stream in the neurons' place."""
    return dataclasses.replace(
        seen, w_out=centre(config.final, w) if convention == "paper" else w, w_mlp=w, write_gain=1.0
    )


@functools.partial(jax.jit, static_argnames=("config", "convention"))
def _writes(
    config: DecoderConfig, params: Params, convention: Convention, layer: int
) -> tuple[jax.Array, jax.Array, jax.Array | float]:
    """A readout's w_out, w_mlp and write_gain."""
    w_mlp = params["blocks"]["mlp"]["w_out"][layer].astype(jnp.float32)
    if convention == "raw":
        return w_mlp, w_mlp, 1.0
    write_gain: jax.Array | float = config.residual_scale
    if config.norm_place in ("post", "both"):
        write_gain = write_gain * gain(config, layer_norm(params, "ln2_post", layer))
    return centre(config.final, w_mlp * write_gain), w_mlp, write_gain


def unit(w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Directions w [n d] scaled to length 1 (rows of 0 stay 0), and their lengths [n]."""
    length = jnp.linalg.norm(w, axis=1)
    return w / jnp.where(length > 0, length, 1)[:, None], length


def convention_notes(config: DecoderConfig) -> list[str]:
    """What is special about the paper's convention for this model, and why: a sentence each."""
    notes = []
    if config.logit_softcap is not None:
        notes.append(
            "The logits are soft-capped, so adding the same number to all of them changes predictions: "
            "W_U keeps its mean over the vocabulary."
        )
    if config.norm_place in ("post", "both"):
        notes.append(
            "A norm follows the MLP, so a write direction is the norm's gain times the neuron's output weights."
        )
    if not config.final_norm:
        notes.append(
            "There is no final norm, so nothing is folded into W_U, and W_U and the write directions keep their mean "
            "over the width."
        )
    elif config.norm == "rms":
        notes.append("RMSNorm depends on the mean over the width, so W_U and the write directions keep that mean.")
    if config.final_norm and not config.norm_gain:
        notes.append("The final norm has no parameters, so nothing of it is folded into W_U.")
    if config.final_norm and config.frozen_scale is not None:
        notes.append("The norms divide by a constant, so nothing acts through the scale of the final norm.")
    if config.norm_place == "sum":
        notes.append("The last layer's second norm takes the final norm's place.")
    if config.d_embed is not None:
        notes.append("W_U is the projection from the stream times the unembedding.")
    return notes


def _folded(config: DecoderConfig, params: Params, columns: jax.Array) -> jax.Array:
    """Columns of W_U, or means of columns, [d …], folded; only the mean over the vocabulary is not subtracted."""
    columns = columns * jnp.asarray(gain(config.final, final_norm(config, params)), columns.dtype)[..., None]
    return centre(config.final, (columns * config.logit_scale).T).T


class Spectrum(NamedTuple):
    """The singular values of W_U, largest first, and their left singular vectors."""

    values: np.ndarray  # float64 [D]
    vectors: np.ndarray  # float64 [d D]


def spectrum(config: DecoderConfig, params: Params, convention: Convention = "paper") -> Spectrum:
    """Singular values and left singular vectors of the (folded) unembedding, in float64 throughout.

    The small singular values matter most. A Gram matrix in float32 would lose them; one in float64 keeps them down to
    1e-7 of the largest. In the paper's convention, the all-ones direction is left out if the final norm is LayerNorm,
    so that D = d − 1: the norm removes it, and its singular value is 0.
    """
    with jax.enable_x64(True):
        gram = fetched(_gram(config, params, convention))
    hidden = convention == "paper" and config.final.norm == "layer"
    if hidden:
        basis = _complement_of_ones(config.d_model)
        gram = basis.T @ gram @ basis
    squares, vectors = np.linalg.eigh(gram)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    return Spectrum(np.sqrt(np.maximum(squares, 0)), basis @ vectors if hidden else vectors)


@functools.partial(jax.jit, static_argnames=("config", "convention"))
def _gram(config: DecoderConfig, params: Params, convention: Convention) -> jax.Array:
    """W_U·W_Uᵀ [d d], summed over blocks of the vocabulary, since all of W_U in float64 would be the largest array."""
    W_U = unembedding(config, params, jnp.float64)
    d, V = W_U.shape
    size = min(BLOCK, V)
    centred = convention == "paper" and config.logit_softcap is None
    mean = _folded(config, params, W_U.mean(1, keepdims=True, dtype=jnp.float64)) if centred else 0

    def add(i: jax.Array, gram: jax.Array) -> jax.Array:
        begin = jnp.minimum(i * size, V - size)  # the last block begins early, so that all have one shape
        block = jax.lax.dynamic_slice(W_U, (0, begin), (d, size)).astype(jnp.float64)
        if convention == "paper":
            block = _folded(config, params, block) - mean
        block = jnp.where(begin + jnp.arange(size) >= i * size, block, 0)  # without columns of the block before
        return gram + block @ block.T

    return jax.lax.fori_loop(0, -(-V // size), add, jnp.zeros((d, d), jnp.float64))


def _complement_of_ones(d: int) -> np.ndarray:
    """An orthonormal basis [d d-1] of the complement of the all-ones direction: columns of a Householder matrix."""
    v = np.full(d, d**-0.5)
    v[0] += 1.0
    return (np.eye(d) - 2 * np.outer(v, v) / (v @ v))[:, 1:]

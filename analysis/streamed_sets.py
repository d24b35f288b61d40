"""What the logits of windows with neuron sets ablated are formed from, in blocks of the vocabulary.

Letters: c set, s window, t position, d model width, v vocabulary, k neuron of a set; B blocks of the vocabulary. Where
arrays of one set are [s t], those of several sets are [c s t]. The logits of a set are formed in one of two ways, block
by block:

* from the stream x that enters the final norm, as x·W_U, which costs d·v for each position;
* for sets of the last layer by algebra (`jaxconf.analysis.ablated_sets`), as A + β·P + Σ_k δ_k·M_k, which costs k·v,
  since all sets share A and P. M = w·W_U is computed for each set, once for all positions.

`jaxconf.analysis.set_sums` sums over the blocks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.blocks import Size
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.softmax_sums import FAR
from jaxconf.analysis.unembedding import Readout
from jaxconf.analysis.whole_logits import Prediction, prediction
from jaxconf.models.config import DecoderConfig
from jaxconf.models.norms import centre, norm_scale
from jaxconf.models.softcap import capped

BLOCK = Size("set_v")


class Unembedded(NamedTuple):
    """The unablated predictions, which those of all sets are compared with."""

    x: jax.Array  # s t d: the stream that enters the final norm, centred
    inv: jax.Array  # s t: 1/σ of the final norm
    top: jax.Array  # int s t: the most likely token
    target: jax.Array  # int s t: the token that follows
    columns: tuple[jax.Array, jax.Array]  # s t d each: W_U of these two tokens
    along_u: jax.Array | None  # s t: Σ u·z, for soft-capped logits


class Shared(NamedTuple):
    """What sets of the last layer share, float32 [B v s t] each."""

    A: jax.Array  # the top token and the target have no weight in it
    P: jax.Array | None  # with a norm after the MLP


class Written(NamedTuple):
    """What a set of the last layer changes in the stream: β·p + Σ_k δ_k·w_k."""

    beta: jax.Array | None  # s t
    delta: jax.Array  # s t k
    w: jax.Array  # k d


class Moved(NamedTuple):
    """The model with one set ablated."""

    x: jax.Array  # s t d: the stream that enters the final norm, centred
    # s t d: that stream with the norms below the final one frozen, for the effect with the norms frozen, if they are
    frozen: jax.Array | None
    written: Written | None  # of a set of the last layer


class Blocks(NamedTuple):
    """How the vocabulary is split. The last block begins early: tokens that the block before it has do not count."""

    size: int
    begins: jax.Array  # int [B]
    counts: jax.Array  # bool [B v]

    @classmethod
    def of(cls, V: int) -> "Blocks":
        count = -(-V // int(BLOCK))
        size = -(-V // count)
        starts = jnp.arange(count) * size
        begins = jnp.minimum(starts, V - size)
        return cls(size, begins, begins[:, None] + jnp.arange(size) >= starts[:, None])

    def part(self, x: jax.Array, begin: jax.Array, axis: int = -1) -> jax.Array:
        return lax.dynamic_slice_in_dim(x, begin, self.size, axis)


def unembedded(
    config: DecoderConfig, readout: Readout, frequency: Frequency, x: jax.Array, target: jax.Array
) -> tuple[Unembedded, Prediction]:
    """The unablated predictions from the stream `x` [s t d].

    `readout`: in the paper's convention. `target`: the tokens that follow, int [s t].
    """
    with jax.default_matmul_precision("highest"):
        x = centre(config.final, x.astype(jnp.float32))
        inv = 1 / norm_scale(config.final, x)
        logits = whole_logits(config, readout, x, inv[..., 0])
        found = prediction(logits, frequency, target)
        along_u = None if config.logit_softcap is None else logits @ frequency.u
    columns = jnp.moveaxis(readout.W_U[:, found.top], 0, -1), jnp.moveaxis(readout.W_U[:, target], 0, -1)
    return Unembedded(x, inv[..., 0], found.top, target, columns, along_u), found


def whole_logits(config: DecoderConfig, readout: Readout, x: jax.Array, inv: jax.Array) -> jax.Array:
    """The logits [s t v] of a stream [s t d] that is centred; `inv` [s t]: 1/σ."""
    with jax.default_matmul_precision("highest"):
        return capped(x @ readout.W_U * inv[..., None] + readout.b_U, config.logit_softcap)


def shared(readout: Readout, before: Unembedded, p: jax.Array | None) -> Shared:
    """What sets of the last layer share. `p` [s t d]: what the MLP adds to the stream after its norm, centred."""
    blocks = Blocks.of(readout.W_U.shape[1])
    with jax.default_matmul_precision("highest"):
        A = lax.map(
            lambda begin: without_named(before, begin, product(blocks, readout, begin, before.x)), blocks.begins
        )
        P = None if p is None else lax.map(lambda begin: product(blocks, readout, begin, p), blocks.begins)
    return Shared(A, P)


def product(blocks: Blocks, readout: Readout, begin: jax.Array, x: jax.Array) -> jax.Array:
    """x·W_U of a block, [v s t]."""
    return jnp.einsum("dv,...d->v...", blocks.part(readout.W_U, begin), x)


def without_named(before: Unembedded, begin: jax.Array, a: jax.Array) -> jax.Array:
    """A block of A, [v s t], in which the top token and the target have no weight."""
    ids = (begin + jnp.arange(len(a))).reshape(-1, *[1] * (a.ndim - 1))
    return jnp.where((ids == before.top) | (ids == before.target), FAR / before.inv, a)

"""Predictions of windows with neuron sets ablated, from sums over blocks of the vocabulary: no logits are stored.

Letters: c set, s window, t position, d model width, v vocabulary, k neuron of a set; B blocks of the vocabulary, in g
chunks of U tokens each. Where arrays of one set are [s t], those of several sets are [c s t]. The logits of a set are
formed in one of two ways, block by block:

* from the stream x that enters the final norm, as x·W_U, which costs d·v for each position;
* for sets of the last layer by algebra (`jaxconf.analysis.ablated_sets`), as A + β·P + Σ_k δ_k·M_k, which costs k·v,
  since all sets share A and P. M = w·W_U is computed for each set, once for all positions.

The sums of the three effects are those of `jaxconf.analysis.softmax_sums`. The adaptive engine has no form for sets:
its second order alone would need |set|²/2 products.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.blocks import Size
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.softmax_sums import FAR, Sums, Tile, Token, swept
from jaxconf.analysis.unembedding import Readout
from jaxconf.analysis.whole_logits import Changes, Prediction, prediction
from jaxconf.models.config import DecoderConfig
from jaxconf.models.norms import centre, norm_scale
from jaxconf.models.softcap import capped

BLOCK, UNROLL = Size("set_v"), Size("set_unroll")


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
    chunk: int
    begins: jax.Array  # int [B]
    counts: jax.Array  # bool [B v]

    @classmethod
    def of(cls, V: int) -> "Blocks":
        chunk = min(int(UNROLL), V)
        # Blocks are whole chunks, and none is larger than the vocabulary: one that is no whole chunks needs two.
        count = max(-(-V // int(BLOCK)), 1 + (V % chunk > 0))
        size = -(-V // (count * chunk)) * chunk
        starts = jnp.arange(count) * size
        begins = jnp.minimum(starts, V - size)
        return cls(size, chunk, begins, begins[:, None] + jnp.arange(size) >= starts[:, None])

    def chunks(self, x: jax.Array) -> jax.Array:
        """A block [v …] in chunks [g U …]."""
        return x.reshape(-1, self.chunk, *x.shape[1:])

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


def sums_of_set(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    before: Unembedded,
    parts: Shared | None,
    moved: Moved,
) -> tuple[Sums, jax.Array]:
    """The sums of the three effects of a set, and 1/σ of the final norm with the set ablated, [s t].

    `parts`: for sets of the last layer.
    """
    with jax.default_matmul_precision("highest"):
        tile, named = _tile(config, before, moved), _named(config, readout, frequency, before, moved)
        if config.logit_softcap is None:
            along_u, along_f = readout.W_U @ frequency.u, readout.W_U @ frequency.f
            tile = dataclasses.replace(tile, kappa=before.x @ along_u * before.inv - moved.x @ along_u * tile.inv_te)
        sweep = _sweep(readout, frequency, before, parts, moved)
        sums = swept(sweep, tile, named, before.top == before.target, before.along_u)
        if sums.mean_f is None:
            sums = sums._replace(mean_f=moved.x @ along_f * tile.inv_te + readout.b_U @ frequency.f)
        return sums, tile.inv_te


def changes_of_set(
    config: DecoderConfig, before: Prediction, base: tuple[Sums, jax.Array], ablated: tuple[Sums, jax.Array]
) -> Changes:
    """The changes from `base` to `ablated`, both from `sums_of_set`; `before`: the unablated predictions."""
    (was, inv), (now, inv_te) = base, ablated
    was_f, now_f = was.mean_f, now.mean_f
    assert was_f is not None
    assert now_f is not None
    return Changes(
        loss=(now.lse_te - now.target_te) - (was.lse_te - was.target_te),
        loss_ln_frozen=(now.lse_ln - now.target_ln) - (was.lse_ln - was.target_ln),
        loss_freq_frozen=(now.lse_fr - now.target_fr) - (was.lse_fr - was.target_fr),
        entropy=(now.lse_te - now.mean_te) - (was.lse_te - was.mean_te),
        entropy_ln_frozen=(now.lse_ln - now.mean_ln) - (was.lse_ln - was.mean_ln),
        kl_freq=(now.lse_te - was.lse_te) - (now_f - was_f),
        top=now.top_changed,
        reciprocal_rank=1 / (1 + now.n_above_target) - 1 / before.rank,
        scale=inv / inv_te - 1,
        norm=config.d_model**0.5 * (1 / inv_te - 1 / inv),
    )


def _tile(config: DecoderConfig, before: Unembedded, moved: Moved) -> Tile:
    """The coefficients of a set's logits, without κ; the cells are the windows and positions."""
    inv = 1 / norm_scale(config.final, moved.x)[..., 0]
    beta = None if moved.written is None else moved.written.beta
    write = inv if moved.frozen is None else jnp.zeros_like(inv)
    return Tile(inv, before.inv, beta, write, before.inv, None, config.logit_softcap)


def _named(
    config: DecoderConfig, readout: Readout, frequency: Frequency, before: Unembedded, moved: Moved
) -> list[Token]:
    """The top token and the target, whose a is already that of the ablated model."""

    def of(ids: jax.Array, columns: jax.Array) -> Token:
        a = jnp.sum(moved.x * columns, -1)
        m = jnp.zeros_like(a) if moved.frozen is None else jnp.sum((moved.frozen - moved.x) * columns, -1)
        return Token(a, None, m, *(x[ids] for x in (readout.b_U, frequency.u, frequency.f)))

    return [of(ids, columns) for ids, columns in zip((before.top, before.target), before.columns, strict=True)]


def _sweep(
    readout: Readout, frequency: Frequency, before: Unembedded, parts: Shared | None, moved: Moved
) -> Callable[..., Any]:
    """A `softmax_sums.Sweep` over all tokens but the named ones."""
    blocks = Blocks.of(readout.W_U.shape[1])

    def tokens(begin: jax.Array, counts: jax.Array, own: Shared | None) -> Token:
        b, u, f = (blocks.part(x, begin) for x in (readout.b_U, frequency.u, frequency.f))
        of_vocabulary = jnp.where(counts, b, FAR), jnp.where(counts, u, 0), jnp.where(counts, f, 0)
        offsets = [x.reshape(-1, *[1] * (moved.x.ndim - 1)) for x in of_vocabulary]
        if own is not None and moved.written is not None:
            M = moved.written.w @ blocks.part(readout.W_U, begin)  # k v
            return Token(own.A, own.P, jnp.einsum("kv,stk->vst", M, moved.written.delta), *offsets)
        a = without_named(before, begin, product(blocks, readout, begin, moved.x))
        if moved.frozen is None:
            return Token(a, None, jnp.zeros_like(offsets[0]), *offsets)
        return Token(a, None, product(blocks, readout, begin, moved.frozen - moved.x), *offsets)

    def sweep(start: Any, step: Callable[[Any, Any], Any], merge: Callable[[Any, Any], Any]) -> Any:
        def block(total: Any, x: Any) -> tuple[Any, None]:
            begin, counts, own = x
            chunks = jax.tree.map(blocks.chunks, tokens(begin, counts, own))
            part, _ = lax.scan(lambda carry, chunk: (step(carry, chunk), None), start, chunks)
            return merge(total, part), None

        return lax.scan(block, start, (blocks.begins, blocks.counts, parts))[0]

    return sweep


def product(blocks: Blocks, readout: Readout, begin: jax.Array, x: jax.Array) -> jax.Array:
    """x·W_U of a block, [v s t]."""
    return jnp.einsum("dv,...d->v...", blocks.part(readout.W_U, begin), x)


def without_named(before: Unembedded, begin: jax.Array, a: jax.Array) -> jax.Array:
    """A block of A, [v s t], in which the top token and the target have no weight."""
    ids = (begin + jnp.arange(len(a))).reshape(-1, *[1] * (a.ndim - 1))
    return jnp.where((ids == before.top) | (ids == before.target), FAR / before.inv, a)

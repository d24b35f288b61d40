"""Losses, entropies and calibration of windows with neuron sets ablated, from sums over blocks of the vocabulary.

Letters: c set, s window, q position, r both in one axis, d model width, v vocabulary, k neuron of a set; B blocks of
the vocabulary. No logits of sets are stored. Sets of the last layer are summed one after the other for each block, so
that what they share is read once; of other sets, whose streams are multiplied by W_U, all are summed together.
`jaxconf.analysis.streamed_sets` says how the logits of a set are formed. Its own sums are those of the three effects;
studies of loss, entropy and calibration need those of this module, which are fewer.

Two sums over tokens are the halves of one complex number, because XLA computes the exponentials again for each sum.
This was measured on a CPU.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.calibration import Predicted
from jaxconf.analysis.softmax_sums import FAR, NEVER, attempted
from jaxconf.analysis.streamed_sets import Blocks, Moved, Shared, Unembedded, Written, product, without_named
from jaxconf.analysis.temperature import Change
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.norms import norm_scale
from jaxconf.models.softcap import capped


class Line(NamedTuple):
    """A set's logits z = y/σ' + b, [s q] each, or those of several sets, [c s q].

    y is x·W_U, or for a set of the last layer A + β·P + Σ_k δ_k·M_k.
    """

    inv: jax.Array  # 1/σ'
    top: jax.Array  # y of the unablated model's most likely token
    target: jax.Array  # y of the token that follows
    x: jax.Array | None  # s q d
    written: Written | None


class Loss(NamedTuple):
    """Of models with a set ablated, [c s q]; nats."""

    loss: jax.Array
    entropy: jax.Array


class Reference(NamedTuple):
    """Predictions that those of all sets are compared with token by token; nats."""

    lp: jax.Array  # B v s q: log-probabilities; 0 where a token is ruled out
    P: jax.Array  # B v s q: probabilities; 0 for the top token and the target, and where a block does not count a token
    named: tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]  # s q: lp and P of the top token and target
    mean: jax.Array  # s q: Σ P·lp


class Beside(NamedTuple):
    """The predictions with a set ablated, and their change from the reference; nats."""

    predicted: Predicted
    change: Change


class Tokens(NamedTuple):
    """A block of tokens, for a set of the last layer or for all other sets. The two named tokens are not among them."""

    y: jax.Array  # v r, or for several sets v c r
    b: jax.Array  # v 1 …


def line(config: DecoderConfig, before: Unembedded, moved: Moved) -> Line:
    """The logits of a set. All norms react to its ablation, but the final one need not."""
    assert moved.frozen is None
    inv = 1 / norm_scale(config.final, moved.x)[..., 0]
    top, target = (jnp.sum(moved.x * columns, -1) for columns in before.columns)
    return Line(inv, top, target, moved.x if moved.written is None else None, moved.written)


def reference(before: Unembedded, lp: jax.Array) -> Reference:
    """The reference with these log-probabilities, [s q v]; -inf where a token is ruled out."""
    blocks = Blocks.of(lp.shape[-1])

    def both(lp: jax.Array) -> tuple[jax.Array, jax.Array]:
        P = jnp.exp(lp)
        return jnp.where(P > 0, lp, 0), P

    def block(of: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        begin, counts = of
        ids, (own, P) = begin + jnp.arange(blocks.size), both(jnp.moveaxis(blocks.part(lp, begin), -1, 0))
        ids, counts = ids[:, None, None], counts[:, None, None]
        return own, jnp.where(counts & (ids != before.top) & (ids != before.target), P, 0)

    def of(ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        return both(jnp.take_along_axis(lp, ids[..., None], -1)[..., 0])

    finite, P = both(lp)
    lp_blocks, P_blocks = lax.map(block, (blocks.begins, blocks.counts))
    return Reference(lp_blocks, P_blocks, (of(before.top), of(before.target)), jnp.sum(P * finite, -1))


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions of windows with each of some sets ablated."""

    config: DecoderConfig
    readout: Readout
    before: Unembedded
    parts: Shared | None  # for sets of the last layer
    lines: Line  # c s q

    def losses(self, *scales: jax.Array) -> list[Loss]:
        """The losses and entropies with each of these scales 1/σ of the final norm, [s q] or [c s q]."""
        with jax.default_matmul_precision("highest"):
            invs = [jnp.broadcast_to(inv, self.lines.inv.shape) for inv in scales]
            top, target = ([self._named(i, inv) for inv in invs] for i in (0, 1))

            def terms(z: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
                e = jnp.exp(z - shift)
                return e, (z - shift) * e

            def step(tokens: Tokens, of_set: Any, _: None) -> Any:
                return [
                    _over_tokens(*terms(self._logits(tokens, inv), shift)) for inv, shift in zip(*of_set, strict=True)
                ]

            def sums(shifts: list[jax.Array]) -> Any:
                of_named = ([terms(*of) for of in zip(z, shifts, strict=True)] for z in (top, target))
                return shifts, self._with_named(self._over_blocks((invs, shifts), None, step, _added), *of_named)

            shifts, found = attempted(sums, top, lambda _: self._largest(invs, top, target), _total)
            return [
                Loss(shift - z + jnp.log(S), jnp.log(S) - Q / S)
                for shift, z, (S, Q) in zip(shifts, target, found, strict=True)
            ]

    def beside(self, of: Reference) -> Beside:
        """The predictions beside the reference, [c s q]."""
        with jax.default_matmul_precision("highest"):
            inv = self.lines.inv
            top, target = (self._named(i, inv) for i in (0, 1))
            (lp_top, _), _ = of.named

            def terms(z: jax.Array, c: jax.Array, P: jax.Array, z_top: jax.Array, shift: jax.Array) -> Any:
                e = jnp.exp(z - shift)
                y = (z - z_top) - c  # what the log-probability gains, more than the top token's
                return e, (z - shift) * e, e * e, P * y, P * y * y, P * y * c

            def step(tokens: Tokens, of_set: Any, of_tokens: tuple[jax.Array, jax.Array]) -> Any:
                (inv, z_top, shift), (lp, P) = of_set, of_tokens
                z = self._logits(tokens, inv)
                found = terms(z, lp - lp_top.reshape(-1), P, z_top, shift)
                return _over_tokens(*found), (z - shift).max(0)

            def merge(x: Any, y: Any) -> Any:
                return _added(x[0], y[0]), jnp.maximum(x[1], y[1])

            def sums(shift: jax.Array) -> Any:
                found, above = self._over_blocks((inv, top, shift), (of.lp, of.P), step, merge)
                pairs = zip((top, target), of.named, strict=True)
                of_named = (terms(z, lp - lp_top, P, top, shift) for z, (lp, P) in pairs)
                return shift, shift + above, self._with_named(found, *of_named)

            shift, largest, found = attempted(sums, jnp.maximum(top, target), lambda found: found[1], _total)
            return _beside(of, found, top, target, shift, largest)

    def _logits(self, tokens: Tokens, inv: jax.Array) -> jax.Array:
        """z of tokens. Those without weight keep theirs, which are not soft-capped."""
        z, cap = tokens.y * inv + tokens.b, self.config.logit_softcap
        return z if cap is None else jnp.where(z < NEVER, z, capped(z, cap))

    def _named(self, which: int, inv: jax.Array) -> jax.Array:
        """z of the top token (0) or of the target (1), [c s q]."""
        ids, y = ((self.before.top, self.lines.top), (self.before.target, self.lines.target))[which]
        return capped(y * inv + self.readout.b_U[ids], self.config.logit_softcap)

    def _with_named(self, sums: Any, of_top: Any, of_target: Any) -> Any:
        """The sums over all tokens, from those over the blocks and the terms of the top token and of the target."""
        differ = self.before.top != self.before.target
        return jax.tree.map(lambda x, top, target: x + top + jnp.where(differ, target, 0), sums, of_top, of_target)

    def _largest(self, invs: Any, top: Any, target: Any) -> list[jax.Array]:
        """The largest z of all tokens at each scale, [c s q]."""
        least = [jnp.maximum(*named) for named in zip(top, target, strict=True)]

        def step(tokens: Tokens, of_set: Any, _: None) -> list[jax.Array]:
            return [(self._logits(tokens, inv) - least).max(0) for inv, least in zip(*of_set, strict=True)]

        above = self._over_blocks((invs, least), None, step, lambda x, y: jax.tree.map(jnp.maximum, x, y))
        return _added(least, above)

    def _over_blocks(self, of_sets: Any, of_tokens: Any, step: Callable[..., Any], merge: Callable[..., Any]) -> Any:
        """Folds `merge`, from zeros, over the blocks' results of `step(tokens, of_set, of_tokens)`, a tree of [r].

        `of_sets`: arrays [c s q]. `of_tokens`: arrays [B v s q]. Returns arrays [c s q].
        """
        readout, before, written, cells = self.readout, self.before, self.lines.written, self.before.inv.shape
        blocks = Blocks.of(readout.W_U.shape[1])

        def flat(x: Any) -> Any:
            """Arrays [… s q] as [… r]."""
            return jax.tree.map(lambda x: x.reshape(*x.shape[:-2], -1), x)

        def block(begin: jax.Array, counts: jax.Array, own: Shared | None, further: Any) -> Any:
            b = jnp.where(counts, blocks.part(readout.b_U, begin), FAR)[:, None]
            if written is None:
                assert self.lines.x is not None
                y = flat(without_named(before, begin, product(blocks, readout, begin, self.lines.x)))  # v c r
                return step(Tokens(y, b[..., None]), flat(of_sets), jax.tree.map(lambda x: x[:, None], flat(further)))

            assert own is not None

            def of_set(each: tuple[Written, jax.Array, Any]) -> Any:
                (beta, delta, _), M, arrays = each
                y = flat(own.A if beta is None or own.P is None else own.A + beta * own.P)
                return step(Tokens(y + M.T @ delta.reshape(-1, len(M)).T, b), arrays, flat(further))

            M = jnp.einsum("ckd,dv->ckv", written.w, blocks.part(readout.W_U, begin))
            return lax.map(of_set, (written, M, flat(of_sets)))

        each = blocks.begins, blocks.counts, self.parts, of_tokens
        shapes = jax.eval_shape(lambda *each: block(*jax.tree.map(lambda x: x[0], each)), *each)
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        found = lax.scan(lambda total, x: (merge(total, block(*x)), None), start, each)[0]
        return jax.tree.map(lambda x: x.reshape(-1, *cells), found)


def _over_tokens(*terms: jax.Array) -> tuple[jax.Array, ...]:
    """The sums of an even number of terms over the tokens of a block: from [v …] each to […]."""
    pairs = [lax.complex(*pair).sum(0) for pair in zip(terms[::2], terms[1::2], strict=True)]
    return tuple(part for pair in pairs for part in (lax.real(pair), lax.imag(pair)))


def _added(x: Any, y: Any) -> Any:
    return jax.tree.map(jnp.add, x, y)


def _total(sums: Any) -> jax.Array:
    return sum(jax.tree.leaves(sums), jnp.float32(0))


def _beside(
    of: Reference, sums: Any, z_top: jax.Array, z_target: jax.Array, shift: jax.Array, largest: jax.Array
) -> Beside:
    S, Q, squares, first, second, crossed = sums
    (lp_top, _), _ = of.named
    loss = shift - z_target + jnp.log(S)
    brier = squares / S**2 - 2 * jnp.exp(-loss) + 1
    gained = z_top - shift - jnp.log(S) - lp_top  # by the top token's log-probability
    change = Change(
        mean=first + gained,
        square=second + 2 * gained * first + gained**2,
        along=crossed - (of.mean - lp_top) * first,
    )
    confidence = jnp.exp(largest - shift) / S
    return Beside(Predicted(loss, jnp.log(S) - Q / S, brier, confidence, z_target >= largest), change)

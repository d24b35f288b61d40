"""Sums over blocks of the vocabulary, for windows with neuron sets ablated.

Letters: c set, s window, q position, r both in one axis, d model width, v vocabulary, k neuron of a set; B blocks of
the vocabulary. No logits of sets are stored. Sets of the last layer are summed one after the other for each block, so
that what they share is read once; of other sets, whose streams are multiplied by W_U, all are summed together.
`jaxconf.analysis.streamed_sets` says how the logits of a set are formed.

Two sums over tokens are the halves of one complex number, because XLA computes the exponentials for each sum again.
This was measured on a CPU. There is no adaptive engine for sets: its second order alone would need |set|²/2 products.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.softmax_sums import FAR, NEVER
from jaxconf.analysis.streamed_sets import Blocks, Moved, Shared, Unembedded, Written, product, without_named
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.norms import norm_scale
from jaxconf.models.softcap import capped


class Line(NamedTuple):
    """What a set's logits z = y/σ' + b are formed from, before a soft cap: [s q] each, or of several sets [c s q].

    y is x·W_U, or for a set of the last layer A + β·P + Σ_k δ_k·M_k.
    """

    inv: jax.Array  # 1/σ'
    top: jax.Array  # y of the unablated model's most likely token
    target: jax.Array  # y of the token that follows
    x: jax.Array | None  # s q d
    written: Written | None


class Tokens(NamedTuple):
    """A block of tokens, for a set of the last layer or for all other sets.

    The unablated model's most likely token and the one that follows have no weight in it. `SetSums` adds these two.
    """

    y: jax.Array  # v r, or for several sets v c r
    frozen: jax.Array  # the same with the norms below the final one frozen, if they are, and else y
    b: jax.Array  # v 1 …


def line(config: DecoderConfig, before: Unembedded, moved: Moved) -> Line:
    """`Line` of a set, from the stream that enters the final norm, which reacts to the ablation."""
    assert moved.frozen is None
    inv = 1 / norm_scale(config.final, moved.x)[..., 0]
    top, target = (jnp.sum(moved.x * columns, -1) for columns in before.columns)
    return Line(inv, top, target, moved.x if moved.written is None else None, moved.written)


@dataclasses.dataclass(frozen=True)
class SetSums:
    """Windows with each of some sets ablated, and sums over their logits."""

    config: DecoderConfig
    readout: Readout
    before: Unembedded
    parts: Shared | None  # for sets of the last layer
    lines: Line  # c s q
    frozen: Line | None = None  # c s q: with the norms below the final one frozen too, if they are

    def _logits(self, y: jax.Array, b: jax.Array, inv: jax.Array) -> jax.Array:
        """z of tokens. Those without weight keep theirs, which are not soft-capped."""
        z, cap = y * inv + b, self.config.logit_softcap
        return z if cap is None else jnp.where(z < NEVER, z, capped(z, cap))

    def _named(self, lines: Line, inv: jax.Array) -> tuple[jax.Array, ...]:
        """z of the top token and of the target, [c s q]."""
        both = (self.before.top, lines.top), (self.before.target, lines.target)
        return tuple(capped(y * inv + self.readout.b_U[ids], self.config.logit_softcap) for ids, y in both)

    @property
    def _differ(self) -> jax.Array:
        """Whether the top token is not the target, bool [s q]."""
        return self.before.top != self.before.target

    def _with_named(self, sums: Any, of_top: Any, of_target: Any) -> Any:
        """The sums over all tokens, from those over the blocks and the terms of the top token and of the target."""

        def of_all(x: jax.Array, top: jax.Array, target: jax.Array) -> jax.Array:
            return x + top + jnp.where(self._differ, target, 0)

        return jax.tree.map(of_all, sums, of_top, of_target)

    def _largest(self, logits: Callable[..., Any], of_sets: Any, of_tokens: Any, top: Any, target: Any) -> Any:
        """The largest z of all tokens, [c s q] each, where `logits(tokens, of_set, of_tokens)` gives a tuple of z.

        `top`, `target`: z of the top token and of the target. The other arguments are as for `_over_blocks`.
        """
        least = tuple(jnp.maximum(*named) for named in zip(top, target, strict=True))

        def step(tokens: Tokens, of_set: Any, of_tokens: Any) -> tuple[jax.Array, ...]:
            own, least = of_set
            return tuple((z - low).max(0) for z, low in zip(logits(tokens, own, of_tokens), least, strict=True))

        above = self._over_blocks((of_sets, least), of_tokens, step, lambda x, y: jax.tree.map(jnp.maximum, x, y))
        return added(least, above)

    def _over_blocks(self, of_sets: Any, of_tokens: Any, step: Callable[..., Any], merge: Callable[..., Any]) -> Any:
        """Folds `merge`, from zeros, over the blocks' results of `step(tokens, of_set, of_tokens)`.

        A result is a tree of arrays [r], or [c r] for sets whose layers above are run again. `of_sets`: arrays [c s q].
        `of_tokens`: arrays [B v s q] or [B v 1 1]. Returns arrays [c s q].
        """
        readout, before, written, cells = self.readout, self.before, self.lines.written, self.before.inv.shape
        blocks = Blocks.of(readout.W_U.shape[1])

        def flat(x: Any) -> Any:
            """Arrays [… s q] as [… r]."""
            return jax.tree.map(lambda x: x.reshape(*x.shape[:-2], -1), x)

        def block(begin: jax.Array, counts: jax.Array, own: Shared | None, further: Any) -> Any:
            b = jnp.where(counts, blocks.part(readout.b_U, begin), FAR)[:, None]
            if written is None:

                def formed(lines: Line) -> jax.Array:  # v c r
                    assert lines.x is not None
                    return flat(without_named(before, begin, product(blocks, readout, begin, lines.x)))

                y = formed(self.lines)
                tokens = Tokens(y, y if self.frozen is None else formed(self.frozen), b[..., None])
                return step(tokens, flat(of_sets), jax.tree.map(lambda x: x[:, None], flat(further)))

            assert own is not None
            assert self.frozen is None

            def of_set(each: tuple[Written, jax.Array, Any]) -> Any:
                (beta, delta, _), M, arrays = each
                y = flat(own.A if beta is None or own.P is None else own.A + beta * own.P)
                y += M.T @ delta.reshape(-1, len(M)).T
                return step(Tokens(y, y, b), arrays, flat(further))

            M = jnp.einsum("ckd,dv->ckv", written.w, blocks.part(readout.W_U, begin))
            return lax.map(of_set, (written, M, flat(of_sets)))

        each = blocks.begins, blocks.counts, self.parts, of_tokens
        shapes = jax.eval_shape(lambda *each: block(*jax.tree.map(lambda x: x[0], each)), *each)
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        found = lax.scan(lambda total, x: (merge(total, block(*x)), None), start, each)[0]
        return jax.tree.map(lambda x: x.reshape(-1, *cells), found)


def exponentials(z: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What is summed for a log-sum-exp and an expectation: e^q and q·e^q, where q = z − shift."""
    e = jnp.exp(z - shift)
    return e, (z - shift) * e


def over_tokens(*terms: jax.Array) -> tuple[jax.Array, ...]:
    """The sums of an even number of terms over the tokens of a block: from [v …] each to […]."""
    pairs = [lax.complex(*pair).sum(0) for pair in zip(terms[::2], terms[1::2], strict=True)]
    return tuple(part for pair in pairs for part in (lax.real(pair), lax.imag(pair)))


def added(x: Any, y: Any) -> Any:
    """The sums of two trees."""
    return jax.tree.map(jnp.add, x, y)


def sum_of_all(sums: Any) -> jax.Array:
    """The sum of the arrays of a tree, which is not finite where one of them is not."""
    return sum(jax.tree.leaves(sums), jnp.float32(0))

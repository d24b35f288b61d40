"""Losses, entropies and calibration of windows with neuron sets ablated, from sums over blocks of the vocabulary.

Letters: c set, s window, q position, v vocabulary; B blocks of the vocabulary. Studies of these
need fewer sums than those of the three effects.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.calibration import Predicted
from jaxconf.analysis.set_sums import SetSums, Tokens, added, exponentials, over_tokens, sum_of_all
from jaxconf.analysis.softmax_sums import attempted
from jaxconf.analysis.streamed_sets import Blocks, Unembedded
from jaxconf.analysis.temperature import Change


class Loss(NamedTuple):
    """Of models with a set ablated, [c s q]; nats."""

    loss: jax.Array
    entropy: jax.Array


class Reference(NamedTuple):
    """Predictions that those of all sets are compared with token by token; nats."""

    lp: jax.Array  # B v s q: log-probabilities
    P: jax.Array  # B v s q: probabilities; 0 for the top token and the target, and where a block does not count a token
    named: tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]  # s q: lp and P of the top token and target
    mean: jax.Array  # s q: Σ P·lp


class Beside(NamedTuple):
    """The predictions with a set ablated, and their change from the reference; nats."""

    predicted: Predicted
    change: Change


def reference(before: Unembedded, lp: jax.Array) -> Reference:
    """The reference with these log-probabilities, [s q v], which are finite."""
    blocks = Blocks.of(lp.shape[-1])

    def block(of: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        begin, counts = of
        ids, own = begin + jnp.arange(blocks.size), jnp.moveaxis(blocks.part(lp, begin), -1, 0)
        ids, counts = ids[:, None, None], counts[:, None, None]
        return own, jnp.where(counts & (ids != before.top) & (ids != before.target), jnp.exp(own), 0)

    def of(ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = jnp.take_along_axis(lp, ids[..., None], -1)[..., 0]
        return own, jnp.exp(own)

    lp_blocks, P_blocks = lax.map(block, (blocks.begins, blocks.counts))
    return Reference(lp_blocks, P_blocks, (of(before.top), of(before.target)), jnp.sum(jnp.exp(lp) * lp, -1))


class Predictions(SetSums):
    """The predictions of windows with each of some sets ablated."""

    def losses(self, *scales: jax.Array) -> list[Loss]:
        """The losses and entropies with each of these scales 1/σ of the final norm, [s q] or [c s q]."""
        with jax.default_matmul_precision("highest"):
            invs = [jnp.broadcast_to(inv, self.lines.inv.shape) for inv in scales]
            top, target = zip(*(self._named(self.lines, inv) for inv in invs), strict=True)

            def logits(tokens: Tokens, invs: list[jax.Array], _: None) -> list[jax.Array]:
                return [self._logits(tokens.y, tokens.b, inv) for inv in invs]

            def step(tokens: Tokens, of_set: Any, _: None) -> Any:
                invs, shifts = of_set
                return [over_tokens(*exponentials(*of)) for of in zip(logits(tokens, invs, None), shifts, strict=True)]

            def sums(shifts: tuple[jax.Array, ...]) -> Any:
                of_named = ([exponentials(*of) for of in zip(z, shifts, strict=True)] for z in (top, target))
                return shifts, self._with_named(self._over_blocks((invs, shifts), None, step, added), *of_named)

            shifts, found = attempted(sums, top, lambda _: self._largest(logits, invs, None, top, target), sum_of_all)
            return [
                Loss(shift - z + jnp.log(S), jnp.log(S) - Q / S)
                for shift, z, (S, Q) in zip(shifts, target, found, strict=True)
            ]

    def beside(self, of: Reference) -> Beside:
        """The predictions beside the reference, [c s q]."""
        with jax.default_matmul_precision("highest"):
            inv = self.lines.inv
            top, target = self._named(self.lines, inv)
            (lp_top, _), _ = of.named

            def terms(z: jax.Array, c: jax.Array, P: jax.Array, z_top: jax.Array, shift: jax.Array) -> Any:
                e = jnp.exp(z - shift)
                y = (z - z_top) - c  # what the log-probability gains, more than the top token's
                return e, (z - shift) * e, e * e, P * y, P * y * y, P * y * c

            def step(tokens: Tokens, of_set: Any, of_tokens: tuple[jax.Array, jax.Array]) -> Any:
                (inv, z_top, shift), (lp, P) = of_set, of_tokens
                z = self._logits(tokens.y, tokens.b, inv)
                found = terms(z, lp - lp_top.reshape(-1), P, z_top, shift)
                return over_tokens(*found), (z - shift).max(0)

            def merge(x: Any, y: Any) -> Any:
                return added(x[0], y[0]), jnp.maximum(x[1], y[1])

            def sums(shift: jax.Array) -> Any:
                found, above = self._over_blocks((inv, top, shift), (of.lp, of.P), step, merge)
                pairs = zip((top, target), of.named, strict=True)
                of_named = (terms(z, lp - lp_top, P, top, shift) for z, (lp, P) in pairs)
                return shift, shift + above, self._with_named(found, *of_named)

            shift, largest, found = attempted(sums, jnp.maximum(top, target), lambda found: found[1], sum_of_all)
            return _beside(of, found, top, target, shift, largest)


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

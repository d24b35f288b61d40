"""The three effects of ablating neuron sets, from sums over blocks of the vocabulary.

Letters: c set, s window, q position, v vocabulary; B blocks of the vocabulary. `jaxconf.analysis.softmax_sums` defines
the sums, κ, u and f.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.set_sums import Line, SetSums, Tokens, added, exponentials, line, over_tokens, sum_of_all
from jaxconf.analysis.softmax_sums import NEVER, Sums, attempted
from jaxconf.analysis.streamed_sets import Blocks, Moved, Shared, Unembedded
from jaxconf.analysis.unembedding import Readout
from jaxconf.analysis.whole_logits import Changes, Prediction
from jaxconf.models.config import DecoderConfig


class EffectLines(NamedTuple):
    """What the three effects of a set are computed from, or those of several sets."""

    total: Line
    frozen: Line | None  # with the norms below the final one frozen too, if they are
    along: jax.Array  # Σ u·y and Σ f·y of the total effect, [s q 2]; soft caps make them useless


class Effects(SetSums):
    """The three effects of each of some sets."""

    def sums(self, frequency: Frequency, along: jax.Array) -> Sums:
        """The sums of the three effects, [c s q]. `along`: as in `EffectLines`, [c s q 2]."""
        with jax.default_matmul_precision("highest"):
            u, f = self._of_vocabulary(frequency.u), self._of_vocabulary(frequency.f)
            kappa, mean_f = self._linear(frequency, along, u, f)
            own = self.lines.inv, jnp.broadcast_to(self.before.inv, self.lines.inv.shape), kappa
            te, ln = self._named(self.lines, own[0]), self._named(self.frozen or self.lines, own[1])
            both = zip(te, ln, (self.before.top, self.before.target), strict=True)
            top, target = ((z_te, z_ln, z_te + kappa * frequency.u[ids]) for z_te, z_ln, ids in both)

            def logits(tokens: Tokens, own: Any, u: jax.Array) -> tuple[jax.Array, ...]:
                inv, inv_ln, kappa = own
                te = self._logits(tokens.y, tokens.b, inv)
                return te, self._logits(tokens.frozen, tokens.b, inv_ln), te + kappa * u

            def terms(z: Any, shifts: Any, target: jax.Array, top: Any) -> tuple[jax.Array, ...]:
                te, ln, fr = (exponentials(*of) for of in zip(z, shifts, strict=True))
                # Its sum over a block, in whole, is how many tokens lie above the target; the rest tells whether any
                # lies above the top token. Both fit into a float32 if the block has at most 2^11 tokens.
                counts = jnp.where(z[0] > target, 1.0, 0.0) + jnp.where(z[0] > top, 0.5 / u.shape[1], 0.0)
                return *te, *ln, fr[0], counts

            def step(tokens: Tokens, of_set: Any, u: jax.Array) -> Any:
                own, shifts, target, top = of_set
                *found, counts = over_tokens(*terms(logits(tokens, own, u), shifts, target, top))
                above = jnp.floor(counts)
                return (*found, above), counts > above

            def merge(x: Any, y: Any) -> Any:
                return added(x[0], y[0]), x[1] | y[1]

            def sums(shifts: Any) -> Any:
                found, beaten = self._over_blocks((own, shifts, target[0], top[0]), u, step, merge)
                # A token is not compared with itself.
                of_named = (
                    terms(z, shifts, jnp.where(self._differ, target[0], jnp.inf), jnp.inf) for z in (top, target)
                )
                return shifts, self._with_named(found, *of_named), beaten | (self._differ & (target[0] > top[0]))

            shifts, found, beaten = attempted(
                sums, top, lambda _: self._largest(logits, own, u, top, target), lambda state: sum_of_all(state[1])
            )
            (S_te, Q_te, S_ln, Q_ln, S_fr, above), (shift_te, shift_ln, shift_fr) = found, shifts
            return Sums(
                lse_te=shift_te + jnp.log(S_te),
                mean_te=shift_te + Q_te / S_te,
                lse_ln=shift_ln + jnp.log(S_ln),
                mean_ln=shift_ln + Q_ln / S_ln,
                lse_fr=shift_fr + jnp.log(S_fr),
                target_te=target[0],
                target_ln=target[1],
                target_fr=target[2],
                mean_f=mean_f,
                n_above_target=above.astype(jnp.int32),
                top_changed=beaten,
            )

    def _of_vocabulary(self, x: jax.Array) -> jax.Array:
        """x [v] in blocks, [B v 1 1]; 0 where a block does not count a token."""
        blocks = Blocks.of(len(x))
        parts = jax.vmap(lambda begin, counts: jnp.where(counts, blocks.part(x, begin), 0))
        return parts(blocks.begins, blocks.counts)[..., None, None]

    def _linear(
        self, frequency: Frequency, along: jax.Array, u: jax.Array, f: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """κ, and Σ f·z of the total effect, [c s q]. `u`, `f`: from `_of_vocabulary`.

        κ is Σ u·z of the unablated model less that of the total effect.
        """
        before, inv = self.before, self.lines.inv
        if before.along_u is None:
            unablated = before.x @ frequency_reading(self.readout, frequency)[:, 0]
            kappa = unablated * before.inv - along[..., 0] * inv
            return kappa, along[..., 1] * inv + self.readout.b_U @ frequency.f

        def step(tokens: Tokens, inv: jax.Array, of_tokens: tuple[jax.Array, jax.Array]) -> Any:
            z = self._logits(tokens.y, tokens.b, inv)
            return over_tokens(*(x * jnp.where(z < NEVER, 0, z) for x in of_tokens))

        of_named = (
            (frequency.u[ids] * z, frequency.f[ids] * z)
            for ids, z in zip((before.top, before.target), self._named(self.lines, inv), strict=True)
        )
        found, mean_f = self._with_named(self._over_blocks(inv, (u, f), step, added), *of_named)
        return before.along_u - found, mean_f


def frequency_reading(readout: Readout, frequency: Frequency) -> jax.Array:
    """W_U·u and W_U·f, [d 2]: what reads Σ u·y and Σ f·y from a stream."""
    with jax.default_matmul_precision("highest"):
        return jnp.stack([readout.W_U @ frequency.u, readout.W_U @ frequency.f], 1)


def effect_lines(config: DecoderConfig, reading: jax.Array, before: Unembedded, moved: Moved) -> EffectLines:
    """What the three effects of a set are computed from. `reading`: from `frequency_reading`."""
    of_total = line(config, before, moved._replace(frozen=None))
    frozen = None if moved.frozen is None else line(config, before, Moved(moved.frozen, None, None))
    with jax.default_matmul_precision("highest"):
        return EffectLines(of_total, frozen, moved.x @ reading)


def sums_of_sets(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    before: Unembedded,
    parts: Shared | None,
    lines: EffectLines,
) -> tuple[Sums, jax.Array]:
    """The sums of the three effects of each set, and 1/σ of the final norm with the set ablated, [c s q].

    `parts`: for sets of the last layer.
    """
    sets = Effects(config, readout, before, parts, lines.total, lines.frozen)
    return sets.sums(frequency, lines.along), lines.total.inv


def sums_of_set(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    before: Unembedded,
    parts: Shared | None,
    moved: Moved,
) -> tuple[Sums, jax.Array]:
    """`sums_of_sets` of one set, [1 s q]."""
    lines = effect_lines(config, frequency_reading(readout, frequency), before, moved)
    return sums_of_sets(config, readout, frequency, before, parts, jax.tree.map(lambda x: x[None], lines))


def changes_of_sets(
    config: DecoderConfig, before: Prediction, base: tuple[Sums, jax.Array], ablated: tuple[Sums, jax.Array]
) -> Changes:
    """The changes from `base` to `ablated`, both from `sums_of_sets`; `before`: the unablated predictions."""
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

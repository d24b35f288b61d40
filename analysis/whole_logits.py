"""Measures of logit vectors, and their changes under ablation. Letters: r row (a position), n neuron, v vocabulary."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.blocks import Size
from jaxconf.analysis.frequency import Frequency

PREDICTED = Size("predicted")


class Prediction(NamedTuple):
    """Measures of each row of logits; loss, entropy and kl_freq are float32, in nats."""

    loss: jax.Array
    entropy: jax.Array
    kl_freq: jax.Array  # D_KL(P_freq ‖ P_model)
    top: jax.Array  # int: the most likely token
    rank: jax.Array  # int: the rank of the target, from 1


class Changes(NamedTuple):
    """The change that each ablation makes at each row, [r n]; losses, entropies and kl_freq in nats."""

    loss: jax.Array
    loss_ln_frozen: jax.Array
    loss_freq_frozen: jax.Array
    entropy: jax.Array
    entropy_ln_frozen: jax.Array
    kl_freq: jax.Array
    top: jax.Array  # bool: another token is the most likely
    reciprocal_rank: jax.Array  # of the target
    scale: jax.Array  # of the final norm, relative to what it was
    norm: jax.Array  # of the stream's length, as the final norm measures it: √d times its scale


def prediction(logits: jax.Array, frequency: Frequency, target: jax.Array) -> Prediction:
    """The measures of logits [… v]. `target`: the tokens that follow, int […]."""
    rows = logits.reshape(-1, logits.shape[-1]), target.ravel()
    each = jax.vmap if jax.device_count() > 1 else by_rows  # a map over what devices share would gather their logits
    found = each(lambda logits, target: prediction_of_row(logits, frequency, target))(*rows)
    return jax.tree.map(lambda x: x.reshape(target.shape), found)


def prediction_of_row(logits: jax.Array, frequency: Frequency, target: jax.Array) -> Prediction:
    """The measures of one row of logits, [v]. `target`: the token that follows, int []."""
    logits = jax.lax.optimization_barrier(logits)  # else XLA computes them again in each sum, with other rounding
    own, most = logits[target], jnp.max(logits)
    e = jnp.exp(logits - most)
    S = jnp.sum(e)
    lse = most + jnp.log(S)
    entropy = jnp.log(S) - jnp.sum(e * (logits - most)) / S  # lse minus the mean logit would lose a digit
    kl = jnp.sum(frequency.f * frequency.log_f) - logits @ frequency.f + lse
    # The first of the largest, as from `jnp.argmax`, which XLA does not vectorize on a CPU.
    top = jnp.min(jnp.where(logits == most, jnp.arange(len(logits)), len(logits) - 1))
    return Prediction(lse - own, entropy, kl, top, 1 + jnp.sum(logits > own))


def by_rows(of: Callable[..., Any]) -> Callable[..., Any]:
    """`of` for each row of arrays [r …], as by `jax.vmap`, but for PREDICTED rows at a time."""

    def each(*rows: jax.Array) -> Any:
        count, batch = len(rows[0]), int(PREDICTED)
        if count <= batch:
            return jax.vmap(of)(*rows)
        # The last batch is filled up with rows that are dropped: `lax.map` would compile `of` again for a smaller one.
        at = jnp.arange(-(-count // batch) * batch) % count
        found = jax.lax.map(lambda i: of(*(jnp.asarray(x)[i] for x in rows)), at, batch_size=batch)
        return jax.tree.map(lambda x: x[:count], found)

    return each


def changes(
    before: Prediction,
    total: Prediction,
    norm_frozen: Prediction,
    freq_frozen: Prediction,
    scales: tuple[jax.Array, jax.Array],
    d_model: int,
) -> Changes:
    """The changes from `before` to the three effects. `scales`: the final norm's scale, before and after."""
    was, now = scales
    return Changes(
        loss=total.loss - before.loss,
        loss_ln_frozen=norm_frozen.loss - before.loss,
        loss_freq_frozen=freq_frozen.loss - before.loss,
        entropy=total.entropy - before.entropy,
        entropy_ln_frozen=norm_frozen.entropy - before.entropy,
        kl_freq=total.kl_freq - before.kl_freq,
        top=total.top != before.top,
        reciprocal_rank=1 / total.rank - 1 / before.rank,
        scale=now / was - 1,
        norm=d_model**0.5 * (now - was),
    )

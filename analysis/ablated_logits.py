"""The logits of rows after the ablation of each neuron of the last layer: in parts, and whole for a few neurons.

Letters: r row (a kept position), n neuron, d model width, v vocabulary. `jaxconf.analysis.effects` has the algebra.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.unembedding import Readout, unit
from jaxconf.analysis.whole_logits import Changes, Prediction, changes, prediction_of_row
from jaxconf.models.config import DecoderConfig
from jaxconf.models.norms import centre, norm_scale
from jaxconf.models.softcap import capped

AT_ONCE = 16  # pairs whose logits are formed together: few, since the estimates of memory leave these out


class PostNorm(NamedTuple):
    """The norm after the last MLP at each row: its output before the gain, [r d], and its scale σ_m [r 1]."""

    normalized: jax.Array
    scale: jax.Array


class Moved(NamedTuple):
    """The parts of the logits after each ablation: (A + β·P + c·M)/σ', before the bias and the soft cap.

    Only models with a norm after the MLP have P and β.
    """

    A: jax.Array  # r v: x·W_U, x centred
    P: jax.Array | None  # r v: p·W_U, p centred
    beta: jax.Array | None  # r n
    write: jax.Array  # r n: c
    inv: jax.Array  # r 1: 1/σ
    inv_te: jax.Array  # r n: 1/σ'


def moved_logits(
    config: DecoderConfig, readout: Readout, x: jax.Array, delta: jax.Array, post: PostNorm | None
) -> Moved:
    """`Moved` for the ablation of each neuron; the arguments are as for `jaxconf.analysis.effects.effects`."""
    with jax.default_matmul_precision("highest"):
        x = centre(config.final, x)
        A, inv = x @ readout.W_U, 1 / norm_scale(config.final, x)
        direction, length = unit(readout.w_out)
        x_along = x @ direction.T  # r n
        across = jnp.sum(x * x, 1, keepdims=True) - x_along**2
        if post is None:
            return Moved(A, None, None, delta, inv, _inverse_scale(config.final, across, x_along + delta * length))
        raw, raw_length = unit(centre(config, readout.w_mlp))
        m = post.normalized * post.scale
        along = m @ raw.T  # r n
        inv_m = _inverse_scale(config, jnp.sum(m * m, 1, keepdims=True) - along**2, along + delta * raw_length)
        p, beta, write = (
            centre(config.final, post.normalized * readout.write_gain),
            post.scale * inv_m - 1,
            delta * inv_m,
        )
        p_along = p @ direction.T
        xp, pp = jnp.sum(x * p, 1, keepdims=True), jnp.sum(p * p, 1, keepdims=True)
        across = across + 2 * beta * (xp - x_along * p_along) + beta**2 * (pp - p_along**2)
        inv_te = _inverse_scale(config.final, across, x_along + beta * p_along + write * length)
        return Moved(A, p @ readout.W_U, beta, write, inv, inv_te)


def changes_from_whole_logits(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    moved: Moved,
    target: jax.Array,
    before: Prediction,
) -> Changes:
    """The changes of a few rows and neurons, from the logit vectors of AT_ONCE pairs of the two at a time.

    They share no sum over the vocabulary with the engines. `moved`: from `moved_logits`. `target`, int [r]: the token
    that follows. `before`: the unablated predictions of these rows.
    """
    shape = moved.write.shape
    with jax.default_matmul_precision("highest"):
        M = readout.w_out @ readout.W_U

        def logits(y: jax.Array, inv: jax.Array) -> jax.Array:
            return capped(y * inv + readout.b_U, config.logit_softcap)

        def ablated(r: jax.Array, n: jax.Array) -> Prediction:
            """The predictions of the three effects, [3]."""
            y = moved.A[r] + moved.write[r, n] * M[n]
            if moved.P is not None and moved.beta is not None:
                y += moved.beta[r, n] * moved.P[r]
            total, inv = logits(y, moved.inv_te[r, n]), moved.inv[r, 0]
            back = (logits(moved.A[r], inv) - total) @ frequency.u
            every = jnp.stack([total, logits(y, inv), total + back * frequency.u])
            return jax.vmap(lambda z: prediction_of_row(z, frequency, target[r]))(every)

        # Pairs fill whole batches, since `lax.map` would compile `ablated` again for the rest.
        count = moved.write.size
        pairs = jnp.arange(-(-count // AT_ONCE) * AT_ONCE) % count
        found = jax.lax.map(lambda i: ablated(*jnp.divmod(i, shape[1])), pairs, batch_size=AT_ONCE)
    total, norm_frozen, freq_frozen = (
        jax.tree.map(lambda x, i=i: x[:count, i].reshape(shape), found) for i in range(3)
    )
    before = jax.tree.map(lambda x: x[:, None], before)
    return changes(before, total, norm_frozen, freq_frozen, (1 / moved.inv, 1 / moved.inv_te), config.d_model)


def _inverse_scale(config: DecoderConfig, across: jax.Array, along: jax.Array) -> jax.Array:
    """1/σ of a stream with the component `along` in some direction; the rest has the squared length `across`."""
    if config.frozen_scale is not None:
        return 1 / jnp.full_like(along, config.frozen_scale)
    return 1 / jnp.sqrt((jnp.maximum(across, 0) + along**2) / config.d_model + config.norm_eps)

"""What ablating each neuron of the last layer does to every prediction, exactly, without ever forming a logit vector per neuron.

Letters: r row (a kept position), n neuron, d model width, v vocabulary, s window. Sources: Stolfo et al. 2024 (arXiv 2406.16254), sections
3.2 and 4. Nothing lies between the last MLP and the final norm, so with A = centred(x)·W_U, M = w·W_U and δ the change of activation

    total            z = (A + δM)/σ' + b    σ' the norm's scale of x + δw
    norm frozen      z = (A + δM)/σ + b     σ that of x
    frequency frozen z of the total effect, its coordinate along u put back to the unablated one

and all that a metric needs of z are a log-sum-exp, an expectation, two counts, and sums that are bilinear in A and M.

A norm behind the MLP (Gemma 2, OLMo 2) turns the MLP's output m + δw into γ ⊙ (m + δw)/σ_m', so that with p = γ ⊙ m/σ_m, what it added before,
the stream becomes x + (σ_m/σ_m' − 1)·p + (δ/σ_m')·γ ⊙ w. Soft-capped logits are cap·tanh(z/cap), with b inside.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.ablated_softmax import ablated_softmax
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.unembedding import Readout
from jaxconf.analysis.whole_logits import Changes, Figures, Moved, figures, whole_logit_changes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.norms import centre, norm_scale
from jaxconf.models.softcap import capped

METRICS = (
    "loss_delta",
    "loss_abs_delta",
    "loss_abs_delta_ln_frozen",
    "loss_abs_delta_freq_frozen",
    "entropy_delta",
    "entropy_abs_delta",
    "entropy_abs_delta_ln_frozen",
    "kl_freq_delta",
    "kl_freq_abs_delta",
    "top1_change",
    "rr_abs_delta",
)


class Position(NamedTuple):
    """The unablated model at each row, float32 [r], in nats: loss of the target, entropy, D_KL(P_freq ‖ P_model)."""

    loss: jax.Array
    entropy: jax.Array
    kl_freq: jax.Array


class PostNorm(NamedTuple):
    """What the norm behind the last MLP did at each row: its output before the gain, [r d], and σ_m [r 1]."""

    normalized: jax.Array
    scale: jax.Array


def effects(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    x: jax.Array,
    delta: jax.Array,
    target: jax.Array,
    member: jax.Array,
    post: PostNorm | None = None,
) -> tuple[dict[str, jax.Array], Position]:
    """Each of METRICS summed over the rows of every window, float32 [s n], and the unablated figures of each row.

    `readout`: in the paper's convention. `x` [r d]: the stream that enters the final norm. `delta` [r n]: how much each neuron's
    activation changes. `target` int [r]: the token that follows. `member` [s r]: 1 where a row belongs to a window, else 0. `post`: for a
    model with a norm behind the MLP.
    """
    with jax.default_matmul_precision("highest"):
        W_U, b, w = readout.W_U, readout.b_U, readout.w_out
        x = centre(config, x)
        sigma = norm_scale(config, x)  # r 1
        inv = 1 / sigma
        A = x @ W_U
        found = figures(capped(A * inv + b, config.logit_softcap), frequency, target)
        if post is None and config.logit_softcap is None:
            change = _streamed_changes(config, readout, frequency, x, delta, target, A, inv, found)
        else:
            moved = _moved(config, readout, x, delta, A, inv, post)
            change = whole_logit_changes(moved, w, W_U, b, config.logit_softcap, frequency, target)

        # The two sides are summed in different orders: where nothing was ablated their difference would be rounding.
        ablated = (delta != 0) & (jnp.linalg.norm(w, axis=1) > 0)
        metrics = (
            change.loss,
            jnp.abs(change.loss),
            jnp.abs(change.loss_ln_frozen),
            jnp.abs(change.loss_freq_frozen),
            change.entropy,
            jnp.abs(change.entropy),
            jnp.abs(change.entropy_ln_frozen),
            change.kl_freq,
            jnp.abs(change.kl_freq),
            change.top.astype(jnp.float32),
            jnp.abs(change.reciprocal_rank),
        )
        sums = {name: member @ jnp.where(ablated, metric, 0) for name, metric in zip(METRICS, metrics, strict=True)}
        return sums, Position(found.loss, found.entropy, found.kl_freq)


def _unit(w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Directions [n d] of length 1, or 0, and their lengths [n]."""
    length = jnp.linalg.norm(w, axis=1)
    return w / jnp.where(length > 0, length, 1)[:, None], length


def _inverse_scale(config: DecoderConfig, across: jax.Array, along: jax.Array) -> jax.Array:
    """1/σ of a stream that has the squared length `across` off a direction and the length `along` on it."""
    return 1 / jnp.sqrt((jnp.maximum(across, 0) + along**2) / config.d_model + config.norm_eps)


def _moved(
    config: DecoderConfig, readout: Readout, x: jax.Array, delta: jax.Array, A: jax.Array, inv: jax.Array, post: PostNorm | None
) -> Moved:
    """Where each neuron's ablation puts the logits; x [r d] is centred."""
    unit, length = _unit(readout.w_out)
    if post is None:
        p, beta, write = jnp.zeros_like(x), jnp.zeros_like(delta), delta
    else:
        raw, raw_length = _unit(centre(config, readout.w_mlp))
        m = post.normalized * post.scale
        along = m @ raw.T  # r n
        inv_m = _inverse_scale(config, jnp.sum(m * m, 1, keepdims=True) - along**2, along + delta * raw_length)
        p, beta, write = centre(config, post.normalized * readout.write_gain), post.scale * inv_m - 1, delta * inv_m
    x_along, p_along = x @ unit.T, p @ unit.T
    xx, xp, pp = jnp.sum(x * x, 1, keepdims=True), jnp.sum(x * p, 1, keepdims=True), jnp.sum(p * p, 1, keepdims=True)
    across = (xx - x_along**2) + 2 * beta * (xp - x_along * p_along) + beta**2 * (pp - p_along**2)
    inv_te = _inverse_scale(config, across, x_along + beta * p_along + write * length)
    return Moved(A, p @ readout.W_U, beta, write, inv, inv_te)


def _streamed_changes(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    x: jax.Array,
    delta: jax.Array,
    target: jax.Array,
    A: jax.Array,
    inv: jax.Array,
    before: Figures,
) -> Changes:
    """Without ever holding a neuron's logits; x [r d] is centred."""
    W_U, b, w = readout.W_U, readout.b_U, readout.w_out
    unit, length = _unit(w)
    along = x @ unit.T  # r n
    inv_te = _inverse_scale(config, jnp.sum(x * x, 1, keepdims=True) - along**2, along + delta * length)

    Au, Af = A @ frequency.u, A @ frequency.f  # r
    Mu, Mf = w @ (W_U @ frequency.u), w @ (W_U @ frequency.f)  # n
    bf = b @ frequency.f
    kappa = Au[:, None] * (inv - inv_te) - delta * Mu * inv_te  # what puts the coordinate along u back

    sums = ablated_softmax(A, w, W_U, b, frequency.u, inv[:, 0], inv_te, delta, kappa, target, before.top)

    A_target = jnp.take_along_axis(A, target[:, None], 1)  # r 1
    written = A_target + delta * (W_U[:, target].T @ w.T)  # r n: (A + δM) of the target
    z_te = written * inv_te + b[target][:, None]
    z_ln = written * inv + b[target][:, None]
    z_fr = z_te + kappa * frequency.u[target][:, None]
    negative_entropy_f = jnp.sum(frequency.f * frequency.log_f)
    f_z = (Af[:, None] + delta * Mf) * inv_te + bf
    return Changes(
        loss=sums.lse_te - z_te - before.loss[:, None],
        loss_ln_frozen=sums.lse_ln - z_ln - before.loss[:, None],
        loss_freq_frozen=sums.lse_fr - z_fr - before.loss[:, None],
        entropy=sums.lse_te - sums.mean_te - before.entropy[:, None],
        entropy_ln_frozen=sums.lse_ln - sums.mean_ln - before.entropy[:, None],
        kl_freq=negative_entropy_f - f_z + sums.lse_te - before.kl_freq[:, None],
        top=sums.top_changed,
        reciprocal_rank=1 / (1 + sums.n_above_target) - 1 / before.rank[:, None],
    )

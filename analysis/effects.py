"""What ablating each neuron of the last layer does to every prediction, exactly, without ever forming a logit vector per neuron.

Letters: r row (a kept position), n neuron, d model width, v vocabulary, s window. Sources: Stolfo et al. 2024 (arXiv 2406.16254), sections
3.2 and 4. Nothing lies between the last MLP and the final norm, so with A = centred(x)·W_U, M = w·W_U and δ the change of activation

    total            z = (A + δM)/σ' + b    σ' the norm's scale of x + δw
    norm frozen      z = (A + δM)/σ + b     σ that of x
    frequency frozen z of the total effect, its coordinate along u put back to the unablated one

and all that a metric needs of z are a log-sum-exp, an expectation, two counts, and sums that are bilinear in A and M.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.ablated_softmax import ablated_softmax
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.norms import centre, norm_scale

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


def effects(
    config: DecoderConfig, readout: Readout, frequency: Frequency, x: jax.Array, delta: jax.Array, target: jax.Array, member: jax.Array
) -> tuple[dict[str, jax.Array], Position]:
    """Each of METRICS summed over the rows of every window, float32 [s n], and the unablated figures of each row.

    `readout`: in the paper's convention. `x` [r d]: the stream that enters the final norm. `delta` [r n]: how much each neuron's
    activation changes. `target` int [r]: the token that follows. `member` [s r]: 1 where a row belongs to a window, else 0.
    """
    with jax.default_matmul_precision("highest"):
        W_U, b, w = readout.W_U, readout.b_U, readout.w_out
        x = centre(config, x)
        sigma = norm_scale(config, x)  # r 1
        inv = 1 / sigma
        A = x @ W_U
        before, logits_top, rank = _unablated(A * inv + b, frequency, target)

        length = jnp.linalg.norm(w, axis=1)  # n
        along = x @ (w / jnp.where(length > 0, length, 1)[:, None]).T  # r n
        across = jnp.maximum(jnp.sum(x * x, 1, keepdims=True) - along**2, 0)
        inv_te = 1 / jnp.sqrt((across + (along + delta * length) ** 2) / config.d_model + config.norm_eps)

        Au, Af = A @ frequency.u, A @ frequency.f  # r
        Mu, Mf = w @ (W_U @ frequency.u), w @ (W_U @ frequency.f)  # n
        bf = b @ frequency.f
        kappa = Au[:, None] * (inv - inv_te) - delta * Mu * inv_te  # what puts the coordinate along u back

        sums = ablated_softmax(A, w, W_U, b, frequency.u, inv[:, 0], inv_te, delta, kappa, target, logits_top)

        A_target = jnp.take_along_axis(A, target[:, None], 1)  # r 1
        written = A_target + delta * (W_U[:, target].T @ w.T)  # r n: (A + δM) of the target
        z_te = written * inv_te + b[target][:, None]
        z_ln = written * inv + b[target][:, None]
        z_fr = z_te + kappa * frequency.u[target][:, None]
        negative_entropy_f = jnp.sum(frequency.f * frequency.log_f)
        loss = sums.lse_te - z_te - before.loss[:, None]
        loss_ln = sums.lse_ln - z_ln - before.loss[:, None]
        loss_fr = sums.lse_fr - z_fr - before.loss[:, None]
        entropy = sums.lse_te - sums.mean_te - before.entropy[:, None]
        entropy_ln = sums.lse_ln - sums.mean_ln - before.entropy[:, None]
        f_z = (Af[:, None] + delta * Mf) * inv_te + bf
        kl = negative_entropy_f - f_z + sums.lse_te - before.kl_freq[:, None]
        rr = 1 / (1 + sums.n_above_target) - 1 / rank[:, None]

        changes = (
            loss,
            jnp.abs(loss),
            jnp.abs(loss_ln),
            jnp.abs(loss_fr),
            entropy,
            jnp.abs(entropy),
            jnp.abs(entropy_ln),
            kl,
            jnp.abs(kl),
            sums.top_changed.astype(jnp.float32),
            jnp.abs(rr),
        )
        # The two sides are summed in different orders: where nothing was ablated their difference would be rounding.
        ablated = (delta != 0) & (length > 0)
        return {name: member @ jnp.where(ablated, change, 0) for name, change in zip(METRICS, changes, strict=True)}, before


def _unablated(logits: jax.Array, frequency: Frequency, target: jax.Array) -> tuple[Position, jax.Array, jax.Array]:
    """From logits [r v]: the figures of each row, its most likely token, and the target's rank (from 1)."""
    own = jnp.take_along_axis(logits, target[:, None], 1)
    lse = jax.nn.logsumexp(logits, axis=1)
    mean = jnp.sum(jax.nn.softmax(logits, axis=1) * logits, axis=1)
    kl = jnp.sum(frequency.f * frequency.log_f) - logits @ frequency.f + lse
    rank = 1 + jnp.sum(logits > own, axis=1)
    return Position(lse - own[:, 0], lse - mean, kl), jnp.argmax(logits, axis=1), rank

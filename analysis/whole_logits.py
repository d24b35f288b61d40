"""The changes that single-neuron ablations make, from whole logit vectors, a tile of rows and neurons at a time.

For soft-capped logits, of which expectations and the coordinate along the frequency direction are not bilinear, as the streamed sums of
`jaxconf.analysis.ablated_softmax` need it.

Letters: r row (a kept position), n neuron, d model width, v vocabulary; T rows and B neurons of a tile.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.frequency import Frequency
from jaxconf.models.softcap import capped

TILE = 2**21  # logits that are held at once
ROWS = 16


class Figures(NamedTuple):
    """Of each row of logits, float32 in nats but for the last two: the token most likely, and the target's rank from 1."""

    loss: jax.Array
    entropy: jax.Array
    kl_freq: jax.Array  # D_KL(P_freq ‖ P_model)
    top: jax.Array
    rank: jax.Array


class Changes(NamedTuple):
    """What each ablation does at each row, [r n]; nats."""

    loss: jax.Array
    loss_ln_frozen: jax.Array
    loss_freq_frozen: jax.Array
    entropy: jax.Array
    entropy_ln_frozen: jax.Array
    kl_freq: jax.Array
    top: jax.Array  # bool: another token is the most likely
    reciprocal_rank: jax.Array  # of the target


class Moved(NamedTuple):
    """Where each ablation puts the logits: (A + β·P + c·M)/σ', before the bias and the soft cap; P and β only behind a post-norm."""

    A: jax.Array  # r v: what x gives
    P: jax.Array | None  # r v: what the MLP's whole output gives
    beta: jax.Array | None  # r n
    write: jax.Array  # r n: c
    inv: jax.Array  # r 1: 1/σ
    inv_te: jax.Array  # r n: 1/σ'


def figures(logits: jax.Array, frequency: Frequency, target: jax.Array) -> Figures:
    """From logits [… v] and the tokens that follow, int [… ]."""
    own = jnp.take_along_axis(logits, target[..., None], -1)
    lse = jax.nn.logsumexp(logits, axis=-1)
    mean = jnp.sum(jax.nn.softmax(logits, axis=-1) * logits, axis=-1)
    kl = jnp.sum(frequency.f * frequency.log_f) - logits @ frequency.f + lse
    return Figures(lse - own[..., 0], lse - mean, kl, jnp.argmax(logits, axis=-1), 1 + jnp.sum(logits > own, axis=-1))


def changes(before: Figures, total: Figures, norm_frozen: Figures, freq_frozen: Figures) -> Changes:
    return Changes(
        loss=total.loss - before.loss,
        loss_ln_frozen=norm_frozen.loss - before.loss,
        loss_freq_frozen=freq_frozen.loss - before.loss,
        entropy=total.entropy - before.entropy,
        entropy_ln_frozen=norm_frozen.entropy - before.entropy,
        kl_freq=total.kl_freq - before.kl_freq,
        top=total.top != before.top,
        reciprocal_rank=1 / total.rank - 1 / before.rank,
    )


def whole_logit_changes(
    moved: Moved, w: jax.Array, W_U: jax.Array, b: jax.Array, softcap: float | None, frequency: Frequency, target: jax.Array
) -> Changes:
    """For write directions w [n d] and target int [r]."""
    (R, V), N = moved.A.shape, len(w)
    T = min(ROWS, R)
    B = min(max(1, TILE // (T * V)), N)
    n_rows, n_neurons = -(-R // T), -(-N // B)

    def tiles(x: jax.Array, rows: bool, neurons: bool) -> jax.Array:
        """[neuron blocks, row blocks, T, B], or what of it the array has; what is added repeats the last."""
        pads = [(0, n_rows * T - R)] * rows + [(0, n_neurons * B - N)] * neurons
        x = jnp.pad(x, pads + [(0, 0)] * (x.ndim - len(pads)), mode="edge")
        if rows and neurons:
            return x.reshape(n_rows, T, n_neurons, B).transpose(2, 0, 1, 3)
        return x.reshape(n_rows, T, *x.shape[1:]) if rows else x.reshape(n_neurons, B, *x.shape[1:])

    rows = jax.tree.map(lambda x: tiles(x, True, False), [moved.A, moved.P, moved.inv, target])
    cells = jax.tree.map(lambda x: tiles(x, True, True), [moved.beta, moved.write, moved.inv_te])

    def tile(M: jax.Array, tile_rows: list[jax.Array], tile_cells: list[jax.Array]) -> Changes:
        A, P, inv, own = tile_rows
        beta, write, inv_te = tile_cells
        z0 = capped(A * inv + b, softcap)  # T v
        numerator = A[:, None] + write[..., None] * M  # T B v
        if P is not None:
            numerator += beta[..., None] * P[:, None]
        te = capped(numerator * inv_te[..., None] + b, softcap)
        ln = capped(numerator * inv[..., None] + b, softcap)
        fr = te + ((z0 @ frequency.u)[:, None] - te @ frequency.u)[..., None] * frequency.u
        target_of = jnp.broadcast_to(own[:, None], te.shape[:2])
        before = Figures(*(x[:, None] for x in figures(z0, frequency, own)))
        return changes(before, *(figures(z, frequency, target_of) for z in (te, ln, fr)))

    def neurons(block: tuple[jax.Array, list[jax.Array]]) -> Changes:
        M = block[0] @ W_U  # B v
        return jax.lax.map(lambda x: tile(M, x[0], x[1]), (rows, block[1]))

    found = jax.lax.map(neurons, (tiles(w, False, True), cells))  # neuron blocks, row blocks, T, B
    return Changes(*(x.transpose(1, 2, 0, 3).reshape(n_rows * T, n_neurons * B)[:R, :N] for x in found))

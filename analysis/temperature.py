"""How well a temperature reproduces a change of a model's predictions, and which temperature does so best.

Letters: p position, v vocabulary, g inverse temperature of a fixed series. Let lp be the log-probabilities of a
position before an intervention, P its probabilities, and δ what the intervention adds to lp. The temperature 1/β that
reproduces it best minimises

    S(β) = Σ_p Σ_v P·(δ − g_β)²,     g_β = log softmax(β·lp) − lp

and explains the share 1 − S(β)/S(1) of the change. Without the weights P, unlikely tokens alone would determine β. With
c = lp less its mean under P, g_β = (β − 1)·c − Λ_β and Λ_β = log Σ P·e^((β−1)c), so S needs only Λ_β and four sums over
v of each position: those in `Change`, and Σ P·c².
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar

LOG_BETA = np.linspace(-np.log(16), np.log(16), 49)  # its middle entry is 0, for β = 1
AT_ONE = len(LOG_BETA) // 2
ROWS = 8


class Unchanged(NamedTuple):
    """What `best_temperature` needs of the predictions before the intervention."""

    variance: jax.Array  # p: Σ P·c²
    curvature: jax.Array  # p g: Λ_β/(β − 1)², which is smooth; half the variance at β = 1


class Change(NamedTuple):
    """What `best_temperature` needs of a change of the log-probabilities, [p]."""

    mean: jax.Array  # Σ P·δ
    square: jax.Array  # Σ P·δ²
    along: jax.Array  # Σ P·δ·c


def _centred(lp: jax.Array) -> tuple[jax.Array, jax.Array]:
    P = jnp.exp(lp)
    return P, lp - jnp.sum(P * lp, -1, keepdims=True)


def unchanged(lp: jax.Array) -> Unchanged:
    """`Unchanged` of log-probabilities [… v], in nats; the leading axes take the place of p."""
    P, c = _centred(lp)
    variance = jnp.sum(P * c * c, -1)
    mean, top = jnp.sum(P * lp, -1), lp.max(-1)

    def curves(row: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        lp, mean, top = row

        def curvature(log_beta: jax.Array) -> jax.Array:
            less = jnp.expm1(log_beta)  # β − 1
            S = jnp.exp((less + 1) * (lp - top)) @ jnp.ones(len(lp))
            return ((less + 1) * top - less * mean + jnp.log(S)) / jnp.square(jnp.where(less == 0, 1, less))

        return jax.lax.map(curvature, jnp.asarray(LOG_BETA, lp.dtype))

    # Some rows at a time, which stay in a CPU's cache for all β.
    rows = lp.reshape(-1, lp.shape[-1]), mean.ravel(), top.ravel()
    curve = jax.lax.map(curves, rows, batch_size=ROWS).reshape(*mean.shape, -1)
    return Unchanged(variance, curve.at[..., AT_ONE].set(variance / 2))


def change(lp: jax.Array, after: jax.Array) -> Change:
    """`Change` from log-probabilities before and after the intervention, [… v]; leading axes take the place of p."""
    P, c = _centred(lp)
    delta = after - lp
    return Change(jnp.sum(P * delta, -1), jnp.sum(P * delta * delta, -1), jnp.sum(P * delta * c, -1))


def best_temperature(before: Unchanged, changed: Change) -> tuple[float, float]:
    """The temperature that best reproduces the change at all positions, and the share of the change that it explains.

    The temperature is between 1/16 and 16; the share is at most 1. If nothing changed, they are 1 and NaN.
    """
    variance, curve = (np.asarray(x, np.float64) for x in before)
    mean, square, along = (np.asarray(x, np.float64) for x in changed)
    whole = square.mean()
    if whole == 0:
        return 1.0, float("nan")
    crossed = CubicSpline(LOG_BETA, (curve * mean[:, None]).mean(0))
    squared = CubicSpline(LOG_BETA, (curve**2).mean(0))

    def left(log_beta: float) -> float:
        less = np.expm1(log_beta)
        return float(
            whole
            - 2 * (less * along.mean() - less**2 * crossed(log_beta))
            + less**2 * variance.mean()
            + less**4 * squared(log_beta)
        )

    coarse = LOG_BETA[np.argmin([left(x) for x in LOG_BETA])]
    step = LOG_BETA[1] - LOG_BETA[0]
    best = minimize_scalar(left, bounds=(coarse - step, coarse + step), method="bounded", options={"xatol": 1e-7}).x
    return float(np.exp(-best)), float(1 - left(best) / whole)

"""What lies beyond the second order in the expansion of `jaxconf.analysis.adaptive_tail`, and how far off it can be.

Letters: t position, n neuron.

Of a token whose logit changes by p̄ + x, the terms beyond x² are

    e^x − 1 − x − x²/2 = x²·h(x)        x·(e^x − 1 − x) = x²·k(x)

where h and k increase with x. A and B are known with −B ≤ x ≤ A. In place of h and k, the mean of their values at −B
and A is taken. The error of Σ w·e^x, where w is one of the weights q and s, is then at most half the difference of h
at −B and A, times Σ w·x².
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Moments(NamedTuple):
    """Sums over a tail with a weight w, [t n]."""

    first: jax.Array  # Σ w·x, plus Σ w·E·p²/2 with a soft cap
    second: jax.Array  # Σ w·x²
    rounded: jax.Array  # a bound on the error of `second` by rounding to bfloat16
    capped: jax.Array  # a bound on what the soft cap adds to the error of Σ w·e^x


class Beyond(NamedTuple):
    """h or k of the terms beyond x², over the range of x, [t n]."""

    middle: jax.Array  # the mean of its least and its largest value
    half: jax.Array  # half the difference of these two
    size: jax.Array  # its largest absolute value


class Left(NamedTuple):
    """Numbers from which `entropy_error` bounds what the series leaves out, [t n]."""

    scale: jax.Array  # e^p̄; infinite where there is no bound
    mean: jax.Array  # p̄
    above: jax.Array  # A
    below: jax.Array  # B
    least: jax.Array  # the smallest −log q, [t 1]
    h: Beyond
    k: Beyond
    q: Moments
    s: Moments


def entropy_error(left: Left, g: jax.Array) -> jax.Array:
    """A bound on |ε_G + (1 − g)·ε_S|, where ε are the errors of a tail's `Series`, and g is G/S of all tokens.

    To first order, it is S times the error of the entropy, log S + G/S. A token's part is e^p̄·q·x² times F(x) minus the
    mean of F(−B) and F(A), where F = ω·h − k and ω = 1 − log q − p̄ − g. That difference is at most half the integral
    of |F'|, so at most half the difference of h times the largest |ω − k'/h'|. As h' = ∫ u·(1 − u)·e^(ux) du and
    k' = ∫ u·e^(ux) du over u from 0 to 1, k'/h' increases with x and is at least 1. It is also 3 + x·h''/h', where
    h''/h' increases, is ½ at 0 and at most 1. So it is at least 3 − B/2 and at most 3 + A.
    """
    a = left.mean + g - 1  # ω is −log q − a
    low, high = jnp.maximum(1, 3 - left.below / 2), 3 + left.above
    # |ω − k'/h'| ≤ ω − low + max(0, low + high − 2·(the smallest ω)), whose sum needs only the moments of q and s.
    of_q = jnp.maximum(0, low + high - 2 * (left.least - a)) - low - a
    q, s, h, k = left.q, left.s, left.h, left.k
    squares = jnp.maximum(s.second + of_q * q.second, 0) + s.rounded + jnp.abs(of_q) * q.rounded
    rounded = (0.5 + h.size) * (s.rounded + jnp.abs(a) * q.rounded) + (1 + k.size) * q.rounded
    of_cap = s.capped + (jnp.abs(left.mean) + jnp.abs(1 - g) + high) * q.capped
    return left.scale * (h.half * squares + rounded + of_cap)


def beyond(above: jax.Array, below: jax.Array) -> tuple[Beyond, Beyond]:
    """h and k where −below ≤ x ≤ above; `above` and `below` are at least 0."""

    def at(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        small = jnp.abs(x) < 0.1  # where the differences below would lose digits
        large = jnp.where(small, 1, x)
        k = jnp.expm1(large) / large - 1
        series_h = x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x / 720)))
        series_k = x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x / 120)))
        return jnp.where(small, series_h, k / large - 0.5), jnp.where(small, series_k, k)

    ends = zip(at(above), at(-below), strict=True)
    h, k = (Beyond((high + low) / 2, (high - low) / 2, jnp.maximum(high, -low)) for high, low in ends)
    return h, k

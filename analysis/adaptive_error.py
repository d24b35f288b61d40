"""What lies beyond the second order in the expansion of `jaxconf.analysis.adaptive_tail`, and how far off it can be.

Letters: t position, n neuron.

A token whose logit changes by p̄ + x, with weight q, has the terms beyond x²

    e^x − 1 − x − x²/2 = x²·h(x)        x·(e^x − 1 − x) = x²·k(x)

where h and k increase with x. With x between −B and A, h and k are taken to be in the middle of their ranges. The error
of Σ w·(1 + x + …) is then at most half the range of h times Σ w·x². A and B are known, so every (t, n) has a bound.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Moments(NamedTuple):
    """Sums over a tail with a weight w, [t n]."""

    first: jax.Array  # Σ w·x, and with a soft cap Σ w·E·p²/2
    second: jax.Array  # Σ w·x²
    rounded: jax.Array  # a bound on the error of `second` by rounding to bfloat16
    capped: jax.Array  # a bound on what the soft cap adds to the error of Σ w·e^x


class Left(NamedTuple):
    """Numbers from which `entropy_error` bounds what the series leaves out, [t n]."""

    scale: jax.Array  # e^p̄; infinite where there is no bound
    mean: jax.Array  # p̄
    above: jax.Array  # A
    below: jax.Array  # B
    least: jax.Array  # the smallest −log q, [t 1]
    q: Moments
    s: Moments


class Beyond(NamedTuple):
    """h or k of the terms beyond x², over the range of x, [t n]."""

    middle: jax.Array  # the mean of its least and its largest value
    half: jax.Array  # half the difference of these two
    size: jax.Array  # its largest absolute value


def entropy_error(left: Left, g: jax.Array) -> jax.Array:
    """A bound on |ε_G + (1 − g)·ε_S|, with the errors ε of a `Series`: S times the error of log S + G/S. `g`: G/S.

    A token's part of it is e^p̄·q·x² times the distance of ω·h(x) − k(x) from its middle, with ω = 1 − log q − p̄ − g.
    That is at most half the range of h times the largest |ω − k'/h'|. The quotient k'/h' increases with x. It is
    Σ (n + 1)/(n + 2)!·x^n divided by Σ (n + 1)/(n + 3)!·x^n, so it is at least 1, at least 3 + x/2, and for positive x
    at most 3 + x.
    """
    a = left.mean + g - 1  # ω is −log q − a
    low, high = jnp.maximum(1, 3 - left.below / 2), 3 + left.above
    # max(ω − low, high − ω) is linear in ω where ω is large, as it is for unlikely tokens.
    of_q = jnp.maximum(0, low + high - 2 * (left.least - a)) - low - a
    q, s, (h, k) = left.q, left.s, beyond(left.above, left.below)
    squares = jnp.maximum(s.second + of_q * q.second, 0) + s.rounded + jnp.abs(of_q) * q.rounded
    rounded = (0.5 + h.size) * (s.rounded + jnp.abs(a) * q.rounded) + (1 + k.size) * q.rounded
    of_cap = s.capped + (jnp.abs(left.mean) + jnp.abs(1 - g) + high) * q.capped
    return left.scale * (h.half * squares + rounded + of_cap)


def beyond(above: jax.Array, below: jax.Array) -> tuple[Beyond, Beyond]:
    """h and k where −below ≤ x ≤ above; both are at least 0."""

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

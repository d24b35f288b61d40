"""Positions: rotary embeddings, ALiBi and sinusoids.

Letters: b batch, t position, d model width, h head, k head width, r rotated pairs. Sources: Su et al. 2021 (arXiv
2104.09864) for rotary embeddings; Press et al. 2021 (arXiv 2108.12409) for ALiBi; Vaswani et al. 2017 (arXiv
1706.03762) for sinusoids.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.frequencies import SINUSOIDS_FROM, Rotary


def turns(rotary: Rotary, positions: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of each pair's angle, float32 [b t r], at positions [b t] of a sequence of `length` tokens."""
    freqs = rotary.long if rotary.long and length > rotary.original else rotary.frequencies
    angles = positions.astype(jnp.float32)[..., None] * np.array(freqs, np.float32)
    return jnp.cos(angles) * rotary.magnitude, jnp.sin(angles) * rotary.magnitude


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array, pairs: bool) -> jax.Array:
    """x [b t h k] with each pair of entries rotated by the angle whose cosine and sine are given, [b t r].

    Pair i is the entries i and i + r, or with `pairs` the entries 2i and 2i + 1.
    """
    cos, sin = cos[:, :, None], sin[:, :, None]  # b t 1 r
    r = cos.shape[-1]
    turned, passed = x[..., : 2 * r].astype(jnp.float32), x[..., 2 * r :]
    side = -1 if pairs else -2  # the axis over the two entries of a pair
    first, second = jnp.moveaxis(turned.reshape(*x.shape[:3], *((r, 2) if pairs else (2, r))), side, 0)
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], side).reshape(turned.shape)
    return jnp.concatenate([turned.astype(x.dtype), passed], axis=-1)


def grown(rotary: Rotary, queries: jax.Array, positions: jax.Array) -> jax.Array:
    """Queries [b t h k], multiplied by a factor that grows with their positions, int [b t] or [1 t]."""
    if not rotary.growth:
        return queries
    periods = jnp.maximum(positions, 0) // rotary.original  # padding has negative positions
    return queries * (1 + rotary.growth * jnp.log1p(periods.astype(queries.dtype)))[..., None, None]


def sinusoids(positions: jax.Array, width: int) -> jax.Array:
    """Sines, then cosines, of geometrically spaced multiples of positions [b t], from 1 to 1e-4: float32 [b t d]."""
    half = width // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10000) / max(half - 1, 1)))
    angles = (positions + SINUSOIDS_FROM).astype(jnp.float32)[..., None] * frequencies
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return jnp.pad(waves, ((0, 0), (0, 0), (0, width - 2 * half)))


def alibi_slopes(n_heads: int) -> np.ndarray:
    """How much a head's scores grow from one source position to the next, float32 [h].

    Let n be the largest power of two up to `n_heads`. The first n heads have the powers 1 to n of 2^(−8/n), and the
    remaining heads the odd powers of 2^(−4/n).
    """
    n = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * i / n) for i in range(1, n + 1)] + [2 ** (-4 * i / n) for i in range(1, 2 * (n_heads - n), 2)]
    return np.array(slopes, np.float32)

"""Positions: rotary embeddings, ALiBi and sinusoids.

Letters: b batch, t position, d model width, h head, k head width, r rotated pairs. Sources: Su et al. 2021 (arXiv
2104.09864); Llama 3.1's release for its frequencies; Peng et al. 2023 (arXiv 2309.00071) for YaRN; Ding et al. 2024
(arXiv 2402.13753) for LongRoPE; Press et al. 2021 (arXiv 2108.12409) for ALiBi; Vaswani et al. 2017 (arXiv 1706.03762)
for sinusoids.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of the first 2r entries of each head; the others pass through."""

    frequencies: tuple[float, ...]  # radians per position of each pair, [r]
    pairs: bool = False  # a pair is two neighbouring entries (GPT-J's layout), not two entries that are r apart
    magnitude: float = 1.0  # factor on the rotated entries (YaRN, LongRoPE)
    long: tuple[float, ...] = ()  # the frequencies for sequences longer than `original` (LongRoPE)
    original: int = 0  # the length, in positions, up to which `frequencies` hold (LongRoPE), or before queries grow
    # The query at position p is multiplied by 1 + growth·log(1 + ⌊p/original⌋) (Llama 4, Ministral 3).
    growth: float = 0.0


def geometric(dim: int, base: float) -> np.ndarray:
    """Frequencies base^(−2i/dim), float64 [r]; an odd `dim` counts as the next even one.

    Raises ValueError for a `dim` or a `base` out of range.
    """
    if not (1 <= dim <= 2**16 and base > 0):
        raise ValueError(f"a rotation of {dim} entries of a head, with the base {base}")
    return base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)


def llama3(freqs: np.ndarray, factor: float, low: float, high: float, original: int) -> np.ndarray:
    """Llama 3.1's frequencies [r], from those of the original context.

    `original`: the length of the original context. Frequencies with fewer than `low` turns within it are divided by
    `factor`; those with more than `high` are kept; between the two the change is gradual.
    """
    turns = original * freqs / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return kept * freqs + (1 - kept) * freqs / factor


def yarn(
    freqs: np.ndarray, dim: int, base: float, factor: float, fast: float, slow: float, original: int, truncate: bool
) -> np.ndarray:
    """YaRN's frequencies [r], from those of the original context.

    `original`: the length of the original context. Pairs that turn `fast` times or more within it keep their frequency.
    The frequency of pairs that turn `slow` times or less is divided by `factor`. Between the two, the change is linear
    in the index of the pair, and `truncate` rounds its two ends to whole indices.
    """

    def pair(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair(fast), pair(slow)
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    stretched = np.clip((np.arange(len(freqs)) - first) / max(last - first, 1e-3), 0, 1)
    return (1 - stretched) * freqs + stretched * freqs / factor


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


SINUSOIDS_FROM = 2  # XGLM counts positions from 2


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

"""Rotary positions. Letters: b batch, t position, h head, k head width, r rotated pairs (half of rotary.dim, rounded up)."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.config import Rotary


def frequencies(rotary: Rotary) -> np.ndarray:
    """Angle per position of each pair, float32 [r]."""
    freqs = rotary.base ** (-np.arange(0, rotary.dim, 2, dtype=np.float64) / rotary.dim)
    if rotary.scaling == "linear":
        freqs = freqs / rotary.factor
    elif rotary.scaling == "llama3":
        turns = rotary.original_positions * freqs / (2 * np.pi)  # full turns within the original context
        kept = (turns - rotary.low_freq_factor) / (rotary.high_freq_factor - rotary.low_freq_factor)
        kept = np.clip(kept, 0, 1)
        freqs = kept * freqs + (1 - kept) * freqs / rotary.factor
    return freqs.astype(np.float32)


def rotate(rotary: Rotary, x: jax.Array) -> jax.Array:
    """x [b t h k] with the two entries of each pair turned by the pair's angle at position t.

    Pair i holds entries i and i + r of the first 2r, or with `rotary.pairs` 2i and 2i + 1.
    """
    freqs = frequencies(rotary)
    angles = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None] * freqs  # t r
    cos, sin = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]  # t 1 r
    turned, passed = x[..., : 2 * len(freqs)].astype(jnp.float32), x[..., 2 * len(freqs) :]
    side = -1 if rotary.pairs else -2  # where an entry's place in its pair stands among the axes
    halves = turned.reshape(*x.shape[:3], *((-1, 2) if rotary.pairs else (2, -1)))
    first, second = jnp.moveaxis(halves, side, 0)
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], side).reshape(turned.shape)
    return jnp.concatenate([turned.astype(x.dtype), passed], axis=-1)

"""Soft caps of scores and logits."""

import jax
import jax.numpy as jnp


def capped(x: jax.Array, cap: float | None) -> jax.Array:
    """cap·tanh(x/cap), of any shape; x itself without a cap."""
    return x if cap is None else cap * jnp.tanh(x / cap)

"""The values that a neuron is set to. Letters: … leading axes, n neuron. Source: Stolfo et al. 2024, section 3.2."""

from typing import Literal

import jax
import jax.numpy as jnp

Ablation = Literal["mean", "zero", "fixed", "scale"]


def ablated(kind: Ablation, h: jax.Array, mean: jax.Array, value: float) -> jax.Array:
    """The activations [… n] that replace `h` [… n].

    "mean": the neuron's mean over the data set, `mean` [n]; "zero": 0; "fixed": `value`; "scale": `value` times its activation.
    """
    match kind:
        case "mean":
            return jnp.broadcast_to(mean, h.shape)
        case "zero":
            return jnp.zeros_like(h)
        case "fixed":
            return jnp.full_like(h, value)
        case "scale":
            return value * h


def clipped(h: jax.Array, mean: jax.Array, rises: jax.Array) -> jax.Array:
    """The activations [… n] that replace `h` [… n] in a clip mean-ablation: `mean` [n] where a neuron that `rises`, bool [n], is above it,
    and where one that does not is below.

    Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5.
    """
    return jnp.where(rises, jnp.minimum(h, mean), jnp.maximum(h, mean))

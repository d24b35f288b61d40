"""Products of activations with weights. Letters: b batch, t position."""

import math

import jax


def product(x: jax.Array, weights: jax.Array, axes: int = 1) -> jax.Array:
    """x [b t …] times weights over x's last `axes` axes, which are the weights' first: [b t …].

    All positions form the rows of one matrix. From it XLA on CPU computes the gradient of the weights in half the time
    that a product with separate axes for batch and position takes.
    """
    shared = math.prod(weights.shape[:axes])
    out = x.reshape(-1, shared) @ weights.reshape(shared, -1)
    return out.reshape(*x.shape[:2], *weights.shape[axes:])

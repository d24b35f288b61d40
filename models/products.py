"""Products of activations with weights. Letters: b batch, t position."""

import math

import jax


def product(x: jax.Array, weights: jax.Array, axes: int = 1) -> jax.Array:
    """The product of x [b t …] and weights, summed over the last `axes` axes of x and the first of weights: [b t …].

    Batch and position are merged into one axis, because XLA on CPU then computes the gradient of the weights in half
    the time.
    """
    shared = math.prod(weights.shape[:axes])
    out = x.reshape(-1, shared) @ weights.reshape(shared, -1)
    return out.reshape(*x.shape[:2], *weights.shape[axes:])

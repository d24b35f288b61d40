"""Mean ablation: activations are set to a mean, at every position or, when clipped, only where they are beyond it.

Letters: b window, t position, n neuron, c neuron set. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.ablation import LayerAblation


def set_to(mean: np.ndarray | jax.Array) -> LayerAblation:
    """Sets the activations of a layer to `mean` [n]."""
    return LayerAblation("linear", jnp.asarray(mean, jnp.float32), 0.0)


def clipped_at(mean: np.ndarray | jax.Array, rises: np.ndarray | jax.Array) -> LayerAblation:
    """Clips the activations of a layer at `mean` [n]: those above it where `rises`, bool [n], and else those below."""
    return LayerAblation("clip", jnp.asarray(mean, jnp.float32), jnp.where(rises, 1.0, -1.0))


def summed(change: np.ndarray, real: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of changes [c b t]: over the real windows, [c t], and over the counted positions of each real window, [b c].

    `real`: bool [b]; `counted`: bool [b t]. float64.
    """
    of_real = change.astype(np.float64)[:, real]
    return of_real.sum(1), np.where(counted[real], of_real, 0).sum(-1).T

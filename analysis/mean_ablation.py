"""Mean ablation: activations are set to a mean, at every position or, when clipped, only where they are beyond it.

Letters: b window, t position, n neuron, c neuron set. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.ablation import clipped


class MeanAblation(NamedTuple):
    """How the neurons of a layer are ablated."""

    mean: Any  # n: the value that activations are set to
    # bool n: true where only activations above the mean are set to it, false where only those below it are. None: all.
    rises: Any = None

    def ablated(self, h: jax.Array) -> jax.Array:
        """The activations [… n] that replace `h` [… n]; float32 if `h` is."""
        mean = jnp.asarray(self.mean, h.dtype)
        return jnp.broadcast_to(mean, h.shape) if self.rises is None else clipped(h, mean, jnp.asarray(self.rises))


def summed(change: np.ndarray, real: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of changes [c b t]: over the real windows, [c t], and over the counted positions of each real window, [b c].

    `real`: bool [b]; `counted`: bool [b t]. float64.
    """
    of_real = change.astype(np.float64)[:, real]
    return of_real.sum(1), np.where(counted[real], of_real, 0).sum(-1).T

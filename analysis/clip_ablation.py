"""Clip ablation: activations on one side of a mean are set to it (`jaxconf.analysis.ablation.clipped`).

Letters: b window, t position, n neuron, c neuron set. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5.
"""

from typing import Any, NamedTuple

import numpy as np


class Clip(NamedTuple):
    """How the neurons of a layer are clipped."""

    mean: Any  # n: the value that clipped activations are set to
    rises: Any  # bool n: true where activations above the mean are clipped, false where those below it are


def summed(change: np.ndarray, real: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of changes [c b t]: over the real windows, [c t], and over the counted positions of each real window, [b c].

    `real`: bool [b]; `counted`: bool [b t]. float64.
    """
    of_real = change.astype(np.float64)[:, real]
    return of_real.sum(1), np.where(counted[real], of_real, 0).sum(-1).T

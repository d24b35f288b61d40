"""When each neuron first meets a criterion. Letters: S measured step, n neuron."""

import numpy as np


def first_steps(steps: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """The first of the ascending `steps` [S] at which a criterion `holds`, bool [S n]: float64 [n], NaN for never."""
    first = np.asarray(steps, float)[holds.argmax(0)]
    return np.where(holds.any(0), first, np.nan)

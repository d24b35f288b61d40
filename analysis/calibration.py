"""How far a model's confidence is from its accuracy. Letter: p position. Source: Guo et al. 2017 (arXiv 1706.04599), section 3."""

import numpy as np


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """ECE: over `bins` equal bins of confidence, the mean |accuracy − confidence|, weighted by how many positions fall into each.

    `confidence` [p]: probability (0 to 1) of the most likely token; `correct` [p]: whether it is the token that follows.
    """
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=correct.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))

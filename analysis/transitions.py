"""From which answer to which: what ablation does to the classes of answers when context and memory disagree.

Letters: c set of neurons, p prompt. An answer is CK (the context's object), PK (the model's own) or ND (neither). Tables are class before by class
after, both in the order of CLASSES. Source: Tighidet et al. 2025 (arXiv 2509.10663); the formulas of the ratios and of the score are ours.
"""

import numpy as np
import scipy.stats

CLASSES = ("CK", "PK", "ND")


def transition_tables(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How many prompts went from each class to each, int64 [c 3 3], from classes before, int [p], and after, int [c p]."""
    n = len(CLASSES)
    return np.stack([np.bincount(before * n + of_set, minlength=n * n).reshape(n, n) for of_set in after])


def conversion_ratios(tables: np.ndarray) -> np.ndarray:
    """Of the prompts of each class before, the share that is of another after, float64 [… 3] (0 to 1); NaN for a class without prompts."""
    whole, stayed = tables.sum(-1), np.diagonal(tables, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return np.where(whole > 0, 1 - stayed / whole, np.nan)


def transition_scores(tables: np.ndarray) -> np.ndarray:
    """The global transition score: of all prompts, the share whose class is another after, float64 […] (0 to 1)."""
    return 1 - np.trace(tables, axis1=-2, axis2=-1) / tables.sum((-2, -1))


def means_by_transition(before: np.ndarray, after: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of `values` [c p] over the prompts of each transition, float64 [c 3 3]; NaN where no prompt made it."""
    n = len(CLASSES)
    sums = [np.bincount(before * n + of_set, value, n * n).reshape(n, n) for of_set, value in zip(after, values, strict=True)]
    with np.errstate(invalid="ignore"):
        return np.stack(sums) / transition_tables(before, after)


def quantile_among(own: float, others: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """The share of `others` [c] that lie below `own`, equal ones counted half, and its Clopper-Pearson interval, for which equal ones count
    as above at its low end and as below at its high end. NaN without others, or where a value is not a number.
    """
    n, below, equal = len(others), int((others < own).sum()), int((others == own).sum())
    if not n or np.isnan(own) or np.isnan(others).any():
        return np.nan, np.nan, np.nan
    beta, tail, most = scipy.stats.beta, (1 - level) / 2, below + equal
    low = float(beta.ppf(tail, below, n - below + 1)) if below else 0.0
    high = float(beta.ppf(1 - tail, most + 1, n - most)) if most < n else 1.0
    return (below + equal / 2) / n, low, high

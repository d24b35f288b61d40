"""How ablation changes the classes of answers to prompts whose context contradicts what the model has memorized.

Letters: c neuron set, p prompt. An answer is CK (it begins with the context's object), PK (with the model's own object)
or ND (with neither). A transition table counts prompts by their class before ablation (rows) and after it (columns),
both in the order of CLASSES. Source: Tighidet et al. 2025 (arXiv 2509.10663); the formulas of the ratios and of the
score are this project's own.
"""

import numpy as np
import scipy.stats

CLASSES = ("CK", "PK", "ND")
LEAST = 1e-7  # a smaller probability of ND cannot be told from rounding
MEASURES = (
    "transition_score",
    *(f"conversion_{name}" for name in CLASSES),
    *(f"share_{name}" for name in CLASSES),
    "entropy_change",
    *(f"log_p_{name}_change" for name in CLASSES),
    *(f"log_p_first_{name}_change" for name in CLASSES[:2]),
)
"""The measures of each neuron set."""


def three_classes(log_p: np.ndarray) -> np.ndarray:
    """The log-probabilities of CK, PK and ND, float64 [… 3] in nats, from those of CK and PK [… 2].

    ND has what is left of 1, but at least LEAST.
    """
    rest = 1 - np.exp(log_p.astype(np.float64)).sum(-1, keepdims=True)
    return np.concatenate([log_p, np.log(np.maximum(rest, LEAST))], -1)


def transition_tables(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Transition tables, int64 [c 3 3], from classes before, int [p], and after, int [c p], as indices into CLASSES."""
    n = len(CLASSES)
    return np.stack([np.bincount(before * n + of_set, minlength=n * n).reshape(n, n) for of_set in after])


def conversion_ratios(tables: np.ndarray) -> np.ndarray:
    """For each class, the share of its prompts that change to another class, float64 [… 3], from tables [… 3 3].

    NaN for a class without prompts before ablation.
    """
    whole, stayed = tables.sum(-1), np.diagonal(tables, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return np.where(whole > 0, 1 - stayed / whole, np.nan)


def transition_scores(tables: np.ndarray) -> np.ndarray:
    """The global transition score, float64 […], of tables [… 3 3]: the share of the prompts that change their class."""
    return 1 - np.trace(tables, axis1=-2, axis2=-1) / tables.sum((-2, -1))


def means_by_transition(before: np.ndarray, after: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of `values` [c p] over the prompts of each transition, float64 [c 3 3].

    `before`: classes, int [p]; `after`: int [c p]. NaN for a transition that no prompt makes.
    """
    n = len(CLASSES)
    sums = [
        np.bincount(before * n + of_set, value, n * n).reshape(n, n)
        for of_set, value in zip(after, values, strict=True)
    ]
    with np.errstate(invalid="ignore"):
        return np.stack(sums) / transition_tables(before, after)


def measures_of_sets(
    tables: np.ndarray, entropy: np.ndarray, log_p: np.ndarray, log_p_first: np.ndarray
) -> dict[str, np.ndarray]:
    """MEASURES of each set, float64 [c] each.

    `tables`: transition tables, int [c 3 3]. The changes, in nats, of the entropy: `entropy` [c p]; of the
    log-probabilities of the classes: `log_p` [c p 3]; of those of the first tokens of the objects of CK and PK:
    `log_p_first` [c p 2].
    """
    shares = tables.sum(1) / tables.sum((1, 2))[:, None]
    columns = [
        transition_scores(tables),
        *conversion_ratios(tables).T,
        *shares.T,
        entropy.mean(1, dtype=np.float64),
        *log_p.mean(1, dtype=np.float64).T,
        *log_p_first.mean(1, dtype=np.float64).T,
    ]
    return dict(zip(MEASURES, columns, strict=True))


def quantile_among(own: float, others: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """The share of `others` [c] that are below `own`, and the ends of its Clopper-Pearson interval.

    A value that equals `own` counts as half below; for the interval it counts as above at the low end and as below at
    the high end. NaN if there are no others, or if any value is NaN.
    """
    n, below, equal = len(others), int((others < own).sum()), int((others == own).sum())
    if not n or np.isnan(own) or np.isnan(others).any():
        return np.nan, np.nan, np.nan
    beta, tail, most = scipy.stats.beta, (1 - level) / 2, below + equal
    low = float(beta.ppf(tail, below, n - below + 1)) if below else 0.0
    high = float(beta.ppf(1 - tail, most + 1, n - most)) if most < n else 1.0
    return (below + equal / 2) / n, low, high

"""Rules by which papers name entropy neurons, beside that of `jaxconf.results.rules`, which tables call `default`.

Letters: N neurons.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.selection import COUNT, LEAST_RHO, candidates
from jaxconf.results.rules import Rules

TOP_NORMS, LOWEST_VARIANCES = 0.1, 0.01  # shares of a layer's neurons
GATE_ENTROPY, GATE_TOP1, GATE_NORM = 0.02, 0.01, 0.3  # nats, share of positions, length of the stream


class Rule(NamedTuple):
    """A rule, and the neurons that it names."""

    name: str
    text: str  # the rule and its thresholds, one sentence
    named: pd.Series  # bool [N]


def entropy_rules(rules: Rules, frame: pd.DataFrame) -> list[Rule]:
    """The entropy neurons of a table by every rule, `default` first. `frame`: as `NeuronTable.frame`.

    A rule names no neuron if what it asks for was not measured (`gates` below the last layer).
    """
    named: list[tuple[str, str, Callable[[pd.DataFrame], np.ndarray]]] = [
        (
            "paper",
            f"The norm of w_out is among the highest {TOP_NORMS:.0%} of the layer and LogitVar among the lowest "
            f"{LOWEST_VARIANCES:.0%} (Stolfo et al. 2024, Figure 2a, which gives no thresholds).",
            _paper,
        ),
        (
            "gates",
            "null_proxy is above the layer's 98th percentile; and clipping the activation to its mean where it is "
            f"above its 0.9 quantile changes the mean entropy there by more than {GATE_ENTROPY:g} nats, the stream's "
            f"mean length by at least {GATE_NORM:g}, and the most likely token at fewer than {GATE_TOP1:.0%} of those "
            "positions (Zahrivyi 2026; only in the last layer).",
            _gates,
        ),
        (
            "candidates",
            f"The {COUNT} neurons of the layer with the lowest LogitVar among those with rho_at_tighidet of at "
            f"least {LEAST_RHO:g} (Tighidet et al. 2025).",
            _candidates,
        ),
    ]
    return [
        Rule("default", rules.describe()[0], frame["is_entropy_neuron"].astype(bool)),
        *(Rule(name, text, _in_each_layer(frame, rule)) for name, text, rule in named),
    ]


def _in_each_layer(frame: pd.DataFrame, rule: Callable[[pd.DataFrame], np.ndarray]) -> pd.Series:
    named = pd.Series(False, frame.index)
    for _, rows in frame.groupby("layer"):
        named[rows.index] = rule(rows)
    return named


def _paper(rows: pd.DataFrame) -> np.ndarray:
    high = rows["w_norm"] >= rows["w_norm"].quantile(1 - TOP_NORMS)
    return (high & (rows["logit_var"] <= rows["logit_var"].quantile(LOWEST_VARIANCES))).to_numpy()


def _gates(rows: pd.DataFrame) -> np.ndarray:
    # The proxy needs no test: only neurons above its percentile have the other columns.
    moves = (rows["gate_entropy_delta"].abs() > GATE_ENTROPY) & (rows["gate_norm_delta"].abs() >= GATE_NORM)
    return (moves & (rows["gate_top1_change"] < GATE_TOP1)).to_numpy()


def _candidates(rows: pd.DataFrame) -> np.ndarray:
    named = np.zeros(len(rows), bool)
    named[candidates(rows["logit_var"].to_numpy(), rows["rho_at_tighidet"].to_numpy())] = True
    return named

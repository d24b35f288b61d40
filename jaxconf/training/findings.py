"""The findings of a track: what holds of each neuron at each step, and when each first meets each criterion.

Letters: S measured step, n neuron.
"""

import numpy as np
import pandas as pd

from jaxconf.analysis.emergence import first_steps
from jaxconf.results.rules import Rules, rules_from
from jaxconf.training.emergence import Emergence


def rules_of(e: Emergence) -> Rules:
    """The rules by which the track's neurons were called entropy or frequency neurons."""
    return rules_from(e.facts)


def over_steps(e: Emergence, column: str) -> pd.DataFrame:
    """A column of the neurons as a table [S n]: a row for each step, a column for each neuron's name.

    If the track lacks the column, all values are NaN, or False for the column of a rule.
    """
    shape = len(e.steps), len(e.neurons) // len(e.steps)
    missing = False if column.startswith("is_") else np.nan
    values = e.neurons[column].to_numpy().reshape(shape) if column in e.neurons else np.full(shape, missing)
    names = [f"{e.facts['layer']}.{neuron}" for neuron in range(shape[1])]
    return pd.DataFrame(values, pd.Index(e.steps["step"]), names)


def above_chance(e: Emergence) -> pd.DataFrame:
    """Whether rho is above its chance level, for each step and neuron, bool [S n]."""
    return over_steps(e, "rho").gt(e.steps["rho_chance"].to_numpy(), axis=0)


def with_effects(e: Emergence) -> pd.Series:
    """Whether effects were measured, for each step, bool [S]."""
    return over_steps(e, "loss_abs_delta").notna().any(axis=1)


def first_met(e: Emergence) -> tuple[pd.DataFrame, np.ndarray]:
    """The step at which each neuron first meets each criterion, NaN for never; and the steps that were judged.

    The table has a row for each neuron. Its columns are the criteria: "weights" (rho above chance), "cause"
    (ln_mediated at least as large as the entropy rule asks for), "entropy" and "frequency" (the rules). Only steps with
    effects are judged, or all steps if effects were never measured.
    """
    effects = with_effects(e)
    holds = {
        "weights": above_chance(e),
        "cause": over_steps(e, "ln_mediated") >= rules_of(e).min_ln_mediated,
        "entropy": over_steps(e, "is_entropy_neuron"),
        "frequency": over_steps(e, "is_frequency_neuron"),
    }
    judged = effects | ~effects.any()
    steps = effects.index[judged].to_numpy()
    first = {name: first_steps(steps, held[judged].to_numpy()) for name, held in holds.items()}
    return pd.DataFrame(first, holds["weights"].columns), steps


def order_met(first: pd.DataFrame) -> dict[str, int]:
    """How many neurons met "weights" first, "cause" first, or both at one step; how many met both, or only one."""
    weights, cause = first["weights"], first["cause"]
    which = {
        "weights": weights < cause,
        "same": weights == cause,
        "cause": cause < weights,
        "both": weights.notna() & cause.notna(),
        "weights_only": weights.notna() & cause.isna(),
        "cause_only": cause.notna() & weights.isna(),
    }
    return {name: int(met.sum()) for name, met in which.items()}

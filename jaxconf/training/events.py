"""The order of events in a track: when the chain is learnt, when the levels separate, when the neurons come.

Letters: S measured step, n neuron, L level of noise. Losses, entropies and divergences are in nats.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.training.emergence import Emergence
from jaxconf.training.findings import above_chance, over_steps, rules_of, with_effects

LEARNT = 0.9
"""The chain is learnt at this share of the accuracy that knowing the chain gives."""
SEPARATED = 0.5
"""The levels are separated at this share of the range of the best entropies."""
OPEN = 0.5
"""The null space is open below this share of what `spectrum_gap` is at the first measured step."""
FOLLOWED = ("rho", "ln_mediated", "entropy_abs_delta", "temperature_r2")

WORDS = {
    "chain": "the chain is learnt",
    "levels": "the entropies separate the levels of noise",
    "rho": "the first neuron has rho above chance",
    "null_space": "the null space opens",
    "mediation": "the first neuron with rho above chance acts through the norm",
    "entropy": "the first neuron meets the entropy rule",
    "frequency": "the first neuron meets the frequency rule",
}
"""Each event in words."""
NEVER = {
    "chain": "the chain is never learnt",
    "levels": "the entropies never separate the levels of noise",
    "rho": "no neuron ever has rho above chance",
    "null_space": "the null space never opens",
    "mediation": "no neuron with rho above chance ever acts through the norm",
    "entropy": "no neuron ever meets the entropy rule",
    "frequency": "no neuron ever meets the frequency rule",
}
"""Each event in words if it never happens."""
DEFINITIONS = {
    "chain": f"At the lowest level of noise, ε, the accuracy is at least {LEARNT:g} (1 − ε). A model that always "
    "predicts the word that a permutation gives is right for the share 1 − ε of the words. With a table of "
    "probabilities (chain=bigram) the best accuracy is lower, and the event may never happen. Accuracy says nothing of "
    "confidence.",
    "levels": "The model's entropy rises from each level of noise to the next, and its range over the levels is at "
    f"least {SEPARATED:g} of that of the best entropies.",
    "rho": "At least one neuron has rho above the chance level.",
    "null_space": "The smallest singular value of the folded unembedding, as a share of the median one, is below "
    f"{OPEN:g} of what it was at the first measured step. No fixed share would do, because that of a random matrix "
    "depends on its shape.",
    "mediation": "At least one neuron with rho above chance has ln_mediated of at least min_ln_mediated of the entropy "
    "rule. Only steps with effects are judged.",
    "entropy": "At least one neuron meets the entropy rule. Only steps with effects are judged.",
    "frequency": "At least one neuron meets the frequency rule. Only steps with effects are judged.",
}
"""What each event asks for at a step."""


class ByLevel(NamedTuple):
    """How the model's predictions, unablated, compare with the best ones at each level of noise, lowest first.

    Each is a table [S L], with a row for each step and a column for each level that has positions.
    """

    noise: np.ndarray  # float64 [L]: the ε of each level
    entropy: pd.DataFrame
    best_entropy: pd.DataFrame
    accuracy: pd.DataFrame


def by_level(e: Emergence) -> ByLevel | None:
    """The unablated predictions by level, or None if the best ones are not known."""
    if e.optimum.empty:
        return None
    rows = e.optimum[(e.optimum["kind"] == "none") & (e.optimum["level"] >= 0)]
    if rows.empty:
        return None
    tables = {name: rows.pivot_table(values=name, index="step", columns="level") for name in ByLevel._fields}
    noise = tables.pop("noise").iloc[0].to_numpy()
    return ByLevel(noise, **{name: table.reindex(e.steps["step"]) for name, table in tables.items()})


def separation(of: ByLevel) -> pd.Series:
    """The entropy at the highest level less that at the lowest one, as a share of the same for the best entropies, [S].

    1 is the best possible; 0 is a model that is equally sure at all levels. NaN if there is only one level.
    """
    best = of.best_entropy.iloc[:, -1] - of.best_entropy.iloc[:, 0]
    return (of.entropy.iloc[:, -1] - of.entropy.iloc[:, 0]) / best.where(best > 0)


def spectrum_gap(e: Emergence) -> pd.Series:
    """The smallest singular value of the folded unembedding as a share of the median of all, [S]."""
    middle = np.median(e.singular_values, 1)
    return pd.Series(e.singular_values[:, -1] / np.where(middle > 0, middle, np.nan), e.steps["step"])


def events(e: Emergence) -> pd.DataFrame:
    """When each event of WORDS first happened: a row for each. DEFINITIONS says what an event asks for.

    `step`: the first measured step at which it holds, NaN if it never does. `after`: the measured step before that one,
    at which it did not hold yet, so that it happened between the two; NaN if it holds from the first step on. `judged`:
    at how many steps it could be judged, 0 if what it asks for was not measured. Only these are steps here.
    """
    of, gap, effects, above = by_level(e), spectrum_gap(e), with_effects(e), above_chance(e)
    never = pd.Series(False, e.steps["step"])
    chain = levels = chain_judged = levels_judged = never
    if of is not None:
        lowest, range_ = of.accuracy.iloc[:, 0], separation(of)
        chain, chain_judged = lowest >= LEARNT * (1 - of.noise[0]), lowest.notna()
        rising = (of.entropy.diff(axis=1).iloc[:, 1:] > 0).all(axis=1)
        levels, levels_judged = rising & (range_ >= SEPARATED), range_.notna()
    mediated = above & (over_steps(e, "ln_mediated") >= rules_of(e).min_ln_mediated)
    found = {
        "chain": (chain, chain_judged),
        "levels": (levels, levels_judged),
        "rho": (above.any(axis=1), ~never),
        "null_space": (gap < OPEN * gap.iloc[0], gap.notna()),
        "mediation": (mediated.any(axis=1), effects),
        **{kind: (over_steps(e, f"is_{kind}_neuron").any(axis=1), effects) for kind in ("entropy", "frequency")},
    }
    return pd.DataFrame({name: _first(*how) for name, how in found.items()}, ["step", "after", "judged"]).T


def _first(holds: pd.Series, judged: pd.Series) -> list[float]:
    """A row of `events`. `holds`, `judged`: bool [S], indexed by step."""
    holds = holds[judged]
    if not holds.any():
        return [np.nan, np.nan, len(holds)]
    at = int(holds.to_numpy().argmax())
    return [holds.index[at], holds.index[at - 1] if at else np.nan, len(holds)]


def in_order(happened: pd.DataFrame) -> pd.DataFrame:
    """The rows of `events` that happened, by their steps; those of one step stay in the order of WORDS."""
    return happened.dropna(subset="step").sort_values("step", kind="stable")


def event_lines(e: Emergence) -> list[str]:
    """The events in order, a sentence each, and then those that never happened although they could be judged."""
    found = events(e)
    lines = [
        f"Step {row.step:,.0f}: {WORDS[name]} ({_not_before(row.after)})." for name, row in in_order(found).iterrows()
    ]
    never = found.index[found["step"].isna() & (found["judged"] > 0)]
    return [*lines, *(f"{NEVER[name].capitalize()}." for name in never)]


def _not_before(after: float) -> str:
    return "as at the first step judged" if np.isnan(after) else f"not yet at step {after:,.0f}"


def followed_neurons(e: Emergence) -> tuple[list[str], bool]:
    """The names of the neurons to follow, largest final rho first, and whether they are entropy neurons at the end.

    They are those that meet the entropy rule at the last step with effects or, if none does, those that ever met it.
    """
    met, effects = over_steps(e, "is_entropy_neuron"), with_effects(e)
    if not effects.any():
        return [], False
    last = met.loc[effects.index[effects][-1]]
    named = last if last.any() else met.any()
    return list(over_steps(e, "rho").iloc[-1][named].sort_values(ascending=False).index), bool(last.any())


def followed(e: Emergence) -> pd.DataFrame:
    """What `followed_neurons` were at every step, before they met the entropy rule and after.

    A row for each of these neurons and each measured step: `neuron` (its name), `step`, `rho`, `above_chance` (whether
    rho is), `ln_mediated`, `entropy_abs_delta` (nats), `temperature_r2` (0 to 1) and `is_entropy_neuron`. What was not
    measured at a step is NaN.
    """
    (names, _), above = followed_neurons(e), above_chance(e)
    tables = {name: over_steps(e, name)[names] for name in FOLLOWED}
    tables |= {"above_chance": above[names], "is_entropy_neuron": over_steps(e, "is_entropy_neuron")[names]}
    order = ["rho", "above_chance", *FOLLOWED[1:], "is_entropy_neuron"]
    columns = {"neuron": np.repeat(names, len(e.steps)), "step": np.tile(e.steps["step"], len(names))}
    return pd.DataFrame(columns | {name: tables[name].to_numpy().T.ravel() for name in order})

"""What the tables of `jaxconf tasks` show, in a few sentences."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxconf.models.errors import listed
from jaxconf.results.words import counted, number, reading_notes
from jaxconf.studies.tasks.neurons import MEAN

if TYPE_CHECKING:
    from jaxconf.studies.tasks.study import Tasks

WORDS = {
    "acc": "by the log-probability of the choices (acc)",
    "acc_norm": "per byte (acc_norm)",
    "acc_token": "per token (acc_token)",
    "match": "(match: the model's answer begins with the right one)",
}
TOLD = {
    "accuracy": "the accuracy",
    "confidence": "the mean confidence",
    "ece": "the ECE",
    "auroc": "the AUROC of confidence for correctness",
}
FEW = 100  # questions: with fewer, intervals say little
MOST_NAMED = 12
SURE = 0.05  # q, at most, of a neuron that is said to fire at forks


def sentences(found: "Tasks") -> list[str]:
    """How the unablated model answers, what each selection changes beside random sets, and where its neurons fire."""
    return [
        _of_answers(found),
        *(_of_selection(found, selection) for selection in found.selections),
        *(_of_scaling(found, selection) for selection in found.selections if len(found.treatments) > 1),
        *([_of_forks(found)] if len(found.forks) else []),
        *_doubts(found.facts),
        *reading_notes(found.facts),
        "Confidence is the largest share of the softmax over the choices' scores, and for short answers the geometric "
        "mean of the probabilities of the answer's tokens. Intervals are from drawing the questions again, the same "
        "for all sets. A change whose interval includes 0, or that random sets have too, says nothing.",
    ]


def _of_answers(found: "Tasks") -> str:
    facts, score = found.facts, found.scores[0]
    before = found.sets[found.sets["kind"] == "none"].set_index("score")
    shares = ", ".join(f"{before.loc[name, 'accuracy']:.1%} {WORDS[name]}" for name in found.scores)
    chance = "" if facts["chance"] is None else f"; chance is {facts['chance']:.1%}"
    own = before.loc[score]
    row = _rows(found.changes, MEAN, found.selections[0], score)["accuracy"]
    return (
        f"Of {counted(facts['questions'], 'question')} ({facts['kind']}), the unablated model is right in {shares}"
        f"{chance}. By {score}, the interval of the accuracy is {row['before_lo']:.1%} to {row['before_hi']:.1%}, the "
        f"mean confidence is {own['confidence']:.1%}, ECE {number(own['ece'])}, Brier score {number(own['brier'])}, "
        f"AUROC {number(own['auroc'])} and AURC {number(own['aurc'])}."
    )


def _of_selection(found: "Tasks", selection: str) -> str:
    score, names = found.scores[0], found.neurons.loc[found.neurons["selection"] == selection, "neuron"].tolist()
    rows, controls = _rows(found.changes, MEAN, selection, score), found.facts["controls"]
    said = [f"{words} by {_change(rows[measure])}" for measure, words in TOLD.items()]
    random = f" “Beyond” is the difference from the mean of {counted(controls, 'random set')}." if controls else ""
    means = "their means" if len(names) > 1 else "its mean"
    return (
        f"Setting the {counted(len(names), found.facts['nouns'][selection])} “{selection}” "
        f"({listed(names, MOST_NAMED)}; chosen by {found.facts['chosen_by'][selection]}) to {means} changes, by "
        f"{score}, {'; '.join(said)}.{random}"
    )


def _of_scaling(found: "Tasks", selection: str) -> str:
    score, parts = found.scores[0], []
    for treatment in found.treatments:
        if treatment != MEAN:
            rows = _rows(found.changes, treatment, selection, score)
            parts.append(
                f"by {treatment.removeprefix('x')} the accuracy is {rows['accuracy']['value']:.1%}, the mean "
                f"confidence {rows['confidence']['value']:.1%} and the ECE {number(rows['ece']['value'])}"
            )
    return f"With the activations of “{selection}” multiplied " + "; ".join(parts) + "."


def _of_forks(found: "Tasks") -> str:
    every = found.forks.drop_duplicates("neuron")
    sure = every[every["q"] <= SURE]
    more, less = (sure[sign * sure["difference"] > sign * sure["null_mean"]] for sign in (1, -1))
    positions, forks = len(found.tokens), int(found.tokens["is_fork"].sum())

    def named(rows: pd.DataFrame) -> str:
        names = listed(rows["neuron"].tolist(), MOST_NAMED)
        return f"{len(rows):,} ({names})" if names else "0"

    return (
        f"The reasoning text has {counted(positions, 'kept position')}, of which {forks:,} are forks (entropy above "
        f"the 0.9 quantile). {found.noun.capitalize()}s whose mean activation there is higher than circular shifts of "
        f"the forks within documents give (q ≤ {SURE:g}): {named(more)} of {len(every):,}; lower: {named(less)}."
    )


def _doubts(facts: Mapping[str, Any]) -> list[str]:
    if facts["questions"] >= FEW:
        return []
    return [f"With {counted(facts['questions'], 'question')}, fewer than {FEW}, the intervals are wide and not exact."]


def _rows(changes: pd.DataFrame, treatment: str, selection: str, score: str) -> dict[str, dict[str, Any]]:
    """Measure → its row."""
    own = changes["treatment"].eq(treatment) & changes["selection"].eq(selection) & changes["score"].eq(score)
    return {row["measure"]: row for row in changes[own].to_dict("records")}


def _change(row: Mapping[str, Any]) -> str:
    """A change and, if there are random sets, how it compares with theirs."""

    def spanned(name: str) -> str:
        return f"{number(row[name])} ({number(row[f'{name}_lo'])} to {number(row[f'{name}_hi'])})"

    if not np.isfinite(row["quantile"]):
        return spanned("change")
    return f"{spanned('change')}, beyond {spanned('beyond_random')}, quantile {number(row['quantile'])}"

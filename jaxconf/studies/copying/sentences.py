"""What the tables of `jaxconf copying` show, and what they do not, in a few sentences."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxconf.analysis.selection import SIZES
from jaxconf.analysis.transitions import CLASSES
from jaxconf.results.words import counted, number, reading_notes
from jaxconf.studies.copying.neurons import CHOSEN, PUBLISHED

if TYPE_CHECKING:
    from jaxconf.studies.copying.study import Copying

FEW, MANY = 0.05, 0.9  # shares of the prompts that a sentence is about


def sentences(found: "Copying") -> list[str]:
    """The answers of the unablated model, what ablation changes compared with random sets, and how to read it."""
    counts = found.prompts["class"].value_counts().reindex(CLASSES, fill_value=0)
    return [
        *_of_answers(found, counts),
        *(say for selection in found.selections for say in _of_selection(found.of(selection), selection, counts)),
        *reading_notes(found.facts),
        _of_meaning(found.facts),
    ]


def _of_answers(found: "Copying", counts: pd.Series) -> list[str]:
    facts, prompts, shares = found.facts, found.prompts, counts / len(found.prompts)
    alike = int(np.isclose(prompts["log_p_first_CK"], prompts["log_p_first_PK"], rtol=0, atol=1e-5).sum())
    said = [
        f"{facts['statements_asked']:,} statements were asked; {facts['statements']:,} of them can be contradicted, "
        f"and the model knows {found.statements['knows'].sum():,} of these. There are {len(prompts):,} prompts whose "
        f"context contradicts the model's own object. The model answers {shares['CK']:.1%} of them with the context's "
        f"object (CK), {shares['PK']:.1%} with its own (PK), and {shares['ND']:.1%} with something else (ND)."
    ]
    if shares["ND"] > 0.5:
        said.append(
            f"{'Almost all' if shares['ND'] > MANY else 'Most'} answers are neither the context's object nor the "
            f"model's own: only {_prompts(counts['CK'] + counts['PK'])} can tell which of the two it repeats."
        )
    repeated = {"CK": "its context", "PK": "its memory"}
    rare = [f"{what} in only {_prompts(counts[name])}" for name, what in repeated.items() if shares[name] < FEW]
    if rare:
        said.append(
            f"The model repeats {' and '.join(rare)}, so these statements say next to nothing about when it copies."
        )
    if alike:
        said.append(
            f"In {_prompts(alike)} both objects begin with the same token, so first tokens do not tell them apart."
        )
    return said


def _of_selection(found: "Copying", selection: str, counts: pd.Series) -> list[str]:
    """`found`: the rows of the selection only."""
    said = [_of_scores(found, selection), _of_classes(found, counts), _of_first_tokens(found), _of_other_values(found)]
    return [_of_published(found), *said] if selection == PUBLISHED else said


def _of_published(found: "Copying") -> str:
    facts, count = found.facts, len(found.neurons)
    smallest, largest = SIZES
    few = f", but only {count} {'has' if count == 1 else 'have'} so high a rho" if count < smallest else ""
    return (
        f"The published neurons are chosen by {facts['published_by']}. k is {facts['published_k']}, "
        f"{facts['published_k_from']}. The paper's sets have {smallest} to {largest} neurons{few}."
    )


def _of_scores(found: "Copying", selection: str) -> str:
    own, names = _row(found, "transition_score"), found.facts[selection]
    noun = found.facts["noun"] if selection == CHOSEN else "neuron"
    by = f" (chosen by {found.facts['chosen_by']})" if selection == CHOSEN else ""
    return (
        f"Setting the {counted(len(names), f'{selection} {noun}')}, {', '.join(names)}{by}, to "
        f"{'their means' if len(names) > 1 else 'its mean'} changes the class of {own['value']:.1%} of the prompts "
        "(the global transition score)" + _among(found, own, "{:.1%}".format)
    )


def _of_classes(found: "Copying", counts: pd.Series) -> str:
    of_set = (found.transitions["ablation"] == "mean") & (found.transitions["kind"] == "set")
    moved = found.transitions[of_set].set_index(["before", "after"])["count"]
    ratios = [f"{found.sets[f'conversion_{name}'].iloc[0]:.1%} of {name}" for name in CLASSES if counts[name]]
    entropy = _row(found, "entropy_change")
    return (
        f"Of the prompts of each class, {', '.join(ratios)} change their class. The class of "
        f"{_prompts(moved['PK', 'CK'])} changes from memory to context, and that of {moved['CK', 'PK']:,} from context "
        f"to memory. The entropy of the first new token's prediction changes by {number(entropy['value'])} nats"
        + _among(found, entropy)
    )


def _of_first_tokens(found: "Copying") -> str:
    context, own = (_row(found, f"log_p_first_{name}_change") for name in ("CK", "PK"))
    return (
        f"The log-probability of the first token of the context's object changes by {number(context['value'])} nats"
        + _among(found, context)
        + f" That of the first token of the model's own object changes by {number(own['value'])} nats"
        + _among(found, own)
    )


def _of_other_values(found: "Copying") -> str:
    rows = found.quantiles[(found.quantiles["measure"] == "transition_score") & (found.quantiles["ablation"] != "mean")]
    scores = []
    for row in rows.to_dict("records"):
        quantile = f", quantile {number(row['quantile'])}" if np.isfinite(row["quantile"]) else ""
        scores.append(f"{row['value']:.1%} ({row['ablation']}{quantile})")
    return f"With other values the score is {', '.join(scores)}."


def _of_meaning(facts: dict[str, Any]) -> str:
    of = "layer" if facts["noun"] == "neuron" else "kind"
    published = f", that of the published {number(facts['published_w_norm'])}" if PUBLISHED in facts else ""
    return (
        f"A score above those of the random sets says that the selected {facts['noun']}s matter more for the answer "
        f"than others of their {of}. If they held copying back, more prompts would go from memory to context than the "
        f"other way, and the random sets would not do the same. Random sets have as many {facts['noun']}s, but not "
        f"equally large ones: the mean ‖w_out‖ of the chosen is {number(facts['w_norm'])}{published}, that of the {of} "
        f"{number(facts['w_norm_layer'])}."
    )


def _row(found: "Copying", measure: str) -> dict[str, Any]:
    """The row of `quantiles` for a measure and the mean ablation; `found` holds one selection."""
    rows = found.quantiles[(found.quantiles["ablation"] == "mean") & (found.quantiles["measure"] == measure)]
    return rows.iloc[0].to_dict()


def _among(found: "Copying", row: dict[str, Any], written: Callable[[float], str] = number) -> str:
    """The end of a sentence, with the mean over the random sets and the quantile of the selected set among them."""
    controls = found.facts["controls"]
    if not controls:
        return "."
    return (
        f"; for random sets this is {written(row['random_mean'])} on average, and this set is at the quantile "
        f"{number(row['quantile'])} of {controls} ({number(row['quantile_lo'])} to {number(row['quantile_hi'])})."
    )


def _prompts(count: int) -> str:
    return f"{count:,} prompt{'' if count == 1 else 's'}"

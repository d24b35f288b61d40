"""Real tasks: how well a model answers questions and knows whether it does, and what its confidence neurons change.

Letters: q question, s window, t position. `jaxconf.data.questions` reads the questions,
`jaxconf.analysis.question_scores` defines scores, confidence and measures, and `jaxconf.analysis.forks` asks whether
neurons fire at forks.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.data.own_text import OWN, source_for
from jaxconf.data.questions import Question, check_kind, read_questions
from jaxconf.data.windows import Windows, digest
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.chosen_sets import NEURONS, populations
from jaxconf.measure.facts import facts_of
from jaxconf.measure.inputs import check_amounts, refuse_mixture, windows_and_facts
from jaxconf.measure.named_sets import Population, by_population
from jaxconf.measure.neuron_sets import Named
from jaxconf.measure.prompts import Asked
from jaxconf.measure.selections import Selected, Selection, selected, selections
from jaxconf.measure.treated_sets import together
from jaxconf.models.decoder import check_runnable
from jaxconf.models.language_model import LanguageModel
from jaxconf.report.run import save_study
from jaxconf.runtime.memory import MEMORY, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing
from jaxconf.studies.tasks.answers import outcomes
from jaxconf.studies.tasks.figures import figures_of
from jaxconf.studies.tasks.measures import (
    table_of_answers,
    table_of_questions,
    tables_of_curves,
    tables_of_measures,
)
from jaxconf.studies.tasks.neurons import check_factors, table_of_neurons, treated
from jaxconf.studies.tasks.page import page
from jaxconf.studies.tasks.reasoning import tables_of_reasoning
from jaxconf.studies.tasks.sentences import sentences


@dataclasses.dataclass
class Tasks:
    """The result of `tasks`. Entropies are in nats, shares from 0 to 1. Neurons are named "layer.index".

    What is said of neurons here is of components where a set names these.

    A `score` is "acc", "acc_norm" or "acc_token" of multiple choice, and "match" of short answers; a `treatment` is
    "none", "mean", or a factor on the activations, such as "x2"; a `selection` is the neurons that are treated.

    questions: a row per question. `row` (its number in the data, from 0), `question` (what the model reads), `choices`,
    `answer`.
    answers: a row per score, treatment, selection and question. The model's `answer`, whether it is `correct`, its
    `confidence`, `entropy` and `brier`.
    sets: a row per score, treatment and neuron set, its `kind` "none", "set" or "random". The measures of
    `jaxconf.analysis.question_scores.MEASURES`.
    changes: a row per score, treatment, selection and measure; see `jaxconf.studies.tasks.measures`.
    reliability: a row per score, treatment, selection and bin of confidence: its `count`, `confidence`, `accuracy`.
    risks: a row per score, treatment, selection and distinct confidence: the `coverage` and the `risk` there.
    neurons: a row per selection and neuron, with the `activation_mean` that "mean" sets it to.
    tokens: a row per kept position of the reasoning text, empty without one. `document`, `window`, `position`, `token`,
    `target` (the token that follows), `entropy`, `is_fork`, and the activation of each neuron under its name.
    forks: a row per selection and neuron, empty without reasoning text. The mean activations `activation_forks` and
    `activation_elsewhere`, their `difference` with its interval over documents, the mean and the range of the
    difference under the null (`null_mean`, `null_lo`, `null_hi`), `p`, and `q` over the neurons.
    """

    facts: dict[str, Any]
    questions: pd.DataFrame
    answers: pd.DataFrame
    sets: pd.DataFrame
    changes: pd.DataFrame
    reliability: pd.DataFrame
    risks: pd.DataFrame
    neurons: pd.DataFrame
    tokens: pd.DataFrame
    forks: pd.DataFrame

    @property
    def scores(self) -> list[str]:
        return list(self.sets["score"].unique())

    @property
    def selections(self) -> list[str]:
        return list(self.neurons["selection"].unique())

    @property
    def noun(self) -> str:
        """What is treated."""
        return "neuron" if set(self.facts["nouns"].values()) == {"neuron"} else "component"

    @property
    def treatments(self) -> list[str]:
        return list(self.changes["treatment"].unique())

    def save(self, folder: str | Path) -> Path:
        """Write tasks.html, its figures, the tables and the facts into the folder, which is created if needed.

        Returns the path of the page.
        """
        return save_study(self, "tasks", sentences(self), figures_of(self), page, folder)


def tasks(
    lm: LanguageModel,
    data: str | Path | Sequence[Question],
    *,
    from_run: str | Path | None = None,
    sets: Sequence[Named] = (),
    components: str = NEURONS,
    scale: Sequence[float] = (0.0, 2.0),
    questions: int = 200,
    text: str = OWN,
    tokens: np.ndarray | Windows | int = 16384,
    reasoning: str | np.ndarray | Windows | None = None,
    reasoning_tokens: int = 4096,
    controls: int = 20,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Tasks:
    """How well a model answers questions, how calibrated it is, and what ablating or scaling sets of neurons changes.

    `data`: questions, or a source of them, as for `jaxconf.read_questions`; `questions` of them are asked, drawn with
    `seed`. The neurons, all of the last layer: the entropy and the frequency neurons of the analysis in the folder
    `from_run`; `sets`, (layer, index) of each neuron, or the names of directions or latents of one kind, such as
    "sae.12,sae.99", from `components`, as for `jaxconf.analyze`; without both, the ten with the highest ρ, for which
    `k` is the size of the null space. They are set to their means over a text (windows, or so many `tokens` of `text`),
    and multiplied by each factor of `scale`. `controls`: random sets of as many others, for each. `reasoning`: text, as
    for `jaxconf.documents`, or windows, whose first `reasoning_tokens` are told token by token. `bootstrap_draws`:
    resamples of the questions and of the text's documents. `memory`: bytes for what is processed together. `facts`: are
    added to those of the result.

    Raises InputError for a model without a tokenizer, a mixture of experts, neurons and components that its last layer
    does not have, questions that do not fit it, and as `jaxconf.read_questions` and `jaxconf.documents` do.
    """
    check_amounts(1, questions=questions, tokens=tokens, reasoning_tokens=reasoning_tokens)
    check_amounts(0, bootstrap_draws=bootstrap_draws, seed=seed)
    check_factors(scale)
    given = read_questions(data) if isinstance(data, str | Path) else check_kind(data)
    _check(lm)
    asked = Asked(lm, lm.tokenizer, memory, progress)
    named = selected(lm, from_run, sets, components, controls, k)
    read, of_text = _windows(asked, text, tokens, "text")
    thought, of_reasoning = _windows(asked, reasoning, reasoning_tokens, "reasoning")
    assert read is not None
    chosen = selections(named, _populations(asked, named, components, k, read.tokens), controls, seed)
    means = _means(asked, read.tokens, chosen)
    timing = Timing()
    rows = np.sort(np.random.default_rng([seed, 1]).permutation(len(given))[:questions])
    drawn = [given[row] for row in rows]
    of_sets, done = treated(chosen, scale, means)
    found = outcomes(asked, drawn, together(done))
    measured, changes = tables_of_measures(found, of_sets, bootstrap_draws, seed, progress)
    reliability, risks = tables_of_curves(found, of_sets)
    of_tokens, forks = _reasoning(asked, thought, chosen, bootstrap_draws, seed)
    own = {**_facts(data, given, drawn, chosen, read.tokens), "seed": seed, "bootstrap": bootstrap_draws}
    pairs = len(drawn) * sum(len(of.one.members) for of in done if of.ablated)
    return Tasks(
        facts_of(lm, own, timing, pairs, {**of_text, **of_reasoning, **(facts or {})}),
        questions=table_of_questions(drawn, rows),
        answers=table_of_answers(found, of_sets),
        sets=measured,
        changes=changes,
        reliability=reliability,
        risks=risks,
        neurons=table_of_neurons(chosen, means),
        tokens=of_tokens,
        forks=forks,
    )


def _check(lm: LanguageModel) -> None:
    check_runnable(lm.params)
    refuse_mixture(lm.config, "the study of tasks")


def _populations(
    asked: Asked, named: Sequence[Selected], components: str, k: int | None, windows: np.ndarray
) -> dict[str, Population]:
    of = [one.of for one in named]
    return populations(asked.lm, of, components, k, windows, None, asked.memory, asked.progress)


def _reasoning(
    asked: Asked, windows: Windows | None, chosen: Sequence[Selection], draws: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`Tasks.tokens` and `Tasks.forks`, which are empty without a reasoning text."""
    if windows is None:
        return pd.DataFrame(), pd.DataFrame()
    return tables_of_reasoning(asked.lm, windows, chosen, draws, seed, asked.memory, asked.progress)


def _means(asked: Asked, windows: np.ndarray, chosen: Sequence[Selection]) -> dict[Population, np.ndarray]:
    """Population → the mean activation of each of its last layer's over windows, int32 [s t]."""
    return {of: _means_of(asked, windows, of) for of in by_population([own.own for own in chosen])}


def _means_of(asked: Asked, windows: np.ndarray, of: Population) -> np.ndarray:
    last = asked.lm.config.n_layers - 1

    def measured(memory: int) -> np.ndarray:
        activity = LayerActivations(asked.lm, windows, last, memory, of.dictionary)
        return activation_statistics(activity, asked.progress).mean

    return fitting(measured, asked.memory, asked.progress)


def _windows(
    asked: Asked, text: str | np.ndarray | Windows | None, tokens: np.ndarray | Windows | int, option: str
) -> tuple[Windows | None, dict[str, Any]]:
    """The windows of a text, if there is one, and the facts about it; `option`: what names it on the command line."""
    if text is None:
        return None, {}
    if not isinstance(text, str):
        return windows_and_facts(text, OWN, asked.lm)
    if not isinstance(tokens, int):
        return windows_and_facts(tokens, text, asked.lm)
    source = source_for(text, asked.lm.folder, f"--{option}")
    asked.progress(f"reading --{option}", 0, 0)
    found, of_reading = windows_and_facts(tokens, source, asked.lm)
    named = {name if option == "text" else f"{option}_{name}": fact for name, fact in of_reading.items()}
    return found, {option: source, **named}


def _facts(
    data: str | Path | Sequence[Question],
    given: Sequence[Question],
    drawn: Sequence[Question],
    chosen: Sequence[Selection],
    text: np.ndarray,
) -> dict[str, Any]:
    kind = "multiple choice" if drawn[0].choices else "short answers"
    chance = float(np.mean([1 / len(one.choices) for one in drawn])) if drawn[0].choices else None
    return {
        "data": str(data) if isinstance(data, str | Path) else "questions",
        "kind": kind,
        "questions_given": len(given),
        "questions": len(drawn),
        "chance": chance,
        "controls": len(chosen[0].sets) - 1,
        "text_tokens": int(text.size),
        "text_sha256": digest(text),
        "selections": {own.name: own.own.listed for own in chosen},
        "chosen_by": {own.name: own.by for own in chosen},
        "nouns": {own.name: own.own.population.noun for own in chosen},
    }

"""Context against memory: which of the two a model repeats if they disagree, with its entropy neurons and without them.

Letters: p prompt, s window, t position. `jaxconf.studies.copying.prompts` makes the prompts, `jaxconf.data.statements`
puts the answers into classes, and `jaxconf.analysis.transitions` computes the measures from the classes. Source:
Tighidet et al. 2025 (arXiv 2509.10663).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.data.own_text import OWN, source_for
from jaxconf.data.statements import objects_of, read_statements
from jaxconf.data.windows import digest
from jaxconf.measure.chosen_sets import NEURONS, check_chosen, populations
from jaxconf.measure.facts import facts_of
from jaxconf.measure.inputs import check_amounts, refuse_mixture, windows_and_facts
from jaxconf.measure.neuron_sets import Named
from jaxconf.measure.prompts import Asked
from jaxconf.models.decoder import check_runnable
from jaxconf.models.language_model import LanguageModel
from jaxconf.report.run import save_study
from jaxconf.runtime.memory import MEMORY
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing
from jaxconf.studies.copying.figures import FIGURES
from jaxconf.studies.copying.neurons import CHOSEN, Selection, selections, table_of_neurons
from jaxconf.studies.copying.page import page
from jaxconf.studies.copying.prompts import (
    NEW_TOKENS,
    contradicting_prompts,
    drawn_statements,
    own_objects,
    usable_statements,
)
from jaxconf.studies.copying.sentences import sentences
from jaxconf.studies.copying.transitions import ABLATIONS, outcomes, table_of_quantiles, tables_of_sets, values_of


@dataclasses.dataclass
class Copying:
    """The result of `copying`. Entropies and log-probabilities are in nats, shares from 0 to 1.

    Neurons are named "layer.index".

    statements: a row per statement that was asked and has prompts. `row` (its number in the file), `relation`, `query`,
    `object`; and the model's answer to the query: `continuation`, `own` (its own object), `knows` (whether that is the
    statement's object), `entropy`.
    prompts: a row per prompt. `statement` (the index of its row above), `context` (the counterfactual object),
    `log_p_query` (the log-probability per token of that object after the query alone), `prompt`; and the answer of the
    unablated model: `continuation`, `class`, `entropy`, `log_p_CK`, `log_p_PK`, `log_p_ND` (of whole objects, and of
    what is left), `log_p_first_CK`, `log_p_first_PK` (of their first tokens).
    The other tables have a column `selection`: "chosen" for the neurons that were named or have the highest ρ, and with
    `as_published` also "published".
    answers: a row per ablation value, selection and prompt. The columns of `prompts`, for the answer with the
    selection's set ablated.
    neurons: a row per selection and neuron. `k`, `rho`, `logit_var`, `w_norm`, and for each ablation value what its
    activation is set to.
    transitions: a row per ablation value, neuron set, and pair of classes, `before` and `after`. The `count` of prompts
    and their mean `entropy_change`.
    sets: a row per ablation value and neuron set, its `kind` "set" or "random". The measures of
    `jaxconf.analysis.transitions.MEASURES`.
    quantiles: a row per ablation value, selection and measure. The `value` of the selection's set, `random_mean`, the
    `quantile` of the value among the selection's random sets, and its interval `quantile_lo` to `quantile_hi`.
    """

    facts: dict[str, Any]
    statements: pd.DataFrame
    prompts: pd.DataFrame
    answers: pd.DataFrame
    neurons: pd.DataFrame
    transitions: pd.DataFrame
    sets: pd.DataFrame
    quantiles: pd.DataFrame

    @property
    def selections(self) -> list[str]:
        """The names of the selections."""
        return list(self.neurons["selection"].unique())

    def of(self, selection: str) -> "Copying":
        """The same result with the rows of one selection only."""
        tables = ("answers", "neurons", "transitions", "sets", "quantiles")
        frames = {name: getattr(self, name) for name in tables}
        rows = {name: frame[frame["selection"] == selection] for name, frame in frames.items()}
        return dataclasses.replace(self, **rows)

    def save(self, folder: str | Path) -> Path:
        """Write copying.html, its figures, the tables and the facts into the folder, which is created if needed.

        Returns the path of the page.
        """
        return save_study(self, "copying", sentences(self), FIGURES, page, folder)


def copying(
    lm: LanguageModel,
    data: str | Path | pd.DataFrame,
    *,
    statements: int = 100,
    text: str = OWN,
    tokens: np.ndarray | int = 16384,
    neurons: Named | None = None,
    components: str = NEURONS,
    controls: int = 100,
    k: int | None = None,
    as_published: bool = False,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Copying:
    """Whether a model repeats its context or its memory if they disagree, and what ablating neuron sets changes.

    `data`: a CSV file of statements, or what `jaxconf.read_statements` gives. `statements`: how many are asked, drawn
    with `seed` among those of relations with two objects or more. `tokens`: the text from whose activations the
    ablation values come: windows, int [s t], or how many tokens of `text`. `neurons`: (layer, index) of the chosen set,
    all in the last layer, by default the ten with the highest ρ; or the names of directions or latents of one kind,
    such as "sae.12,sae.99". `components`: where these are from, as for `jaxconf.analyze`. `controls`: how many random
    sets of as many others there are. `k`: size of the null space, for ρ. `as_published`: whether neurons that are
    chosen as in the paper are measured too, the ten with the lowest LogitVar among those with a ρ of 0.4 or more, at
    the paper's k for a model of this shape (40, 48 or 96), or 3/128 of the width for others, unless `k` is given.
    `memory`: bytes for the texts that are processed together. `facts`: are added to those of the result.

    Source: Tighidet et al. 2025 (arXiv 2509.10663). Raises InputError for a model without a tokenizer, neurons of other
    layers, neurons or components that it does not have, no neuron that the paper's rule allows, prompts that do not fit
    it, statements that no prompt can be made of, and as `jaxconf.read_statements` and `jaxconf.documents` do.
    """
    check_amounts(1, statements=statements, tokens=tokens)
    check_amounts(0, seed=seed)
    given = data if isinstance(data, pd.DataFrame) else read_statements(data)
    check_runnable(lm.params)
    refuse_mixture(lm.config, "the study of copying")
    asked = Asked(lm, lm.tokenizer, memory, progress)
    named = check_chosen(lm.config, [neurons] if neurons else [], components, controls, k)
    progress("reading the text", 0, 0)
    text = source_for(text, lm.folder, "--text") if isinstance(tokens, int) else text
    (windows, _), of_reading = windows_and_facts(tokens, text, lm)
    timing = Timing()
    of = populations(lm, named, components, k, windows, None, memory, progress)
    chosen = selections(lm, named[0] if named else None, of, controls, k, as_published, seed)
    drawn = own_objects(asked, drawn_statements(given, statements, seed), objects_of(given))
    prompts = contradicting_prompts(asked, drawn, objects_of(given))
    values = {one: values_of(asked, windows, one) for one in {own.own.population: None for own in chosen}}
    found = outcomes(asked, prompts, chosen, values)
    answers, transitions, sets = tables_of_sets(prompts, found, chosen)
    ablated = len(ABLATIONS) * sum(len(own.sets) * len(own.own.members) for own in chosen)
    from_names = {} if data is given else {"data": str(data)}
    from_names |= {"text": text, **of_reading} if isinstance(tokens, int) else {}
    return Copying(
        facts=facts_of(
            lm,
            {**_facts(given, drawn, prompts, chosen, windows), "seed": seed},
            timing,
            len(prompts) * NEW_TOKENS * ablated,
            {**from_names, **(facts or {})},
        ),
        statements=drawn[drawn.index.isin(prompts["statement"])],
        prompts=prompts.drop(columns=["query", "own", "tokens"]).join(found.table(0)),
        answers=answers,
        neurons=table_of_neurons(chosen, values),
        transitions=transitions,
        sets=sets,
        quantiles=table_of_quantiles(sets),
    )


def _facts(
    given: pd.DataFrame,
    drawn: pd.DataFrame,
    prompts: pd.DataFrame,
    chosen: Sequence[Selection],
    windows: np.ndarray,
) -> dict[str, Any]:
    return {
        "statements_given": len(given),
        "statements_of_one_object": len(given) - len(usable_statements(given)),
        "statements_asked": len(drawn),
        "statements": prompts["statement"].nunique(),
        "prompts": len(prompts),
        "new_tokens": NEW_TOKENS,
        "controls": len(chosen[0].sets) - 1,
        "w_norm_layer": float(chosen[0].w_norm.mean()),
        "text_tokens": int(windows.size),
        "text_sha256": digest(windows),
        **{name: value for own in chosen for name, value in _facts_of_selection(own).items()},
    }


def _facts_of_selection(own: Selection) -> dict[str, Any]:
    prefix = "" if own.name == CHOSEN else f"{own.name}_"
    return {
        own.name: own.own.names,
        f"{prefix}noun": own.own.population.noun,
        f"{own.name}_by": own.by,
        f"{prefix}w_norm": float(own.w_norm[own.own.indices].mean()),
        f"{prefix}k": own.k,
        f"{prefix}k_from": own.k_from,
    }

"""How the classes of the answers change if neuron sets are ablated, and how a selection ranks among random sets.

Letters: p prompt, c combination of a neuron set and an ablation value, s window, t position. Source: Tighidet et al.
2025 (arXiv 2509.10663).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import Ablation, Kind
from jaxconf.analysis.activations import ActivationStatistics
from jaxconf.analysis.transitions import (
    CLASSES,
    MEASURES,
    means_by_transition,
    measures_of_sets,
    quantile_among,
    three_classes,
    transition_tables,
)
from jaxconf.data.statements import answer_class
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.named_sets import Population
from jaxconf.measure.prompts import Asked
from jaxconf.measure.treated_sets import Treated, together
from jaxconf.runtime.memory import fitting
from jaxconf.studies.copying.neurons import Selection
from jaxconf.studies.copying.prompts import NEW_TOKENS

ABLATIONS: tuple[Kind, ...] = ("mean", "median", "mode", "mean+3std", "mean-3std")
"""The values that the neurons of a set are set to, one after the other."""


class Outcomes(NamedTuple):
    """The answers of the unablated model (c = 0), and then those with every set ablated, for each of ABLATIONS."""

    texts: np.ndarray  # object [c p]: the continuations
    classes: np.ndarray  # int64 [c p]: indices into CLASSES
    entropy: np.ndarray  # float32 [c p]: of the prediction of the first new token, in nats
    log_p: np.ndarray  # float64 [c p 3]: of the classes, in nats
    log_p_first: np.ndarray  # float32 [c p 2]: of the first tokens of the objects of CK and PK, in nats

    def table(self, c: int) -> pd.DataFrame:
        """A row per prompt."""
        classes = np.array(CLASSES)[self.classes[c]]
        columns = {"continuation": self.texts[c], "class": classes, "entropy": self.entropy[c]}
        columns |= {f"log_p_{name}": self.log_p[c, :, i] for i, name in enumerate(CLASSES)}
        columns |= {f"log_p_first_{name}": self.log_p_first[c, :, i] for i, name in enumerate(CLASSES[:2])}
        return pd.DataFrame(columns)


def values_of(asked: Asked, windows: np.ndarray, population: Population) -> pd.DataFrame:
    """The values that the members of a population are set to, from their activations on windows, int32 [s t].

    The table has a row per neuron of the last layer, or per direction, and a column for each of ABLATIONS.
    """
    lm, last, dictionary = asked.lm, asked.lm.config.n_layers - 1, population.dictionary

    def statistics(memory: int) -> ActivationStatistics:
        activity = LayerActivations(lm, windows, last, memory, dictionary)
        return activation_statistics(activity, asked.progress, ordered=True)

    found = fitting(statistics, asked.memory, asked.progress)
    return pd.DataFrame({kind: Ablation(kind).level(found) for kind in ABLATIONS})


def treated(found: Sequence[Selection], values: Mapping[Population, pd.DataFrame]) -> list[Treated]:
    """No ablation (c = 0), and then that of every set for each of ABLATIONS. `values`: from `values_of`."""
    sets = [one for own in found for one in own.sets]
    ablated = [
        Treated(one, values[one.population][name].to_numpy()[one.indices], 1) for name in ABLATIONS for one in sets
    ]
    return [Treated(sets[0], 0, 0), *ablated]


def outcomes(
    asked: Asked, prompts: pd.DataFrame, found: Sequence[Selection], values: Mapping[Population, pd.DataFrame]
) -> Outcomes:
    """The answers to the prompts. `prompts`: from `contradicting_prompts`. `values`: from `values_of`."""
    given = prompts[["context", "own"]].to_numpy()
    sets = together(treated(found, values))
    answers = asked.answers(prompts["prompt"].tolist(), given, sets, NEW_TOKENS, "answers of every set")
    tokens = answers.tokens
    texts, classes = np.empty(tokens.shape[:2], object), np.zeros(tokens.shape[:2], np.int64)
    for p, (context, own) in enumerate(zip(prompts["context"], prompts["own"], strict=True)):
        different, at = np.unique(tokens[:, p], axis=0, return_inverse=True)
        said = [asked.text(ids) for ids in different]
        texts[:, p] = np.array(said, object)[at]
        classes[:, p] = np.array([answer_class(one, context, own) for one in said])[at]
    return Outcomes(texts, classes, answers.entropy, three_classes(answers.log_p), answers.log_p_first)


def tables_of_sets(
    prompts: pd.DataFrame, outcomes: Outcomes, found: Sequence[Selection]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """`Copying.answers`, `Copying.transitions` and `Copying.sets`."""
    selections, sets = zip(*((own.name, one) for own in found for one in own.sets), strict=True)
    place = {
        "selection": list(selections),
        "set": [one.name for one in sets],
        "kind": [one.kind for one in sets],
    }
    listed = [one.listed for one in sets]
    answers, transitions, measures = [], [], []
    for i, name in enumerate(ABLATIONS):
        part = slice(1 + i * len(sets), 1 + (i + 1) * len(sets))
        changes = [x[part] - x[0] for x in (outcomes.entropy, outcomes.log_p, outcomes.log_p_first)]
        before, after = outcomes.classes[0], outcomes.classes[part]
        tables = transition_tables(before, after)
        of_pairs = means_by_transition(before, after, changes[0])
        of_sets = measures_of_sets(tables, *changes)
        for c, (selection, one) in enumerate(zip(selections, sets, strict=True), part.start):
            if one.kind == "set":
                asked = prompts[["statement", "context"]].assign(selection=selection, ablation=name)
                answers.append(pd.concat([asked, outcomes.table(c)], axis=1))
        transitions.append(_table_of_transitions(tables, of_pairs, {"ablation": name, **place}))
        measures.append(pd.DataFrame({"ablation": name, **place, "members": listed, **of_sets}))
    return tuple(pd.concat(frames, ignore_index=True) for frames in (answers, transitions, measures))


def _table_of_transitions(tables: np.ndarray, entropy: np.ndarray, place: dict[str, Any]) -> pd.DataFrame:
    n = len(CLASSES)
    columns = {name: np.repeat(value, n * n) if isinstance(value, list) else value for name, value in place.items()}
    pairs = {"before": np.tile(np.repeat(CLASSES, n), len(tables)), "after": np.tile(CLASSES, n * len(tables))}
    return pd.DataFrame({**columns, **pairs, "count": tables.ravel(), "entropy_change": entropy.ravel()})


def table_of_quantiles(sets: pd.DataFrame) -> pd.DataFrame:
    """`Copying.quantiles`, from `Copying.sets`."""
    rows = []
    for (selection, ablation), of_value in sets.groupby(["selection", "ablation"], sort=False):
        random = of_value[of_value["kind"] == "random"]
        for measure in MEASURES:
            own = float(of_value[measure].iloc[0])
            quantile, low, high = quantile_among(own, random[measure].to_numpy())
            place = {"selection": selection, "ablation": ablation, "measure": measure}
            values = {"value": own, "random_mean": random[measure].mean()}
            rows.append({**place, **values, "quantile": quantile, "quantile_lo": low, "quantile_hi": high})
    return pd.DataFrame(rows)

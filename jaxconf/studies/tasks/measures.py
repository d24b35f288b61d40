"""Tables of how well questions are answered with every set treated, with intervals over the questions.

Letters: q question, c neuron set (the rows of `jaxconf.studies.tasks.neurons.treated`, of which the first is of no
ablation), r resample.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.analysis.calibration import Predicted, reliability, unit_sums
from jaxconf.analysis.intervals import resamples
from jaxconf.analysis.question_scores import MEASURES, measures, risk_coverage
from jaxconf.analysis.transitions import quantile_among
from jaxconf.data.questions import Question
from jaxconf.runtime.progress import Progress
from jaxconf.studies.tasks.answers import Outcome

ENDS = [0.025, 0.975]


def table_of_questions(questions: Sequence[Question], rows: np.ndarray) -> pd.DataFrame:
    """A row per question: its number in the data (`row`), what the model reads, the choices and the answer."""
    columns = {
        "row": rows,
        "question": [one.question for one in questions],
        "choices": [list(one.choices) for one in questions],
        "answer": [one.answer for one in questions],
    }
    return pd.DataFrame(columns)


def table_of_answers(found: Mapping[str, Outcome], sets: pd.DataFrame) -> pd.DataFrame:
    """A row per question, score and set that is not random."""
    parts = []
    for score, outcome in found.items():
        for c in np.flatnonzero(sets["kind"] != "random"):
            of = _row_of(outcome.predicted, c)
            place = {"score": score, "treatment": sets["treatment"][c], "selection": sets["selection"][c]}
            columns = {"question": np.arange(len(of.correct)), "answer": outcome.texts[c], "correct": of.correct}
            columns |= {"confidence": of.confidence, "entropy": of.entropy, "brier": of.brier}
            parts.append(pd.DataFrame({**place, **columns}))
    return pd.concat(parts, ignore_index=True)


def tables_of_measures(
    found: Mapping[str, Outcome], sets: pd.DataFrame, draws: int, seed: int, progress: Progress
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """MEASURES of every score and set, and what treating each selection changes.

    The second table has a row per score, treatment, selection and measure: `before` (of no ablation) and `value`, each
    with an interval; `change`, their difference; `random_mean` over the random sets; `beyond_random`, the difference of
    `value` from it; and the `quantile` of `value` among the random sets. All intervals but the last, which is
    Clopper-Pearson's, are from the same `draws` resamples of the questions.
    """
    count = next(iter(found.values())).predicted.correct.shape[1]
    weights = resamples(np.ones(count), draws, seed)
    whole, changes = [], []
    for number, (score, outcome) in enumerate(found.items()):
        progress("intervals", number * len(sets), len(found) * len(sets))
        values, drawn = [], []
        for c in range(len(sets)):
            of = _row_of(outcome.predicted, c)
            values.append({name: value[0] for name, value in measures(of).items()})
            drawn.append(measures(of, weights) if len(weights) else {name: np.empty(0) for name in MEASURES})
            progress("intervals", number * len(sets) + c + 1, len(found) * len(sets))
        frame = pd.DataFrame(values)
        whole.append(pd.concat([sets.assign(score=score), frame], axis=1))
        for (treatment, selection), rows in sets.iloc[1:].groupby(["treatment", "selection"], sort=False):
            place = {"score": score, "treatment": treatment, "selection": selection}
            own, *random = rows.index
            for name in MEASURES:
                every = np.stack([of_set[name] for of_set in drawn])
                changes.append({**place, "measure": name, **_change(frame[name].to_numpy(), every, own, random)})
    return pd.concat(whole, ignore_index=True), pd.DataFrame(changes)


def _change(values: np.ndarray, drawn: np.ndarray, own: int, random: Sequence[int]) -> dict[str, float]:
    """A measure of the set `own` beside that of no ablation and of random sets. `values` [c]; `drawn` [c r]."""
    mean, mean_drawn = (x[list(random)].mean(0) if random else x[own] * np.nan for x in (values, drawn))
    estimates: dict[str, tuple[Any, np.ndarray]] = {
        "before": (values[0], drawn[0]),
        "value": (values[own], drawn[own]),
        "change": (values[own] - values[0], drawn[own] - drawn[0]),
        "random_mean": (mean, mean_drawn),
        "beyond_random": (values[own] - mean, drawn[own] - mean_drawn),
    }
    columns: dict[str, float] = {}
    for name, (estimate, of_draws) in estimates.items():
        known = of_draws[~np.isnan(of_draws)]  # a resample whose answers are all right or all wrong has no AUROC
        low, high = np.quantile(known, ENDS) if len(known) else (np.nan, np.nan)
        columns |= {name: float(estimate), f"{name}_lo": float(low), f"{name}_hi": float(high)}
    quantile, low, high = quantile_among(float(values[own]), values[list(random)])
    return {**columns, "quantile": quantile, "quantile_lo": low, "quantile_hi": high}


def tables_of_curves(found: Mapping[str, Outcome], sets: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The reliability, and the risk–coverage curve, of every score and set that is not random."""
    reliable, risks = [], []
    for score, outcome in found.items():
        for c in np.flatnonzero(sets["kind"] != "random"):
            place = {"score": score, "treatment": sets["treatment"][c], "selection": sets["selection"][c]}
            of = _row_of(outcome.predicted, c)
            bins = reliability(unit_sums(of, np.zeros(len(of.correct), int), 1))
            filled = {name: x[bins["count"] > 0] for name, x in bins.items()}
            reliable.append(pd.DataFrame({**place, **filled}))
            coverage, risk = risk_coverage(np.asarray(of.confidence), np.asarray(of.correct))
            risks.append(pd.DataFrame({**place, "coverage": coverage, "risk": risk}))
    return pd.concat(reliable, ignore_index=True), pd.concat(risks, ignore_index=True)


def _row_of(predicted: Predicted, c: int | np.integer) -> Predicted:
    return Predicted(*(x[c] for x in predicted))

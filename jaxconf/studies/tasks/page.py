"""The page of `jaxconf tasks`: one HTML file with everything that it needs to open offline."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from jaxconf.report import markup
from jaxconf.report.markup import facts, frame_table, paragraphs, pictures
from jaxconf.report.picture_page import study_page
from jaxconf.results.words import number
from jaxconf.studies.tasks.neurons import MEAN
from jaxconf.studies.tasks.sentences import sentences

if TYPE_CHECKING:
    from jaxconf.studies.tasks.study import Tasks

SHOWN = 40  # questions whose answers the page shows
COLUMNS = {
    "before": "before",
    "value": "after",
    "change": "change",
    "random_mean": "random sets' mean",
    "beyond_random": "beyond random",
    "quantile": "quantile",
}
FORKS = ("activation_forks", "activation_elsewhere", "difference", "null_lo", "null_hi", "p", "q")

CAPTIONS = {
    "tasks_reliability": (
        "Reliability",
        "Of answers with a confidence of 0.8, a calibrated model has 80% right. Below the diagonal it is too "
        "confident. Small points are of few questions and say little.",
    ),
    "tasks_risk_coverage": (
        "Risk and coverage",
        "If only the most confident answers are given, how many of them are wrong. A curve that rises from left to "
        "right says that confidence tells right answers from wrong ones; AURC is the area below it.",
    ),
    "tasks_sets": (
        "Sets",
        "How each measure changes if a set is ablated or scaled. Only a point that lies outside the grey random sets "
        "says something about the selected set. AUROC: the probability that a right answer is more confident than "
        "a wrong one.",
    ),
    "tasks_forks": (
        "Forks",
        "Whether neurons are more active where the model is least sure of what follows. A point outside the grey bar "
        "is more than the runs of forks and of activations explain by themselves.",
    ),
    "tasks_passage": ("Token by token", "A piece of the reasoning text. All tokens are in tasks_tokens.parquet."),
}


def page(found: "Tasks", images: Sequence[Path]) -> str:
    """The HTML of the page. `images`: the files of the figures."""
    parts = []
    for score in found.scores:
        rows = found.changes[found.changes["score"] == score]
        parts.append(f"<h3>{escape(score)}</h3>{_changes(rows)}")
    return study_page(
        files(__package__) / "page.html",
        "tasks",
        found.facts,
        "Real tasks",
        verdict=paragraphs(sentences(found)),
        figures=pictures(images, CAPTIONS, CAPTIONS.keys() - {"tasks_forks"}),
        changes="".join(parts),
        nouns=f"{found.noun.capitalize()}s",
        neurons=frame_table(found.neurons, "neuron", ["selection", "activation_mean"]),
        forks=_forks(found.forks),
        to_forks="" if found.forks.empty else '<a href="#forks">Forks</a>',
        answers=_answers(found),
        facts=facts({name: value for name, value in found.facts.items() if value is not None}),
    )


def _changes(rows: pd.DataFrame) -> str:
    heads = map(markup.head, ("measure", "treatment", "selection", *COLUMNS.values()))
    body = (
        markup.row(
            [
                markup.row_head(record["measure"]),
                markup.text(record["treatment"]),
                markup.text(record["selection"]),
                *(markup.measured(record, column) for column in COLUMNS),
            ]
        )
        for record in rows.to_dict("records")
    )
    return markup.table(heads, body)


def _forks(forks: pd.DataFrame) -> str:
    if forks.empty:
        return ""
    table = frame_table(forks, "neuron", ["selection", *FORKS])
    note = (
        "A fork is a position whose prediction has an entropy above the 0.9 quantile. The null shifts the forks of "
        "each document circularly by a random number of positions, 1,000 times; null_lo and null_hi are its 95% range. "
        "p is two-sided, and q corrects it for the number of neurons."
    )
    return f'<h2 id="forks">Forks</h2><div class="box">{table}<p class="note">{note}</p></div>'


def _answers(found: "Tasks") -> str:
    """A table of questions and answers by the first score; those whose answer changes come first."""
    answers = found.answers[found.answers["score"] == found.scores[0]]
    before = answers[answers["treatment"] == "none"].set_index("question")
    own = (answers["treatment"] == MEAN) & (answers["selection"] == found.selections[0])
    after = answers[own].set_index("question")
    changed = (before["answer"] != after["answer"]).sort_values(ascending=False, kind="stable")
    heads = ("question", "right answer", "answer", "confidence", "after", "confidence after")
    body = [
        markup.row(
            [
                markup.row_head(found.questions.loc[q, "question"]),
                *map(markup.text, (found.questions.loc[q, "answer"], before.loc[q, "answer"])),
                markup.text(number(before.loc[q, "confidence"])),
                markup.text(after.loc[q, "answer"]),
                markup.text(number(after.loc[q, "confidence"])),
            ]
        )
        for q in changed.index[:SHOWN]
    ]
    return markup.table(map(markup.head, heads), body, class_="texts")

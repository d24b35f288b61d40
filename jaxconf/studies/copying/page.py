"""The page of `jaxconf copying`: one HTML file with everything that it needs to open offline."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from jaxconf.analysis.transitions import CLASSES, MEASURES
from jaxconf.report import markup
from jaxconf.report.markup import facts, frame_table, paragraphs, pictures
from jaxconf.report.picture_page import study_page
from jaxconf.studies.copying.neurons import CHOSEN
from jaxconf.studies.copying.sentences import sentences

if TYPE_CHECKING:
    from jaxconf.studies.copying.study import Copying

SHOWN = 40  # prompts whose answers the page shows
SOURCE = (
    "“Context Copying Modulation: The Role of Entropy Neurons in Managing Parametric and Contextual Knowledge "
    "Conflicts” (Tighidet et al., 2025)"
)

CAPTIONS = {
    "copying_scores": (
        "Global transition score",
        "The share of answers that change at all. If the red line is to the right of the grey bars, the selected "
        "neurons matter more for the answer than as many others of their layer.",
    ),
    "copying_conversions": (
        "Conversion ratios",
        "Of the prompts that are answered from the context (CK), from memory (PK) or otherwise (ND), the share "
        "whose answer is of another class once a set is ablated.",
    ),
    "copying_transitions": (
        "Transitions",
        "How many prompts go from each class to each. If the selected neurons hold copying back, their ablation moves "
        "prompts from PK to CK, and that of random sets does not.",
    ),
    "copying_entropy": (
        "Change of entropy by transition",
        "The change of entropy of the first new token's prediction. It shows whether answers change where the entropy "
        "changes most.",
    ),
    "copying_log_ratios": (
        "Log-ratios of the answers",
        "Points on the dashed line did not change; for those above it, the first of the two answers has become "
        "likelier. At the thin lines both answers are equally likely. The last column has only the answers' first "
        "tokens, as in the paper.",
    ),
}


def page(found: "Copying", images: Sequence[Path]) -> str:
    """The HTML of the page. `images`: the files of the figures."""
    ablations = list(found.quantiles["ablation"].unique())
    selected = found.transitions[found.transitions["kind"] == "set"]
    tables = {
        f"{name}, the {selection} set": rows.pivot(index="before", columns="after", values="count")
        for (selection, name), rows in selected.groupby(["selection", "ablation"], sort=False)
    }
    return study_page(
        files(__package__) / "page.html",
        "copying",
        found.facts,
        "Context against memory",
        SOURCE,
        verdict=paragraphs(sentences(found)),
        figures=pictures(images, CAPTIONS, CAPTIONS),
        values=_marked(_by_ablation(found, "value"), "measure", ablations),
        random=_marked(_by_ablation(found, "random_mean"), "measure", ablations),
        quantiles=_marked(_by_ablation(found, "quantile", "_lo", "_hi"), "measure", ablations),
        transitions="".join(
            f"<h3>{escape(name)}</h3>{frame_table(table.loc[list(CLASSES)].reset_index(), 'before', list(CLASSES))}"
            for name, table in tables.items()
        ),
        neurons=_marked(found.neurons, "neuron", [x for x in found.neurons if x not in ("neuron", "selection")]),
        examples=_examples(found),
        facts=facts(found.facts),
    )


def _by_ablation(found: "Copying", column: str, *ends: str) -> pd.DataFrame:
    """A row per measure and selection, and a column per ablation value.

    `ends`: suffixes of further columns, such as "_lo".
    """
    index = ["measure", "selection"]
    parts = [
        found.quantiles.pivot(index=index, columns="ablation", values=f"{column}{end}").add_suffix(end)
        for end in ("", *ends)
    ]
    rows = [(measure, selection) for measure in MEASURES for selection in found.selections]
    return pd.concat(parts, axis=1).loc[rows].reset_index()


def _marked(frame: pd.DataFrame, first: str, columns: Sequence[str]) -> str:
    """A table of the numbers in `columns`; the column `first` heads its rows, and the next one names the selection."""
    rows = (
        markup.row(
            [
                markup.row_head(record[first]),
                markup.text(record["selection"]),
                *(markup.measured(record, column) for column in columns),
            ]
        )
        for record in frame.to_dict("records")
    )
    return markup.table(map(markup.head, (first, "selection", *columns)), rows)


def _examples(found: "Copying") -> str:
    """A table of prompts and answers. Prompts whose class the mean ablation of the chosen set changes come first."""
    answers = found.of(CHOSEN).answers
    ablated = answers[answers["ablation"] == "mean"].reset_index(drop=True)
    frame = found.prompts.assign(own=found.statements["own"].loc[found.prompts["statement"]].to_numpy())
    frame["after"], frame["class after"] = ablated["continuation"], ablated["class"]
    changed = frame["class"] != frame["class after"]
    shown = frame.loc[changed.sort_values(ascending=False, kind="stable").index].head(SHOWN)
    columns = ["prompt", "own", "continuation", "class", "after", "class after"]
    body = [
        markup.row([markup.row_head(prompt), *map(markup.text, others)])
        for prompt, *others in shown[columns].itertuples(index=False)
    ]
    return markup.table(map(markup.head, columns), body, class_="texts")

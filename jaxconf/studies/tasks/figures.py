"""Figures of how a model answers questions: reliability, risk by coverage, and measures of every set.

No ablation is dark, the entropy set red, the frequency set green, other sets are coloured, and random sets are grey.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.analysis.calibration import BINS
from jaxconf.report.style import (
    ENTROPY,
    FREQUENCY,
    HUES,
    INK,
    NORMAL,
    QUIET,
    canvas,
    grid_of,
    guide,
    model_name,
    say,
    styled,
)
from jaxconf.results.words import number
from jaxconf.studies.tasks.neurons import MEAN

if TYPE_CHECKING:
    from jaxconf.studies.tasks.study import Tasks

SHOWN = {  # measure → its label
    "accuracy": "accuracy",
    "confidence": "mean confidence",
    "ece": "ECE",
    "auroc": "AUROC",
    "aurc": "AURC",
}
BARS = 24  # neurons, at most, of the figure of forks
PASSAGE = 60  # tokens of the figure of a passage


@styled
def tasks_reliability(found: "Tasks") -> Figure:
    """Accuracy by confidence, without ablation and with each selection set to its means."""
    note = f"accuracy by confidence, in {BINS} bins; areas of points: questions; diagonal: perfect calibration"
    figure, panels = _of_scores(found, "Reliability", note)
    for axes, score in zip(panels, found.scores, strict=True):
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.7)
        for label, colour, rows in _curves(found, found.reliability, score):
            axes.plot(rows["confidence"], rows["accuracy"], color=colour, linewidth=1.1, label=label)
            area = 4 + 120 * rows["count"] / found.facts["questions"]
            axes.scatter(rows["confidence"], rows["accuracy"], s=area, color=colour, linewidths=0, alpha=0.6)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def tasks_risk_coverage(found: "Tasks") -> Figure:
    """The share of wrong answers among the most confident ones, without ablation and with each selection's means."""
    note = "share of wrong answers among the most confident ones; lower is better"
    figure, panels = _of_scores(found, "Risk and coverage", note)
    for axes, score in zip(panels, found.scores, strict=True):
        for label, colour, rows in _curves(found, found.risks, score):
            axes.plot(rows["coverage"], rows["risk"], color=colour, linewidth=1.2, label=label)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("coverage, share of the questions")
        axes.set_ylabel("risk, share of wrong answers")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def tasks_sets(found: "Tasks") -> Figure:
    """What every treatment of each selection changes, beside its random sets."""
    note = (
        "changes from no ablation; points: the selected sets, with 95% intervals over questions, paired\n"
        f"grey: random sets of as many {found.noun}s"
    )
    places = [(treatment, selection) for treatment in found.treatments for selection in found.selections]
    rows, columns = len(found.scores), len(SHOWN)
    size = (2.2 + columns * max(1.7, 0.36 * len(places) + 0.7), 1.6 + 2.4 * rows)
    figure, panels = canvas(model_name(found.facts), f"Sets of {found.noun}s", note, rows, columns, size, sharex=True)
    for i, (score, measure) in enumerate((score, measure) for score in found.scores for measure in SHOWN):
        _draw_sets(panels[i], found, places, score, measure)
    return figure


@styled
def tasks_forks(found: "Tasks") -> Figure:
    """How much more active each neuron is at forks than elsewhere, beside circular shifts of the forks."""
    every = found.forks.drop_duplicates("neuron").head(BARS)
    note = (
        "mean activation at forks minus elsewhere, with 95% intervals over documents\n"
        f"grey bars: 95% of circular shifts of the forks within documents; {len(found.tokens):,} positions"
    )
    figure, (axes,) = canvas(model_name(found.facts), "Forks", note, 1, 1, (max(6.4, 2 + 0.42 * len(every)), 3.8))
    x = np.arange(len(every))
    axes.bar(x, every["null_hi"] - every["null_lo"], bottom=every["null_lo"], width=0.7, color=NORMAL, alpha=0.6)
    ends = [every["difference"] - every["difference_lo"], every["difference_hi"] - every["difference"]]
    colours = [_colour(found, selection) for selection in every["selection"]]
    for place, value, low, high, colour in zip(x, every["difference"], *ends, colours, strict=True):
        span = np.maximum(np.nan_to_num([[low], [high]]), 0)
        axes.errorbar([place], [value], yerr=span, fmt="o", color=colour, markersize=4, capsize=2)
    guide(axes, y=0, width=0.6, line="-")
    axes.set_xticks(x, every["neuron"], rotation=60, ha="right")
    axes.set_xlim(-0.6, max(len(every), 6) - 0.4)
    axes.set_ylabel("difference of mean activations")
    return figure


@styled
def tasks_passage(found: "Tasks") -> Figure:
    """Entropy and activations token by token in the window of the reasoning text that has the most forks."""
    names = list(found.forks["neuron"].unique())[: len(HUES)]
    window = found.tokens.groupby("window")["is_fork"].sum().idxmax()
    rows = found.tokens[found.tokens["window"] == window].head(PASSAGE)
    note = (
        "the beginning of the window with the most forks, which are shaded\n"
        f"at each token: the entropy of the prediction of the next one, and the activations of the {found.noun}s"
    )
    figure, panels = canvas(model_name(found.facts), "Token by token", note, 2, 1, (12, 5), sharex=True)
    x = np.arange(len(rows))
    for axes in panels:
        for place in x[rows["is_fork"]]:
            axes.axvspan(place - 0.5, place + 0.5, color=NORMAL, alpha=0.35, linewidth=0)
    panels[0].plot(x, rows["entropy"], color=INK, linewidth=1.1, marker="o", markersize=2.5)
    panels[0].set_ylabel("entropy, nats")
    for name, colour in zip(names, HUES, strict=False):
        panels[1].plot(x, rows[name], color=colour, linewidth=1.1, label=name)
    panels[1].set_ylabel("activation")
    panels[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    words = [str(token).replace("\n", "↵").strip() or "␣" for token in rows["token"]]
    panels[1].set_xticks(x, words, rotation=90, fontsize=7, parse_math=False)
    panels[1].set_xlim(-0.6, len(rows) - 0.4)
    return figure


def figures_of(found: "Tasks") -> dict[str, Callable[["Tasks"], Figure]]:
    """Name → figure. The last two are there only if there was a reasoning text."""
    drawn = [tasks_reliability, tasks_risk_coverage, tasks_sets]
    if len(found.forks):
        drawn += [tasks_forks, tasks_passage]
    return {draw.__name__: draw for draw in drawn}


def _of_scores(found: "Tasks", subject: str, note: str) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each score."""
    count = len(found.scores)
    rows, columns = grid_of(count, 3)
    figure, panels = canvas(model_name(found.facts), subject, note, rows, columns, (2.4 + 3.3 * columns, 4))
    for axes, score in zip(panels, found.scores, strict=True):
        axes.set_title(score, fontsize=9, loc="left")
    return figure, panels


def _colour(found: "Tasks", selection: str) -> str:
    named = {"none": INK, "entropy": ENTROPY, "frequency": FREQUENCY}
    others = [name for name in found.selections if name not in named]
    return named[selection] if selection in named else HUES[others.index(selection) % len(HUES)]


def _curves(found: "Tasks", frame: pd.DataFrame, score: str) -> list[tuple[str, str, pd.DataFrame]]:
    """Label, colour and rows of no ablation and of each selection with its means."""
    frame = frame[(frame["score"] == score) & frame["treatment"].isin(["none", MEAN])]
    return [
        ("no ablation" if selection == "none" else f"{selection}, set to means", _colour(found, selection), rows)
        for selection, rows in frame.groupby("selection", sort=False)
    ]


def _draw_sets(axes: Axes, found: "Tasks", places: list[tuple[str, str]], score: str, measure: str) -> None:
    """Draw how a measure of a score changes: a column for each treatment and selection."""
    changes = found.changes[(found.changes["score"] == score) & (found.changes["measure"] == measure)]
    sets, rng = found.sets[found.sets["score"] == score], np.random.default_rng(0)
    before = changes["before"].iloc[0]
    for place, (treatment, selection) in enumerate(places):
        row = changes[(changes["treatment"] == treatment) & (changes["selection"] == selection)].iloc[0]
        own = sets[(sets["treatment"] == treatment) & (sets["selection"] == selection) & (sets["kind"] == "random")]
        beside = place + rng.uniform(-0.25, 0.25, len(own))
        axes.scatter(beside, own[measure] - before, s=8, color=NORMAL, alpha=0.6, linewidths=0)
        span = np.maximum(np.nan_to_num([[row["change"] - row["change_lo"]], [row["change_hi"] - row["change"]]]), 0)
        colour = _colour(found, selection)
        axes.errorbar([place], [row["change"]], yerr=span, fmt="o", color=colour, markersize=4, capsize=2)
    guide(axes, y=0, width=0.6, line="-")
    if not np.isfinite(before):
        say(axes, "all answers are right, or all wrong")
    axes.set_title(f"{score}, without ablation {number(before)}", fontsize=8, loc="left")
    axes.set_xticks(range(len(places)), [", ".join(place) for place in places], rotation=90, fontsize=7)
    axes.set_xlim(-0.6, len(places) - 0.4)
    axes.set_ylabel(f"change of {SHOWN[measure]}")

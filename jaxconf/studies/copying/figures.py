"""Figures, in the paper's layout, of how a model answers if its context contradicts its memory.

There is a row of panels for each selection of neurons. The selected set is red, random sets are grey.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.analysis.transitions import CLASSES
from jaxconf.report.style import ENTROPY, HUES, INK, NORMAL, QUIET, canvas, guide, model_name, say, styled

if TYPE_CHECKING:
    from jaxconf.studies.copying.study import Copying

RED_GREY = "red: the selected set; grey: random sets of as many neurons"
OF_CLASS = dict(zip(CLASSES, HUES, strict=False))
BINS = 25
RATIOS = [  # label, columns of the numerator and of the denominator
    ("P(CK)/P(PK)", "log_p_CK", "log_p_PK"),
    ("P(ND)/P(CK)", "log_p_ND", "log_p_CK"),
    ("P(ND)/P(PK)", "log_p_ND", "log_p_PK"),
    ("P(CK)/P(PK) of the first tokens", "log_p_first_CK", "log_p_first_PK"),
]
POINTS: dict[str, dict[str, Any]] = {  # how the sets of each kind are drawn
    "random": {"s": 10, "color": NORMAL, "alpha": 0.5, "linewidths": 0},
    "set": {"s": 26, "color": ENTROPY, "linewidths": 0},
}


@styled
def copying_transitions(found: "Copying") -> Figure:
    """The transition tables of each selected set, and the mean of its random sets' tables."""
    note = "prompts by class before (rows) and after (columns)"
    figure, rows = _beside(found, "Transitions", note, (11, 2.4), ("set", "random"))
    for (selection, kind), panels in rows.items():
        frame = found.of(selection).transitions
        for ablation, axes in panels.items():
            of_kind = frame[(frame["ablation"] == ablation) & (frame["kind"] == kind)]
            if of_kind.empty:
                say(axes, "no random sets")
                continue
            means = of_kind.groupby(["before", "after"])["count"].mean().unstack()
            _draw_table(axes, means.loc[list(CLASSES), list(CLASSES)].to_numpy(), digits=int(kind == "random"))
        axes = next(iter(panels.values()))
        axes.set_ylabel("before: " + (f"the {selection} set" if kind == "set" else "random sets, mean"))
    return figure


@styled
def copying_conversions(found: "Copying") -> Figure:
    """The conversion ratios of each class, for every ablation value."""
    figure, panels = canvas(
        model_name(found.facts),
        "Conversion ratios",
        f"share of the prompts of a class that leave it; {RED_GREY}",
        len(found.selections),
        3,
        (10, 3.6 * len(found.selections)),
    )
    names = [(selection, name) for selection in found.selections for name in CLASSES]
    for axes, (selection, name) in zip(panels, names, strict=True):
        before = int((found.prompts["class"] == name).sum())
        _strips(axes, found.of(selection), f"conversion_{name}")
        axes.set_ylabel(f"conversion ratio of {name}, the {selection} set")
        axes.set_title(f"{before:,} prompts are {name}", fontsize=9)
        axes.set_ylim(-0.03, 1.03)
        if not before:
            say(axes, f"no prompt is {name}")
    return figure


@styled
def copying_scores(found: "Copying") -> Figure:
    """Histograms of the random sets' global transition scores, and the score of each selected set."""
    note = "share of prompts whose class changes; dashed red: the selected set; grey: random sets"
    figure, rows = _beside(found, "Global transition score", note, (11, 2.8))
    for (selection, _), panels in rows.items():
        frame = found.of(selection).sets
        for ablation, axes in panels.items():
            of_value = frame[frame["ablation"] == ablation]
            axes.hist(of_value.loc[of_value["kind"] == "random", "transition_score"], bins=BINS, color=NORMAL)
            axes.axvline(of_value["transition_score"].iloc[0], color=ENTROPY, linestyle="--", linewidth=1.4)
            axes.set_xlabel("transition score")
        next(iter(panels.values())).set_ylabel(f"random sets beside the {selection}")
    return figure


@styled
def copying_entropy(found: "Copying") -> Figure:
    """How the entropy of the first new token's prediction changes, by transition."""
    note = f"means over the prompts of a transition, where there are any; {RED_GREY}"
    figure, rows = _beside(found, "Change of entropy by transition", note, (13, 3.4))
    pairs = [f"{before}→{after}" for before in CLASSES for after in CLASSES]
    for (selection, _), panels in rows.items():
        frame = found.of(selection).transitions
        for ablation, axes in panels.items():
            of_value = frame[frame["ablation"] == ablation]
            at = (of_value["before"] + "→" + of_value["after"]).map(pairs.index)
            for kind, style in POINTS.items():
                own = of_value["kind"] == kind
                axes.scatter(at[own], of_value.loc[own, "entropy_change"], **style)
            guide(axes, y=0, width=0.6, line="-")
            axes.set_xticks(range(len(pairs)), pairs, rotation=90)
            axes.set_xlim(-0.6, len(pairs) - 0.4)
        next(iter(panels.values())).set_ylabel(f"change of entropy, nats, the {selection} set")
    return figure


@styled
def copying_log_ratios(found: "Copying") -> Figure:
    """The log-ratios of the answers' probabilities, before the mean ablation of each selected set and after it."""
    figure, panels = canvas(
        model_name(found.facts),
        "Log-ratios of the answers",
        "before and after mean ablation; colours: the class before; dashed: no change",
        len(found.selections),
        len(RATIOS),
        (13, 3.6 * len(found.selections)),
    )
    places = [(selection, *ratio) for selection in found.selections for ratio in RATIOS]
    for axes, (selection, label, one, other) in zip(panels, places, strict=True):
        answers = found.of(selection).answers
        after = answers[answers["ablation"] == "mean"].reset_index(drop=True)
        x, y = (frame[one] - frame[other] for frame in (found.prompts, after))
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        axes.plot(ends, ends, color=QUIET, linestyle="--", linewidth=0.8)
        for name, colour in OF_CLASS.items():
            own = found.prompts["class"] == name
            axes.scatter(x[own], y[own], s=7, color=colour, linewidths=0, alpha=0.7, label=name)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.set_xlabel(f"log {label}, nats")
        axes.set_ylabel(f"after ablating the {selection} set")
    panels[len(RATIOS) - 1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


FIGURES: dict[str, Callable[["Copying"], Figure]] = {
    draw.__name__: draw
    for draw in (copying_transitions, copying_conversions, copying_scores, copying_entropy, copying_log_ratios)
}


def _beside(
    found: "Copying", subject: str, note: str, size: tuple[float, float], kinds: Sequence[str] = ("set",)
) -> tuple[Figure, dict[tuple[str, str], dict[str, Axes]]]:
    """A figure with a row of panels for each selection and kind, each with a panel for each ablation value.

    `size`: the width of the figure and the height of a row.
    """
    ablations = list(found.sets["ablation"].unique())
    rows = [(selection, kind) for selection in found.selections for kind in kinds]
    whole = (size[0], size[1] * len(rows))
    figure, panels = canvas(model_name(found.facts), subject, note, len(rows), len(ablations), whole)
    for ablation, axes in zip(ablations, panels, strict=False):
        axes.set_title(ablation, fontsize=9)
    by_row = [panels[i : i + len(ablations)] for i in range(0, len(panels), len(ablations))]
    return figure, {row: dict(zip(ablations, of_row, strict=True)) for row, of_row in zip(rows, by_row, strict=True)}


def _draw_table(axes: Axes, table: np.ndarray, digits: int) -> None:
    """Draw a transition table, with so many digits after the decimal point."""
    axes.imshow(table / np.maximum(table.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1.4)
    for i, j in np.ndindex(table.shape):
        axes.text(j, i, f"{table[i, j]:.{digits}f}", ha="center", va="center", fontsize=8)
    axes.set_xticks(range(3), CLASSES)
    axes.set_yticks(range(3), CLASSES)


def _strips(axes: Axes, found: "Copying", measure: str) -> None:
    """Draw a measure of the sets, a column of points for each ablation value."""
    ablations = list(found.sets["ablation"].unique())
    rng = np.random.default_rng(0)
    for kind, style in POINTS.items():
        rows = found.sets[found.sets["kind"] == kind]
        beside = rng.uniform(-0.25, 0.25, len(rows)) if kind == "random" else 0
        axes.scatter(rows["ablation"].map(ablations.index).astype(float) + beside, rows[measure], **style)
    axes.set_xticks(range(len(ablations)), ablations, rotation=30, ha="right")

"""Figures, in the paper's layout, of how a model answers if its context contradicts its memory.

The chosen set is red, random sets are grey.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.analysis.transitions import CLASSES
from jaxconf.report.style import ENTROPY, HUES, INK, NORMAL, QUIET, canvas, guide, model_name, say, styled

if TYPE_CHECKING:
    from jaxconf.studies.copying.study import Copying

RED_GREY = "red: the chosen set; grey: random sets of as many neurons"
OF_CLASS = dict(zip(CLASSES, HUES, strict=False))
BINS = 25
POINTS: dict[str, dict[str, Any]] = {  # how the sets of each kind are drawn
    "random": {"s": 10, "color": NORMAL, "alpha": 0.5, "linewidths": 0},
    "set": {"s": 26, "color": ENTROPY, "linewidths": 0},
}


@styled
def copying_transitions(found: "Copying") -> Figure:
    """The transition tables of the chosen set, and the mean of the random sets' tables."""
    ablations = list(found.transitions["ablation"].unique())
    figure, panels = canvas(
        model_name(found.facts),
        "Transitions",
        "prompts by class before (rows) and after (columns)",
        2,
        len(ablations),
        (11, 4.8),
    )
    for column, ablation in enumerate(ablations):
        for row, kind in enumerate(("set", "random")):
            axes = panels[row * len(ablations) + column]
            rows = found.transitions[(found.transitions["ablation"] == ablation) & (found.transitions["kind"] == kind)]
            if rows.empty:
                say(axes, "no random sets")
                continue
            means = rows.groupby(["before", "after"])["count"].mean().unstack()
            _draw_table(axes, means.loc[list(CLASSES), list(CLASSES)].to_numpy(), digits=row)
            if not row:
                axes.set_title(ablation, fontsize=9)
            if not column:
                axes.set_ylabel("before: " + ("the chosen set" if kind == "set" else "random sets, mean"))
    return figure


@styled
def copying_conversions(found: "Copying") -> Figure:
    """The conversion ratios of each class, for every ablation value."""
    figure, panels = canvas(
        model_name(found.facts),
        "Conversion ratios",
        f"share of the prompts of a class that leave it; {RED_GREY}",
        1,
        3,
        (10, 3.6),
    )
    for axes, name in zip(panels, CLASSES, strict=True):
        before = int((found.prompts["class"] == name).sum())
        _strips(axes, found, f"conversion_{name}")
        axes.set_ylabel(f"conversion ratio of {name}")
        axes.set_title(f"{before:,} prompts are {name}", fontsize=9)
        axes.set_ylim(-0.03, 1.03)
        if not before:
            say(axes, f"no prompt is {name}")
    return figure


@styled
def copying_scores(found: "Copying") -> Figure:
    """Histograms of the random sets' global transition scores, and the score of the chosen set."""
    note = "share of prompts whose class changes; dashed red: the chosen set; grey: random sets"
    figure, panels = _beside(found, "Global transition score", note, (11, 2.8))
    for ablation, axes in panels.items():
        rows = found.sets[found.sets["ablation"] == ablation]
        axes.hist(rows.loc[rows["kind"] == "random", "transition_score"], bins=BINS, color=NORMAL)
        axes.axvline(rows["transition_score"].iloc[0], color=ENTROPY, linestyle="--", linewidth=1.4)
        axes.set_xlabel("transition score")
    figure.axes[0].set_ylabel("random sets")
    return figure


@styled
def copying_entropy(found: "Copying") -> Figure:
    """How the entropy of the first new token's prediction changes, by transition."""
    note = f"means over the prompts of a transition, where there are any; {RED_GREY}"
    figure, panels = _beside(found, "Change of entropy by transition", note, (13, 3.4))
    pairs = [f"{before}→{after}" for before in CLASSES for after in CLASSES]
    for ablation, axes in panels.items():
        rows = found.transitions[found.transitions["ablation"] == ablation]
        at = (rows["before"] + "→" + rows["after"]).map(pairs.index)
        for kind, style in POINTS.items():
            own = rows["kind"] == kind
            axes.scatter(at[own], rows.loc[own, "entropy_change"], **style)
        guide(axes, y=0, width=0.6, line="-")
        axes.set_xticks(range(len(pairs)), pairs, rotation=90)
        axes.set_xlim(-0.6, len(pairs) - 0.4)
    figure.axes[0].set_ylabel("change of entropy, nats")
    return figure


@styled
def copying_log_ratios(found: "Copying") -> Figure:
    """The log-ratios of the classes' probabilities, before the mean ablation of the chosen set and after it."""
    figure, panels = canvas(
        model_name(found.facts),
        "Log-ratios of the answers",
        "before and after mean ablation of the chosen set; colours: the class before; dashed: no change",
        1,
        3,
        (10, 3.6),
    )
    after = found.answers[found.answers["ablation"] == "mean"].reset_index(drop=True)
    for axes, (one, other) in zip(panels, (("CK", "PK"), ("ND", "CK"), ("ND", "PK")), strict=True):
        x, y = (frame[f"log_p_{one}"] - frame[f"log_p_{other}"] for frame in (found.prompts, after))
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        axes.plot(ends, ends, color=QUIET, linestyle="--", linewidth=0.8)
        for name, colour in OF_CLASS.items():
            own = found.prompts["class"] == name
            axes.scatter(x[own], y[own], s=7, color=colour, linewidths=0, alpha=0.7, label=name)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.set_xlabel(f"log P({one})/P({other}), nats")
        axes.set_ylabel("the same after ablation")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


FIGURES: dict[str, Callable[["Copying"], Figure]] = {
    draw.__name__: draw
    for draw in (copying_transitions, copying_conversions, copying_scores, copying_entropy, copying_log_ratios)
}


def _beside(found: "Copying", subject: str, note: str, size: tuple[float, float]) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel for each ablation value."""
    ablations = list(found.sets["ablation"].unique())
    figure, panels = canvas(model_name(found.facts), subject, note, 1, len(ablations), size)
    for ablation, axes in zip(ablations, panels, strict=True):
        axes.set_title(ablation, fontsize=9)
    return figure, dict(zip(ablations, panels, strict=True))


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

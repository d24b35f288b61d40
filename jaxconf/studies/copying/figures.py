"""Pictures, in the paper's layout, of what a model says if context and memory disagree: the chosen set in red, random
sets in grey.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.analysis.transitions import CLASSES
from jaxconf.report.figures import ENTROPY, HUES, INK, NORMAL, QUIET, STYLE, draw_all, model_name, say

if TYPE_CHECKING:
    from jaxconf.studies.copying.study import Copying

RED_GREY = "red: the chosen set; grey: random sets of as many neurons"
OF_CLASS = dict(zip(CLASSES, HUES, strict=False))
BINS = 25


@mpl.rc_context(STYLE)
def copying_transitions(found: "Copying") -> Figure:
    """From which class to which: counts of prompts for the chosen set, and the mean of the random sets."""
    ablations = list(found.transitions["ablation"].unique())
    figure, panels = _canvas(
        found,
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
            table = (
                rows.groupby(["before", "after"])["count"].mean().unstack().loc[list(CLASSES), list(CLASSES)].to_numpy()
            )
            axes.imshow(table / np.maximum(table.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1.4)
            for i, j in np.ndindex(table.shape):
                axes.text(
                    j,
                    i,
                    f"{table[i, j]:.0f}" if kind == "set" else f"{table[i, j]:.1f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                )
            axes.set_xticks(range(3), CLASSES)
            axes.set_yticks(range(3), CLASSES)
            if not row:
                axes.set_title(ablation, fontsize=9)
            if not column:
                axes.set_ylabel("before: " + ("the chosen set" if kind == "set" else "random sets, mean"))
    return figure


@mpl.rc_context(STYLE)
def copying_conversions(found: "Copying") -> Figure:
    """The conversion ratios of each class, for every value that activations are set to."""
    figure, panels = _canvas(
        found, "Conversion ratios", f"share of the prompts of a class that leave it; {RED_GREY}", 1, 3, (10, 3.6)
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


@mpl.rc_context(STYLE)
def copying_scores(found: "Copying") -> Figure:
    """Histograms of the random sets' global transition scores, with the chosen set's."""
    ablations = list(found.sets["ablation"].unique())
    figure, panels = _canvas(
        found,
        "Global transition score",
        "share of prompts whose class changes; dashed red: the chosen set; grey: random sets",
        1,
        len(ablations),
        (11, 2.8),
    )
    for axes, ablation in zip(panels, ablations, strict=True):
        rows = found.sets[found.sets["ablation"] == ablation]
        axes.hist(rows.loc[rows["kind"] == "random", "transition_score"], bins=BINS, color=NORMAL)
        axes.axvline(rows["transition_score"].iloc[0], color=ENTROPY, linestyle="--", linewidth=1.4)
        axes.set_title(ablation, fontsize=9)
        axes.set_xlabel("transition score")
    panels[0].set_ylabel("random sets")
    return figure


@mpl.rc_context(STYLE)
def copying_entropy(found: "Copying") -> Figure:
    """How the entropy of the first new token's prediction changes, by transition."""
    ablations = list(found.transitions["ablation"].unique())
    figure, panels = _canvas(
        found,
        "Change of entropy by transition",
        f"means over the prompts of a transition, where there are any; {RED_GREY}",
        1,
        len(ablations),
        (13, 3.4),
    )
    pairs = [f"{before}→{after}" for before in CLASSES for after in CLASSES]
    for axes, ablation in zip(panels, ablations, strict=True):
        rows = found.transitions[found.transitions["ablation"] == ablation]
        at = (rows["before"] + "→" + rows["after"]).map(pairs.index)
        for kind, style in _styles():
            own = rows["kind"] == kind
            axes.scatter(at[own], rows.loc[own, "entropy_change"], **style)
        axes.axhline(0, color=QUIET, linewidth=0.6)
        axes.set_xticks(range(len(pairs)), pairs, rotation=90)
        axes.set_xlim(-0.6, len(pairs) - 0.4)
        axes.set_title(ablation, fontsize=9)
    panels[0].set_ylabel("change of entropy, nats")
    return figure


@mpl.rc_context(STYLE)
def copying_log_ratios(found: "Copying") -> Figure:
    """The log-ratios of the three answers' probabilities before the mean ablation of the chosen set, and after it."""
    figure, panels = _canvas(
        found,
        "Log-ratios of the answers",
        "before and after mean ablation of the chosen set; hues: the class before; dashed: no change",
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
        axes.set_ylabel("the same, ablated")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


DRAWN: dict[str, Callable[["Copying"], Figure]] = {
    draw.__name__: draw
    for draw in (copying_transitions, copying_conversions, copying_scores, copying_entropy, copying_log_ratios)
}


def save_copying_figures(found: "Copying", folder: Path) -> list[Path]:
    return draw_all(DRAWN, found, folder)


def _canvas(
    found: "Copying", subject: str, note: str, rows: int, columns: int, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    # Mathtext off: a model's name may hold a dollar sign.
    figure.suptitle(f"{subject}: {model_name(found.facts)}\n{note}", fontsize=9, x=0.02, ha="left", parse_math=False)
    return figure, list(panels.ravel())


def _styles() -> tuple[tuple[str, dict[str, Any]], ...]:
    return (
        ("random", {"s": 10, "color": NORMAL, "alpha": 0.5, "linewidths": 0}),
        ("set", {"s": 26, "color": ENTROPY, "linewidths": 0}),
    )


def _strips(axes: Axes, found: "Copying", measure: str) -> None:
    """A column of points for every ablation value."""
    ablations = list(found.sets["ablation"].unique())
    rng = np.random.default_rng(0)
    for kind, style in _styles():
        rows = found.sets[found.sets["kind"] == kind]
        beside = rng.uniform(-0.25, 0.25, len(rows)) if kind == "random" else 0
        axes.scatter(rows["ablation"].map(ablations.index).astype(float) + beside, rows[measure], **style)
    axes.set_xticks(range(len(ablations)), ablations, rotation=30, ha="right")

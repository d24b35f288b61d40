"""Figures of influence, carrying and decodability. Named sets are red, controls coloured, random sets grey."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.report.style import (
    ENTROPY,
    HUES,
    INK,
    NORMAL,
    canvas,
    guide,
    label_points,
    log_axes,
    model_name,
    short,
    styled,
)
from jaxconf.results.published_rules import GATE_ENTROPY
from jaxconf.studies.carry.carried import COMPONENTS
from jaxconf.studies.carry.positions import DIRECTION, NORM, STREAM, VALUES
from jaxconf.studies.carry.sets import CORRELATED
from jaxconf.studies.carry.verdicts import (
    SHARE,
    directions_needed,
    influence_of,
    labels,
    random_influence,
    random_r2,
    worst,
)

if TYPE_CHECKING:
    from jaxconf.studies.carry.study import Carry

BLUE, ORANGE = HUES[0], HUES[1]
COLOURS = {STREAM: BLUE, DIRECTION: BLUE, NORM: BLUE, COMPONENTS: INK, CORRELATED: ORANGE}
LABELS = {"entropy": "R² of the entropy", "loss": "R² of the loss", "top1": "R² of top-1 correctness"}
LOWEST = -0.2  # the least R² that the figure of components shows
MOST_NEURONS = 12  # single neurons that a panel shows


@styled
def carry_side_by_side(found: "Carry") -> Figure:
    """Each set's influence and how well it predicts the entropy, in its worst split."""
    figure, panels = _panels(
        found, "Influence and carrying", "red: named sets; orange: largest |correlation|; grey: random sets"
    )
    for axes, text in zip(panels, found.texts, strict=True):
        of = found.of(text)
        names = [CORRELATED, *of.facts["sets"]]  # may be the same neurons, and the named sets are in front
        x = pd.Series({name: influence_of(of, name)["entropy_abs_delta"] for name in names})
        rows = {name: worst(of, name) for name in names}
        y = pd.Series({name: row["r2"] for name, row in rows.items()})
        for row in rows.values():
            random = random_r2(of, row["beside"], row["split"])
            x_random = random_influence(of, row["beside"])[random.index]
            axes.scatter(x_random, random, s=9, color=NORMAL, linewidths=0, alpha=0.7)
        for name in names:
            own, row, colour = influence_of(of, name), rows[name], COLOURS.get(name, ENTROPY)
            ends = [_ends(own, "entropy_abs_delta"), _ends(row, "r2")]
            axes.errorbar(x[name], y[name], ends[1], ends[0], fmt="o", color=colour, markersize=4, linewidth=0.8)
        guide(axes, x=GATE_ENTROPY)
        guide(axes, y=0, width=0.6, line="-")
        axes.set_xlabel("mean |change of entropy| if clipped, nats")
        axes.set_ylabel(LABELS["entropy"])
        labelled = {short(name, 20): name for name in names}
        shown = pd.Series({label: x[name] for label, name in labelled.items()})
        label_points(figure, axes, shown, pd.Series({a: y[b] for a, b in labelled.items()}), list(labelled), INK)
    return figure


@styled
def carry_influence(found: "Carry") -> Figure:
    """The influence of single neurons, of the sets, and of their random sets."""
    figure, panels = _panels(
        found, "Influence", f"grey: random sets of as many {found.noun}s; dashed: {GATE_ENTROPY:g} nats", height=4.4
    )
    for axes, text in zip(panels, found.texts, strict=True):
        of = found.of(text)
        alone = of.influence[of.influence["kind"] == "neuron"].nlargest(MOST_NEURONS, "entropy_abs_delta")
        sets = of.influence[of.influence["set"].isin([*of.facts["sets"], CORRELATED])]
        rows = pd.concat([sets[sets["kind"] != "neuron"], alone]).iloc[::-1]
        for height, row in enumerate(rows.to_dict("records")):
            if row["kind"] != "neuron":
                random = random_influence(of, row["beside"])
                axes.scatter(random, np.full(len(random), height), s=9, color=NORMAL, linewidths=0, alpha=0.7)
            colour = INK if row["kind"] == "neuron" else COLOURS.get(row["set"], ENTROPY)
            ends = _ends(row, "entropy_abs_delta")
            axes.errorbar(row["entropy_abs_delta"], height, xerr=ends, fmt="o", color=colour, markersize=4, linewidth=1)
        axes.set_yticks(range(len(rows)), [short(name, 24) for name in rows["set"]])
        guide(axes, x=GATE_ENTROPY)
        axes.set_xlabel("mean |change of entropy| if clipped, nats")
    return figure


@styled
def carry_r2(found: "Carry") -> Figure:
    """R² of every set of features and of the random sets, in the split where each is worst, for each value."""
    texts = found.texts
    names = [*found.facts["sets"], CORRELATED, COMPONENTS, NORM, DIRECTION, STREAM]
    size = 11, 0.9 + (0.8 + 0.26 * len(names)) * len(texts)
    note = (
        "red: named sets; orange: largest |correlation|; black: principal components; blue: stream; grey: random sets"
    )
    figure, panels = canvas(
        model_name(found.facts),
        "R² on held-out documents, worst split",
        note,
        len(texts),
        len(VALUES),
        size,
        sharey=True,
    )
    for row, text in enumerate(texts):
        of = found.of(text)
        for axes, value in zip(panels[row * len(VALUES) :], VALUES, strict=False):
            _bars(axes, of, names[::-1], value)
            axes.set_xlabel(LABELS[value])
            if len(texts) > 1:
                axes.set_title(short(labels(found)[text]), fontsize=9, loc="left")
    return figure


@styled
def carry_components(found: "Carry") -> Figure:
    """R² of the entropy from the first principal components, beside the stream's and the sets'."""
    note = f"black: each split; grey: the whole stream; dashed: {SHARE:.0%} of it; red: named sets"
    figure, panels = _panels(found, "Principal components of the stream", note)
    for axes, text in zip(panels, found.texts, strict=True):
        of = found.of(text)
        for _, rows in of.components.groupby("split"):
            axes.plot(rows["number"], rows["entropy"], color=INK, linewidth=1, alpha=0.7)
        whole, needed = worst(of, STREAM, by="r2"), directions_needed(of)
        guide(axes, y=whole["r2"], line="-")
        guide(axes, y=SHARE * whole["r2"], x=needed)
        for name in of.facts["sets"]:
            row = worst(of, name)
            axes.scatter(row["size"], row["r2"], color=ENTROPY, s=18, zorder=3, linewidths=0)
        log_axes(axes, x=of.components["number"])
        axes.set_ylim(bottom=max(LOWEST, axes.get_ylim()[0]))
        axes.set_xlabel(f"number of principal components, or of {found.noun}s")
        axes.set_ylabel(LABELS["entropy"])
    return figure


FIGURES: dict[str, Callable[["Carry"], Figure]] = {
    draw.__name__: draw for draw in (carry_side_by_side, carry_influence, carry_r2, carry_components)
}


def _panels(found: "Carry", subject: str, note: str, height: float = 3.8) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each text."""
    count = len(found.texts)
    figure, panels = canvas(model_name(found.facts), subject, note, 1, count, (1.4 + 5.2 * count, height))
    for axes, text in zip(panels, found.texts, strict=True):
        if count > 1:
            axes.set_title(short(labels(found)[text]), fontsize=9, loc="left")
    return figure, panels


def _bars(axes: Axes, found: "Carry", names: list[str], value: str) -> None:
    """A row for each set of features, with its random sets if it has some."""
    for height, name in enumerate(names):
        row = worst(found, name, value, "gap" if name in found.facts["sets"] or name == CORRELATED else "r2")
        if name in found.facts["sets"]:
            random = random_r2(found, name, row["split"], value)
            axes.scatter(random, np.full(len(random), height), s=9, color=NORMAL, linewidths=0, alpha=0.7)
        colour = COLOURS.get(name, ENTROPY)
        axes.errorbar(row["r2"], height, xerr=_ends(row, "r2"), fmt="o", color=colour, markersize=4, linewidth=1)
    axes.set_yticks(range(len(names)), [short(name, 24) for name in names])
    guide(axes, x=0, width=0.6, line="-")


def _ends(row: dict, name: str) -> np.ndarray:
    """The lengths of an interval below and above its estimate, [2 1]; 0 where there is no interval."""
    ends = [row[name] - row[f"{name}_lo"], row[f"{name}_hi"] - row[name]]
    return np.maximum(np.nan_to_num(ends), 0)[:, None]

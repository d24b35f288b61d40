"""Figures of what a model does when a sequence repeats. Chosen neurons are red or coloured, random sets are grey."""

import functools
from collections.abc import Callable, Sequence
from itertools import chain, product, repeat
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxconf.analysis.induction import predictions
from jaxconf.analysis.intervals import NOISE
from jaxconf.report.style import ENTROPY, HUES, INK, NORMAL, canvas, guide, label_points, model_name, say, styled
from jaxconf.studies.induction.heads import THRESHOLD

if TYPE_CHECKING:
    from jaxconf.studies.induction.study import Induction

RED_GREY = "red: the chosen set; grey: random sets"
SMOOTH = 9  # positions that noisy lines are averaged over
SMOOTHED = f"\nrunning means over {SMOOTH} positions of a copy"
MOST_LABELLED = 30  # the most heads or layers along an axis that are all labelled
PROTOCOLS = {
    "ours": "Ours: clipped to the means over the first A",
    "paper": "The paper's: set to means of other text",
}
SCALED = {  # column of `Induction.doses` → its label in the figure of scaling
    "ece": "ECE",
    "brier": "Brier score",
    "entropy": "entropy, nats",
    "loss": "loss, nats",
    "top1": "top-1 accuracy",
}


@styled
def induction_positions(found: "Induction") -> Figure:
    """Entropy, loss and the final norm's scale by position."""
    figure, panels = canvas(
        model_name(found.facts),
        "Repeated text",
        "by position, means over the sequences; dashed: where the repeat begins",
        3,
        1,
        (6, 5.4),
        sharex=True,
    )
    words = {"entropy": "entropy, nats", "loss": "loss, nats", "scale": "scale of the final norm"}
    for axes, (name, label) in zip(panels, words.items(), strict=True):
        axes.plot(found.positions["position"], found.positions[name], color=INK, linewidth=1.1)
        axes.set_ylabel(label)
        _repeat_line(axes, found)
    panels[-1].set_xlabel("position")
    return figure


@styled
def induction_activations(found: "Induction") -> Figure:
    """The mean activation of the chosen neurons by position, beside a random set (the paper's Figure 5a)."""
    figure, (axes,) = canvas(
        model_name(found.facts),
        "Activations",
        f"colours: chosen {found.facts['noun']}s; grey: a random set of the same size{SMOOTHED}",
        1,
        1,
        (7, 3.8),
    )
    hues = iter(HUES)
    for (kind, name), rows in found.activations.groupby(["kind", "neuron"], sort=False):
        style: dict[str, Any] = {"color": NORMAL, "linewidth": 0.7, "alpha": 0.7}
        if kind == "chosen":
            colour = next(hues, None)
            style = {
                "color": colour or ENTROPY,
                "linewidth": 1.2,
                "alpha": 1 if colour else 0.35,
                "label": name if colour else None,
            }
        axes.plot(rows["position"], _smooth(rows["activation"], found), **style)
    _repeat_line(axes, found)
    axes.set_xlabel("position")
    axes.set_ylabel("mean activation")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def induction_change(found: "Induction") -> Figure:
    """The change of every neuron's mean activation between the copies, times its norm (Figure 11), against ρ."""
    figure, (axes,) = canvas(
        model_name(found.facts),
        "Change from first copy to second",
        f"red: chosen {found.facts['noun']}s; dashed: the chance level of ρ",
        1,
        1,
        (5.4, 4),
    )
    frame = found.neurons.set_index("name")
    own = frame["is_chosen"]
    for rows, colour, size in ((frame[~own], NORMAL, 6), (frame[own], ENTROPY, 18)):
        axes.scatter(rows["rho"], rows["weighted_change"], s=size, color=colour, linewidths=0)
    _thin_line(axes, y=0)
    guide(axes, x=frame["rho_chance"].iloc[0], width=0.8)
    axes.set_xlabel("ρ, share of w_out in the null space", parse_math=False)
    axes.set_ylabel("change of mean activation · ‖w_out‖", parse_math=False)
    label_points(figure, axes, frame["rho"], frame["weighted_change"], list(frame.index[own]), ENTROPY)
    return figure


@styled
def induction_ablations(found: "Induction") -> Figure:
    """The effects of clip and full ablation by position, beside random sets, as changes and as ratios (Figure 5b)."""
    noun = found.facts["noun"]
    note = (
        "red: the chosen set, clipped (dotted: norm frozen) and, as in the paper, fully ablated (dashed); grey: random "
        f"sets of this size, clipped\nother colours: single {noun}s, clipped; left: changes, right: ratios of "
        f"after to before{SMOOTHED}"
    )
    figure, panels = canvas(model_name(found.facts), "Mean ablation", note, 2, 2, (11, 5), sharex=True)
    for axes, (name, end) in zip(panels, product(("entropy", "loss"), ("", "_ratio")), strict=True):
        draw = functools.partial(_ablation_lines, axes, found)
        draw(name + end, "clip", "random", linewidth=0.6, alpha=0.5)
        draw(name + end, "clip", "neuron", HUES, linewidth=0.7, alpha=0.8)
        draw(name + end, "clip", "set", [ENTROPY], linewidth=1.5)
        draw(f"{name}_ln_frozen{end}", "clip", "set", [ENTROPY], linewidth=1.1, linestyle=":")
        draw(name + end, "full", "set", [ENTROPY], linewidth=1.1, linestyle="--")
        _thin_line(axes, y=1 if end else 0)
        _repeat_line(axes, found)
        axes.set_ylabel(f"{name}, after / before" if end else f"change of {name}, nats")
    for axes in panels[-2:]:
        axes.set_xlabel("position")
    return figure


@styled
def induction_heads(found: "Induction") -> Figure:
    """Every head's induction scores, and how the loss on the repeat changes if heads attend to BOS alone."""
    figure, (left, middle, right) = canvas(
        model_name(found.facts),
        "Induction heads",
        "left: scores on the sequences; squares: the highest; middle: scores on random tokens, as in the paper; "
        f"squares: above its threshold of {THRESHOLD}\nright: change over the repeat if heads attend to BOS alone; "
        "red: the chosen heads, grey: random heads",
        1,
        3,
        (11.4, 3.8),
    )
    highest = max(1e-3, float(found.heads[["score", "score_random"]].to_numpy().max()))
    for axes, name, mark in ((left, "score", "is_highest"), (middle, "score_random", "is_above_threshold")):
        scores = found.heads.pivot(index="layer", columns="head", values=name)
        image = axes.imshow(scores, cmap="Reds", vmin=0, vmax=highest, aspect="auto", origin="lower")
        marked = found.heads[found.heads[mark]]
        axes.scatter(marked["head"], marked["layer"], s=40, marker="s", facecolors="none", edgecolors=HUES[0])
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
        for axis, count in ((axes.xaxis, scores.shape[1]), (axes.yaxis, scores.shape[0])):
            axis.set_ticks(np.arange(0, count, 1 if count <= MOST_LABELLED else count // MOST_LABELLED + 1))
    figure.colorbar(image, ax=middle, label="induction score")
    for loss in found.head_sets.loc[found.head_sets["kind"] == "random", "loss"]:
        right.axvline(loss, color=NORMAL, linewidth=0.8, alpha=0.6)
    own = found.head_sets[found.head_sets["kind"] != "random"].iloc[::-1]
    y = np.arange(len(own))
    ends = [own["loss"] - own["loss_lo"], own["loss_hi"] - own["loss"]]
    right.errorbar(own["loss"], y, xerr=ends, fmt="o", color=ENTROPY, markersize=4)
    right.set_yticks(y, own["set"])
    _thin_line(right, x=0)
    right.set_xlabel("change of the loss on the repeat, nats")
    _ratio_scale(right, "x", float(found.positions.loc[predictions(found.facts["length"])[1], "loss"].mean()))
    return figure


@styled
def induction_head_activations(found: "Induction") -> Figure:
    """The chosen neurons' mean activations over the repeat, before and after heads attend to BOS alone (Figure 5c)."""
    own = found.head_activations[found.head_activations["kind"] != "random"]
    largest = own["heads"].iloc[-1] if (own["kind"] == "cumulative").any() else own["heads"].iloc[0]
    figure, (axes,) = canvas(
        model_name(found.facts),
        f"{found.facts['noun'].capitalize()}s without induction heads",
        f"red: the heads {largest} attend to BOS alone; grey: random heads do; black: no head is ablated",
        1,
        1,
        (6.5, 3.6),
    )
    rows = own[own["heads"] == largest]
    x = np.arange(len(rows))
    controls = found.head_activations[found.head_activations["kind"] == "random"]
    for _, members in controls.groupby("heads"):
        axes.plot(x, members["activation_ablated"], "_", color=NORMAL, markersize=9, alpha=0.6)
    axes.plot(x, rows["activation"], "_", color=INK, markersize=14)
    axes.plot(x, rows["activation_ablated"], "o", color=ENTROPY, markersize=4)
    axes.set_xticks(x, rows["neuron"], rotation=45, ha="right")
    axes.set_ylabel("mean activation over the repeat")
    return figure


@styled
def induction_doses(found: "Induction") -> Figure:
    """Calibration, entropy, loss and accuracy if the activations of the chosen set, or of a random set, are scaled."""
    note = f"the activations of a set are multiplied by a factor; {RED_GREY}; above: on text, below: on the repeat"
    figure, panels = canvas(model_name(found.facts), "Scaling the activations", note, 2, len(SCALED), (12, 4.8))
    for row, data in enumerate(("text", "repeat")):
        for column, (name, label) in enumerate(SCALED.items()):
            axes = panels[row * len(SCALED) + column]
            _scaling_lines(axes, found, data, name)
            axes.set_ylabel(label)
            if row:
                axes.set_xlabel("factor on the activations")
    return figure


@styled
def induction_temperature(found: "Induction") -> Figure:
    """The temperature that mimics each scaling best, and the share of the change that it explains."""
    note = (
        "left: the temperature that mimics the scaling best; right: the share of the change of log-probabilities that "
        f"it explains\n{RED_GREY}; solid: on text, dashed: on the repeat"
    )
    figure, (left, right) = canvas(model_name(found.facts), "Scaling as a temperature", note, 1, 2, (8.4, 3.8))
    for data, line in (("text", "-"), ("repeat", "--")):
        _scaling_lines(left, found, data, "temperature", line)
        _scaling_lines(right, found, data, "explained", line)
    _thin_line(left, y=1)
    left.set_ylabel("temperature")
    right.set_ylabel("share explained")
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.set_xlabel("factor on the activations")
    return figure


@styled
def induction_natural(found: "Induction") -> Figure:
    """Activations on the tokens of natural induction both times, and the ablations' effects, by each protocol."""
    natural = found.natural
    assert natural is not None
    protocols = natural.sets["protocol"].unique()
    noun = found.facts["noun"]
    note = (
        f"left: chosen {noun}s in colours, solid the second time, dotted the first; grey: a random set the second "
        f"time; at 1 are B and X\nright: ablation, the second time; red: the chosen set, black: single {noun}s, "
        "grey: random sets"
    )
    size = 9.4, 0.6 + 3.4 * len(protocols)
    figure, panels = canvas(model_name(found.facts), "Natural induction", note, len(protocols), 2, size)
    for row, protocol in enumerate(protocols):
        left, right = panels[2 * row : 2 * row + 2]
        pairs = natural.pairs[natural.pairs[f"is_{protocol}"]]
        _natural_activations(left, natural.activations[natural.activations["protocol"] == protocol])
        left.set_title(f"{PROTOCOLS[protocol]}, {len(pairs):,} windows", fontsize=9, loc="left")
        right.xaxis.set_major_locator(MaxNLocator(5))
        sets = natural.sets[natural.sets["protocol"] == protocol]
        for kind, colour, area in (("random", NORMAL, 14), ("neuron", INK, 14), ("set", ENTROPY, 40)):
            rows = sets[sets["kind"] == kind]
            right.scatter(rows["entropy"], rows["loss"], color=colour, s=area, linewidths=0)
        _thin_line(right, x=0, y=0)
        right.set_xlabel("change of entropy, nats")
        right.set_ylabel("change of loss, nats")
        _ratio_scale(right, "x", float(pairs["entropy_second"].mean()))
        _ratio_scale(right, "y", float(pairs["loss_second"].mean()))
    return figure


def _natural_activations(axes: Axes, activations: pd.DataFrame) -> None:
    lines = activations.groupby(["kind", "neuron"], sort=False)
    for _, rows in [item for item in lines if item[0][0] == "random"]:
        axes.plot(rows["offset"], rows["activation_second"], color=NORMAL, linewidth=0.6, alpha=0.7)
    chosen = [item for item in lines if item[0][0] == "chosen"]
    for ((_, name), rows), colour in zip(chosen, HUES, strict=False):  # as many as can be told apart
        axes.plot(rows["offset"], rows["activation_second"], color=colour, linewidth=1.4, label=name)
        axes.plot(rows["offset"], rows["activation_first"], color=colour, linewidth=1.2, linestyle=":")
    axes.set_xlabel("tokens from the end of the repeated six")
    axes.set_ylabel("mean activation")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def figures_of(found: "Induction") -> dict[str, Callable[["Induction"], Figure]]:
    """Name → figure. The figure of natural induction is there only if natural induction was measured."""
    drawn = [
        induction_positions,
        induction_activations,
        induction_change,
        induction_ablations,
        induction_heads,
        induction_head_activations,
        induction_doses,
        induction_temperature,
    ]
    if found.natural:
        drawn.append(induction_natural)
    return {draw.__name__: draw for draw in drawn}


def _smooth(values: pd.Series, found: "Induction") -> pd.Series:
    """The running mean over positions, for each copy by itself."""
    copies = found.positions["copy"].to_numpy()
    smooth = values.groupby(copies).rolling(SMOOTH, min_periods=1, center=True).mean()
    return smooth.droplevel(0)


def _ablation_lines(
    axes: Axes, found: "Induction", column: str, ablation: str, kind: str, colours: Sequence[str] = (), **style: Any
) -> None:
    """A line by position for each set of this kind; those beyond the `colours` are grey."""
    rows = found.ablations[(found.ablations["ablation"] == ablation) & (found.ablations["kind"] == kind)]
    for (_, of_set), colour in zip(rows.groupby("set", sort=False), chain(colours, repeat(NORMAL)), strict=False):
        axes.plot(of_set["position"], _smooth(of_set[column], found), color=colour, **style)


def _repeat_line(axes: Axes, found: "Induction") -> None:
    guide(axes, x=found.facts["length"] + 1, width=0.8)


def _thin_line(axes: Axes, x: float | None = None, y: float | None = None) -> None:
    guide(axes, x=x, y=y, width=0.6, line="-")


def _scaling_lines(axes: Axes, found: "Induction", data: str, name: str, line: str = "-") -> None:
    doses = found.doses[found.doses["data"] == data]
    factors = sorted(doses["factor"].unique())
    styles: dict[str, dict[str, Any]] = {
        "random": {"color": NORMAL, "linewidth": 0.6, "alpha": 0.6},
        "set": {"color": ENTROPY, "linewidth": 1.4},
    }
    for kind, style in styles.items():
        for _, rows in doses[doses["kind"] == kind].groupby("set"):
            known = rows[np.isfinite(rows[name])]
            places = [factors.index(x) for x in known["factor"]]
            axes.plot(places, known[name], marker="o", markersize=2, linestyle=line, **style)
    axes.set_xticks(range(len(factors)), [f"{factor:g}" for factor in factors])
    if not np.isfinite(doses[name]).any():
        say(axes, "nothing changed")


def _ratio_scale(axes: Axes, axis: Literal["x", "y"], before: float) -> None:
    """A second scale for changes of a mean that was `before`: the ratio of after to before."""
    if not before > NOISE:
        return
    of_change = (lambda change: 1 + change / before), (lambda ratio: (ratio - 1) * before)
    if axis == "x":
        second = axes.secondary_xaxis("top", functions=of_change)
        second.xaxis.set_major_locator(MaxNLocator(5))
        second.set_xlabel("after / before")
    else:
        axes.secondary_yaxis("right", functions=of_change).set_ylabel("after / before")

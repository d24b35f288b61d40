"""Figures of what a model does when a sequence repeats. Chosen neurons are red or coloured, random sets are grey."""

from collections.abc import Callable
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxconf.report.style import ENTROPY, HUES, INK, NORMAL, canvas, guide, label_points, model_name, say, styled

if TYPE_CHECKING:
    from jaxconf.studies.induction.study import Induction

RED_GREY = "red: the chosen set; grey: random sets"
SMOOTH = 9  # positions that noisy lines are averaged over
SMOOTHED = f"\nrunning means over {SMOOTH} positions of a copy"
MOST_LABELLED = 30  # the most heads or layers along an axis that are all labelled
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
        f"colours: chosen neurons; grey: a random set of the same size{SMOOTHED}",
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
        "red: chosen neurons; dashed: the chance level of ρ",
        1,
        1,
        (5.4, 4),
    )
    frame = found.neurons.set_index(found.neurons["layer"].astype(str) + "." + found.neurons["neuron"].astype(str))
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
    """The effects of clip ablation of the chosen set by position, beside random sets (Figure 5b)."""
    note = "red: the chosen set (dotted: norm frozen); grey: random sets of this size; other colours: single neurons"
    figure, panels = canvas(model_name(found.facts), "Clip mean-ablation", note + SMOOTHED, 2, 1, (7, 5), sharex=True)
    sets = {kind: list(rows.groupby("set", sort=False)) for kind, rows in found.ablations.groupby("kind")}
    for axes, name in zip(panels, ("entropy", "loss"), strict=True):

        def draw(rows: pd.DataFrame, column: str, axes: Axes = axes, **style: Any) -> None:
            axes.plot(rows["position"], _smooth(rows[column], found), **style)

        for _, rows in sets.get("random", []):
            draw(rows, name, color=NORMAL, linewidth=0.6, alpha=0.5)
        for (_, rows), colour in zip(sets.get("neuron", []), chain(HUES, repeat(NORMAL)), strict=False):
            draw(rows, name, color=colour, linewidth=0.7, alpha=0.8)
        for _, rows in sets["set"]:
            draw(rows, name, color=ENTROPY, linewidth=1.5)
            draw(rows, f"{name}_ln_frozen", color=ENTROPY, linewidth=1.1, linestyle=":")
        _thin_line(axes, y=0)
        _repeat_line(axes, found)
        axes.set_ylabel(f"change of {name}, nats")
    panels[-1].set_xlabel("position")
    return figure


@styled
def induction_heads(found: "Induction") -> Figure:
    """Every head's induction score, and how the loss on the repeat changes if heads attend to BOS alone."""
    figure, (left, right) = canvas(
        model_name(found.facts),
        "Induction heads",
        "right: change over the repeat if heads attend to BOS alone; red: the chosen heads, grey: random heads",
        1,
        2,
        (8.4, 3.8),
    )
    scores = found.heads.pivot(index="layer", columns="head", values="score")
    image = left.imshow(
        scores, cmap="Reds", vmin=0, vmax=max(1e-3, float(scores.to_numpy().max())), aspect="auto", origin="lower"
    )
    figure.colorbar(image, ax=left, label="induction score")
    left.set_xlabel("head")
    left.set_ylabel("layer")
    for axis, count in ((left.xaxis, scores.shape[1]), (left.yaxis, scores.shape[0])):
        axis.set_ticks(np.arange(0, count, 1 if count <= MOST_LABELLED else count // MOST_LABELLED + 1))
    for loss in found.head_sets.loc[found.head_sets["kind"] == "random", "loss"]:
        right.axvline(loss, color=NORMAL, linewidth=0.8, alpha=0.6)
    own = found.head_sets[found.head_sets["kind"] != "random"].iloc[::-1]
    y = np.arange(len(own))
    ends = [own["loss"] - own["loss_lo"], own["loss_hi"] - own["loss"]]
    right.errorbar(own["loss"], y, xerr=ends, fmt="o", color=ENTROPY, markersize=4)
    right.set_yticks(y, own["set"])
    _thin_line(right, x=0)
    right.set_xlabel("change of the loss on the repeat, nats")
    return figure


@styled
def induction_head_activations(found: "Induction") -> Figure:
    """The chosen neurons' mean activations over the repeat, before and after heads attend to BOS alone (Figure 5c)."""
    own = found.head_activations[found.head_activations["kind"] != "random"]
    largest = own["heads"].iloc[-1] if (own["kind"] == "cumulative").any() else own["heads"].iloc[0]
    figure, (axes,) = canvas(
        model_name(found.facts),
        "Neurons without induction heads",
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
    """Activations on the six tokens of natural induction both times, and clip ablation's effects the second time."""
    natural = found.natural
    assert natural is not None
    note = (
        "left: chosen neurons in colours, solid the second time, dotted the first; grey: a random set the second time\n"
        "right: clip mean-ablation, the second time; red: the chosen set, black: single neurons, grey: random sets"
    )
    figure, (left, right) = canvas(
        model_name(found.facts), f"Natural induction, {len(natural.pairs):,} windows", note, 1, 2, (9.4, 3.8)
    )
    lines = natural.activations.groupby(["kind", "neuron"], sort=False)
    for _, rows in [item for item in lines if item[0][0] == "random"]:
        left.plot(rows["offset"], rows["activation_second"], color=NORMAL, linewidth=0.6, alpha=0.7)
    chosen = [item for item in lines if item[0][0] == "chosen"]
    for ((_, name), rows), colour in zip(chosen, HUES, strict=False):  # as many as can be told apart
        left.plot(rows["offset"], rows["activation_second"], color=colour, linewidth=1.4, label=name)
        left.plot(rows["offset"], rows["activation_first"], color=colour, linewidth=1.2, linestyle=":")
    left.set_xlabel("tokens from the end of the repeated six")
    left.set_ylabel("mean activation")
    left.legend(loc="upper left", bbox_to_anchor=(1, 1))
    right.xaxis.set_major_locator(MaxNLocator(5))
    for kind, colour, size in (("random", NORMAL, 14), ("neuron", INK, 14), ("set", ENTROPY, 40)):
        rows = natural.sets[natural.sets["kind"] == kind]
        right.scatter(rows["entropy"], rows["loss"], color=colour, s=size, linewidths=0)
    _thin_line(right, x=0, y=0)
    right.set_xlabel("change of entropy, nats")
    right.set_ylabel("change of loss, nats")
    return figure


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

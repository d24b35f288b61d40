"""Pictures of what a model does when a sequence repeats, and the same in a few sentences. Each picture is a matplotlib Figure, drawn without
a display: chosen neurons in red or in hues, random controls in grey.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxconf.analysis.induction import predictions
from jaxconf.report.style import ENTROPY, HUES, INK, NORMAL, QUIET, STYLE, label_points, model_name, save_figures, say
from jaxconf.results.words import number
from jaxconf.studies.induction.natural import Natural
from jaxconf.studies.induction.study import Induction

SMOOTH = 9  # positions that noisy lines are averaged over
SMOOTHED = f"\nrunning means over {SMOOTH} positions of a copy"
MOST_LABELLED = 30  # heads or neurons along an axis that are named one by one
DOSE_FIGURES = {"ece": "ECE", "brier": "Brier score", "entropy": "entropy, nats", "loss": "loss, nats", "top1": "top-1 accuracy"}


@mpl.rc_context(STYLE)
def induction_positions(found: Induction) -> Figure:
    """Entropy, loss and the final norm's scale by position."""
    figure, panels = _canvas(
        found, "Repeated text", "by position, means over the sequences; dashed: where the repeat begins", 3, 1, (6, 5.4)
    )
    words = {"entropy": "entropy, nats", "loss": "loss, nats", "scale": "scale of the final norm"}
    for axes, (name, label) in zip(panels, words.items(), strict=True):
        axes.plot(found.positions["position"], found.positions[name], color=INK, linewidth=1.1)
        axes.set_ylabel(label)
        _repeat_line(axes, found)
    panels[-1].set_xlabel("position")
    return figure


@mpl.rc_context(STYLE)
def induction_activations(found: Induction) -> Figure:
    """Mean activation by position of the chosen neurons beside a random set (the paper's Figure 5a)."""
    figure, (axes,) = _canvas(found, "Activations", f"hues: chosen neurons; grey: a random set of the same size{SMOOTHED}", 1, 1, (7, 3.8))
    hues = iter(HUES)
    for (kind, name), rows in found.activations.groupby(["kind", "neuron"], sort=False):
        style: dict[str, Any] = {"color": NORMAL, "linewidth": 0.7, "alpha": 0.7}
        if kind == "chosen":
            colour = next(hues, None)
            style = {"color": colour or ENTROPY, "linewidth": 1.2, "alpha": 1 if colour else 0.35, "label": name if colour else None}
        axes.plot(rows["position"], _smooth(rows["activation"], found), **style)
    _repeat_line(axes, found)
    axes.set_xlabel("position")
    axes.set_ylabel("mean activation")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@mpl.rc_context(STYLE)
def induction_change(found: Induction) -> Figure:
    """How every neuron's mean activation changes from the first copy to the second, times its norm (Figure 11), against ρ."""
    figure, (axes,) = _canvas(
        found, "Change from first copy to second", "red: chosen neurons; dashed: the chance level of ρ", 1, 1, (5.4, 4)
    )
    frame = found.neurons.set_index(found.neurons["layer"].astype(str) + "." + found.neurons["neuron"].astype(str))
    own = frame["is_chosen"]
    for rows, colour, size in ((frame[~own], NORMAL, 6), (frame[own], ENTROPY, 18)):
        axes.scatter(rows["rho"], rows["weighted_change"], s=size, color=colour, linewidths=0)
    axes.axhline(0, color=QUIET, linewidth=0.6)
    axes.axvline(frame["rho_chance"].iloc[0], color=QUIET, linewidth=0.8, linestyle="--")
    axes.set_xlabel("ρ, share of w_out in the null space", parse_math=False)
    axes.set_ylabel("change of mean activation · ‖w_out‖", parse_math=False)
    label_points(figure, axes, frame["rho"], frame["weighted_change"], list(frame.index[own]), ENTROPY)
    return figure


@mpl.rc_context(STYLE)
def induction_ablations(found: Induction) -> Figure:
    """What clip mean-ablation of the chosen set changes by position, beside random sets (Figure 5b)."""
    note = "red: the chosen set, dotted with the norm frozen; grey: random sets of the same size; hues: single neurons" + SMOOTHED
    figure, panels = _canvas(found, "Clip mean-ablation", note, 2, 1, (7, 5))
    for axes, name in zip(panels, ("entropy", "loss"), strict=True):
        hues = iter(HUES)
        for (kind, _), rows in sorted(found.ablations.groupby(["kind", "set"], sort=False), key=lambda x: "rns".index(x[0][0][0])):
            style: dict[str, Any] = {
                "random": {"color": NORMAL, "linewidth": 0.6, "alpha": 0.5},
                "neuron": {"color": next(hues, NORMAL) if kind == "neuron" else NORMAL, "linewidth": 0.7, "alpha": 0.8},
                "set": {"color": ENTROPY, "linewidth": 1.5},
            }[kind]
            axes.plot(rows["position"], _smooth(rows[name], found), **style)
            if kind == "set":
                axes.plot(rows["position"], _smooth(rows[f"{name}_ln_frozen"], found), color=ENTROPY, linewidth=1.1, linestyle=":")
        axes.axhline(0, color=QUIET, linewidth=0.6)
        _repeat_line(axes, found)
        axes.set_ylabel(f"change of {name}, nats")
    panels[-1].set_xlabel("position")
    return figure


@mpl.rc_context(STYLE)
def induction_heads(found: Induction) -> Figure:
    """Every head's induction score, and what the loss on the repeat becomes where heads look at BOS alone."""
    figure, (left, right) = _canvas(
        found, "Induction heads", "right: change over the repeat; red: ablated heads, grey: random heads", 1, 2, (8.4, 3.8)
    )
    scores = found.heads.pivot(index="layer", columns="head", values="score")
    image = left.imshow(scores, cmap="Reds", vmin=0, vmax=max(1e-3, float(scores.to_numpy().max())), aspect="auto", origin="lower")
    figure.colorbar(image, ax=left, label="induction score")
    left.set_xlabel("head")
    left.set_ylabel("layer")
    for axis, count in ((left.xaxis, scores.shape[1]), (left.yaxis, scores.shape[0])):
        axis.set_ticks(np.arange(0, count, max(1, count // MOST_LABELLED + 1)) if count > MOST_LABELLED else np.arange(count))
    controls = found.head_sets[found.head_sets["kind"] == "random"]
    for _, row in controls.iterrows():
        right.axvline(row["loss"], color=NORMAL, linewidth=0.8, alpha=0.6)
    own = found.head_sets[found.head_sets["kind"] != "random"].iloc[::-1]
    y = np.arange(len(own))
    right.errorbar(own["loss"], y, xerr=[own["loss"] - own["loss_lo"], own["loss_hi"] - own["loss"]], fmt="o", color=ENTROPY, markersize=4)
    right.set_yticks(y, own["set"])
    right.axvline(0, color=QUIET, linewidth=0.6)
    right.set_xlabel("change of the loss on the repeat, nats")
    return figure


@mpl.rc_context(STYLE)
def induction_head_activations(found: Induction) -> Figure:
    """Mean activation of the chosen neurons over the repeat, before and after heads look at BOS alone (Figure 5c)."""
    own = found.head_activations[found.head_activations["kind"] != "random"]
    largest = own["heads"].iloc[-1] if (own["kind"] == "cumulative").any() else own["heads"].iloc[0]
    figure, (axes,) = _canvas(
        found,
        "Neurons without induction heads",
        f"red: heads {largest} look at BOS; grey: random heads do; black: as it is",
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


@mpl.rc_context(STYLE)
def induction_doses(found: Induction) -> Figure:
    """Calibration, entropy, loss and accuracy where the activations of the chosen set are multiplied, beside random sets."""
    note = "the activations of a set are multiplied; red: the chosen set; grey: random sets; above: text, below: on the repeat"
    figure, panels = _canvas(found, "Dose and response", note, 2, len(DOSE_FIGURES), (12, 4.8))
    for row, data in enumerate(("text", "repeat")):
        for column, (name, label) in enumerate(DOSE_FIGURES.items()):
            axes = panels[row * len(DOSE_FIGURES) + column]
            _dose_lines(axes, found, data, name)
            axes.set_ylabel(label)
            if row:
                axes.set_xlabel("factor on the activations")
    return figure


@mpl.rc_context(STYLE)
def induction_temperature(found: Induction) -> Figure:
    """The temperature that mimics each dose best, and how much of the change of the log-probabilities it explains."""
    note = "left: the temperature that mimics a dose best; right: the share of the change of log-probabilities that it explains\nred: the chosen set; grey: random sets; solid: text, dashed: on the repeat"
    figure, (left, right) = _canvas(found, "Temperature knob", note, 1, 2, (8.4, 3.8))
    for data, line in (("text", "-"), ("repeat", "--")):
        _dose_lines(left, found, data, "temperature", line)
        _dose_lines(right, found, data, "explained", line)
    left.axhline(1, color=QUIET, linewidth=0.6)
    left.set_ylabel("temperature")
    right.set_ylabel("share explained")
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.set_xlabel("factor on the activations")
    return figure


@mpl.rc_context(STYLE)
def induction_natural(found: Induction) -> Figure:
    """Activations along six tokens that text repeats by itself, the first time and the second, and what ablation changes there."""
    natural = found.natural
    assert natural is not None
    note = "left: chosen neurons in hues, solid the second time, dotted the first; grey: a random set the second time\n"
    note += "right: clip mean-ablation at the second place; red: the chosen set, black: single neurons, grey: random sets"
    figure, (left, right) = _canvas(found, f"Natural induction, {len(natural.pairs):,} windows", note, 1, 2, (9.4, 3.8))
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
    right.axhline(0, color=QUIET, linewidth=0.6)
    right.axvline(0, color=QUIET, linewidth=0.6)
    right.set_xlabel("change of entropy, nats")
    right.set_ylabel("change of loss, nats")
    return figure


DRAWN: dict[str, Callable[[Induction], Figure]] = {
    draw.__name__: draw
    for draw in (
        induction_positions,
        induction_activations,
        induction_change,
        induction_ablations,
        induction_heads,
        induction_head_activations,
        induction_doses,
        induction_temperature,
    )
}


def save_induction_figures(found: Induction, folder: Path) -> list[Path]:
    return save_figures(DRAWN | ({"induction_natural": induction_natural} if found.natural else {}), found, folder)


def sentences(found: Induction) -> list[str]:
    """What the numbers show, with the random sets as the measure of what is worth saying."""
    places, sets, chosen = found.positions, found.sets, found.facts["chosen"]
    first, second = predictions(found.facts["length"])
    means = places[first | second].groupby("copy")[["entropy", "loss"]].mean()
    said = [
        f"From the first copy to the second the loss goes from {number(means['loss'][1])} to {number(means['loss'][2])} nats, the entropy from "
        f"{number(means['entropy'][1])} to {number(means['entropy'][2])}."
    ]
    own, controls = sets[sets["kind"] == "set"].iloc[0], sets[sets["kind"] == "random"]
    what = f"the {len(chosen)} chosen neurons, {', '.join(chosen)} (chosen by {found.facts['chosen_by']})"
    said.append(
        f"Clipping {what} changes the entropy on the repeat by {number(own['entropy'])} nats ({number(own['entropy_lo'])} to "
        f"{number(own['entropy_hi'])}), with the norm frozen by {number(own['entropy_ln_frozen'])}, and the loss by {number(own['loss'])}"
        + _beside(controls["entropy"], own["entropy"], "on entropy")
    )
    heads, random = found.head_sets[found.head_sets["kind"] != "random"], found.head_sets[found.head_sets["kind"] == "random"]
    last, best = heads.iloc[-1], found.heads.loc[found.heads["score"].idxmax()]
    said.append(
        f"The highest induction score is {number(best['score'])}, of head {int(best['layer'])}.{int(best['head'])}. Where {last['members']} look at BOS "
        f"alone, the loss on the repeat changes by {number(last['loss'])} nats" + _beside(random["loss"], last["loss"], "on the loss")
    )
    doses = found.doses[(found.doses["data"] == "text") & (found.doses["factor"] == found.doses["factor"].max())]
    own, controls = doses[doses["kind"] == "set"].iloc[0], doses[doses["kind"] == "random"]
    said.append(
        f"Their activations times {own['factor']:g} are best mimicked on text by the temperature {own['temperature']:.3f}, which explains "
        f"{own['explained']:.1%} of the change of the log-probabilities" + _beside(controls["explained"], own["explained"], "by that share")
    )
    if found.natural:
        said.append(_natural_sentence(found.natural))
    return said


def _natural_sentence(natural: Natural) -> str:
    pairs = natural.pairs
    return (
        f"In {len(pairs):,} windows six tokens occur exactly twice; the token that followed the first time follows again in "
        f"{pairs['repeats'].mean():.0%}, the model expects it in {pairs['induced'].mean():.0%}, and is right in {pairs['correct'].mean():.0%}; from the "
        f"first place to the second the entropy goes from {number(pairs['entropy_first'].mean())} to {number(pairs['entropy_second'].mean())} nats."
    )


def _beside(controls: pd.Series, own: float, what: str) -> str:
    if not len(controls):
        return "."
    beyond = int((controls.abs() >= abs(own)).sum())
    return f"; {beyond} of {len(controls)} random sets have as large an effect {what}."


def _canvas(found: Induction, subject: str, note: str, rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=rows > 1 and columns == 1)
    # Mathtext off: a model's name may hold a dollar sign.
    figure.suptitle(f"{subject}: {model_name(found.facts)}\n{note}", fontsize=9, x=0.02, ha="left", parse_math=False)
    return figure, list(panels.ravel())


def _smooth(values: pd.Series, found: Induction) -> pd.Series:
    """A running mean over the positions of each copy, which does not run across the place where the repeat begins."""
    copies = found.positions["copy"].to_numpy()
    smooth = values.groupby(copies).rolling(SMOOTH, min_periods=1, center=True).mean()
    return smooth.droplevel(0)


def _repeat_line(axes: Axes, found: Induction) -> None:
    axes.axvline(found.facts["length"] + 1, color=QUIET, linewidth=0.8, linestyle="--")


def _dose_lines(axes: Axes, found: Induction, data: str, name: str, line: str = "-") -> None:
    doses = found.doses[found.doses["data"] == data]
    factors = sorted(doses["factor"].unique())
    styles: dict[str, dict[str, Any]] = {
        "random": {"color": NORMAL, "linewidth": 0.6, "alpha": 0.6},
        "set": {"color": ENTROPY, "linewidth": 1.4},
    }
    for kind, style in styles.items():
        for _, rows in doses[doses["kind"] == kind].groupby("set"):
            known = rows[np.isfinite(rows[name])]
            axes.plot([factors.index(x) for x in known["factor"]], known[name], marker="o", markersize=2, linestyle=line, **style)
    axes.set_xticks(range(len(factors)), [f"{factor:g}" for factor in factors])
    if not np.isfinite(doses[name]).any():
        say(axes, "nothing changed")

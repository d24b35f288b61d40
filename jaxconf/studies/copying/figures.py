"""Pictures of what a model says when context and memory disagree, in the paper's layout, and the same in a few sentences. Each picture is a
matplotlib Figure, drawn without a display: the chosen set in red, random sets in grey.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.analysis.transitions import CLASSES
from jaxconf.report.style import ENTROPY, HUES, INK, NORMAL, QUIET, STYLE, model_name, save_figures, say
from jaxconf.results.words import number
from jaxconf.studies.copying.study import Copying

RED_GREY = "red: the chosen set; grey: random sets of as many neurons"
OF_CLASS = dict(zip(CLASSES, HUES, strict=False))
BINS = 25
FEW, MANY = 0.05, 0.9  # shares of the prompts that a sentence is said of


@mpl.rc_context(STYLE)
def copying_transitions(found: Copying) -> Figure:
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
            table = rows.groupby(["before", "after"])["count"].mean().unstack().loc[list(CLASSES), list(CLASSES)].to_numpy()
            axes.imshow(table / np.maximum(table.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1.4)
            for i, j in np.ndindex(table.shape):
                axes.text(j, i, f"{table[i, j]:.0f}" if kind == "set" else f"{table[i, j]:.1f}", ha="center", va="center", fontsize=8)
            axes.set_xticks(range(3), CLASSES)
            axes.set_yticks(range(3), CLASSES)
            if not row:
                axes.set_title(ablation, fontsize=9)
            if not column:
                axes.set_ylabel("before: " + ("the chosen set" if kind == "set" else "random sets, mean"))
    return figure


@mpl.rc_context(STYLE)
def copying_conversions(found: Copying) -> Figure:
    """The conversion ratios of each class, for every value that activations are set to."""
    figure, panels = _canvas(found, "Conversion ratios", f"share of the prompts of a class that leave it; {RED_GREY}", 1, 3, (10, 3.6))
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
def copying_scores(found: Copying) -> Figure:
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
def copying_entropy(found: Copying) -> Figure:
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
def copying_log_ratios(found: Copying) -> Figure:
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


DRAWN: dict[str, Callable[[Copying], Figure]] = {
    draw.__name__: draw for draw in (copying_transitions, copying_conversions, copying_scores, copying_entropy, copying_log_ratios)
}


def save_copying_figures(found: Copying, folder: Path) -> list[Path]:
    return save_figures(DRAWN, found, folder)


def sentences(found: Copying) -> list[str]:
    """What the numbers show, and what they do not."""
    facts, prompts = found.facts, found.prompts
    counts = prompts["class"].value_counts().reindex(CLASSES, fill_value=0)
    shares = counts / len(prompts)
    said = [
        f"Of {facts['statements_asked']:,} statements that were asked {facts['statements']:,} can be contradicted, and of these the model knows "
        f"{found.statements['knows'].sum():,}. In {len(prompts):,} prompts whose context contradicts its own object it says the context's in "
        f"{shares['CK']:.1%} (CK), its own in {shares['PK']:.1%} (PK), and something else in {shares['ND']:.1%} (ND)."
    ]
    if shares["ND"] > 0.5:
        said.append(
            f"{'Almost all' if shares['ND'] > MANY else 'Most'} answers are neither the context's object nor the model's own: only "
            f"{_prompts(counts['CK'] + counts['PK'])} can tell which of the two it repeats."
        )
    rare = [
        f"{what} in only {_prompts(counts[name])}" for name, what in (("CK", "its context"), ("PK", "its memory")) if shares[name] < FEW
    ]
    if rare:
        said.append(f"The model repeats {' and '.join(rare)}, so these statements say next to nothing about when it copies.")
    own, chosen = _row(found, "mean", "transition_score"), facts["chosen"]
    said.append(
        f"Setting the {len(chosen)} chosen neurons, {', '.join(chosen)} (chosen by {facts['chosen_by']}), to their means changes the class of "
        f"{own['value']:.1%} of the prompts (the global transition score)" + _among(found, own, "{:.1%}".format)
    )
    moved = found.transitions[(found.transitions["ablation"] == "mean") & (found.transitions["kind"] == "set")].set_index(
        ["before", "after"]
    )["count"]
    ratios = [f"{found.sets[f'conversion_{name}'].iloc[0]:.1%} of {name}" for name in CLASSES if counts[name]]
    said.append(
        f"Of the classes, {', '.join(ratios)} {'become' if len(ratios) > 1 else 'becomes'} another; from memory to context go "
        f"{_prompts(moved['PK', 'CK'])}, from context to memory {moved['CK', 'PK']:,}; the entropy of the first new token changes by "
        f"{number(_row(found, 'mean', 'entropy_change')['value'])} nats" + _among(found, _row(found, "mean", "entropy_change"))
    )
    others = found.quantiles[(found.quantiles["measure"] == "transition_score") & (found.quantiles["ablation"] != "mean")]
    said.append(
        "With other values the score is "
        + ", ".join(f"{row['value']:.1%} ({row['ablation']}{_quantile(row)})" for row in others.to_dict("records"))
        + "."
    )
    said.append(
        "A score above the random sets' says that these neurons matter more than others of their layer for which answer is given; that they hold copying "
        "back would show in more prompts going from memory to context than the other way, and in the random sets not doing the same. Random sets have as "
        f"many neurons, not as large ones: the mean ‖w_out‖ of the chosen is {number(facts['w_norm'])}, of the layer {number(facts['w_norm_layer'])}."
    )
    return said


def _prompts(count: int) -> str:
    return f"{count:,} prompt{'' if count == 1 else 's'}"


def _row(found: Copying, ablation: str, measure: str) -> dict[str, Any]:
    return found.quantiles[(found.quantiles["ablation"] == ablation) & (found.quantiles["measure"] == measure)].iloc[0].to_dict()


def _among(found: Copying, row: dict[str, Any], written: Callable[[float], str] = number) -> str:
    if not found.facts["controls"]:
        return "."
    return (
        f", where random sets do by {written(row['random_mean'])} on average: the quantile {number(row['quantile'])} of {found.facts['controls']} "
        f"({number(row['quantile_lo'])} to {number(row['quantile_hi'])})."
    )


def _quantile(row: dict[str, Any]) -> str:
    return f", quantile {number(row['quantile'])}" if np.isfinite(row["quantile"]) else ""


def _canvas(found: Copying, subject: str, note: str, rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    # Mathtext off: a model's name may hold a dollar sign.
    figure.suptitle(f"{subject}: {model_name(found.facts)}\n{note}", fontsize=9, x=0.02, ha="left", parse_math=False)
    return figure, list(panels.ravel())


def _styles() -> tuple[tuple[str, dict[str, Any]], ...]:
    return (("random", {"s": 10, "color": NORMAL, "alpha": 0.5, "linewidths": 0}), ("set", {"s": 26, "color": ENTROPY, "linewidths": 0}))


def _strips(axes: Axes, found: Copying, measure: str) -> None:
    """A column of points for every ablation value."""
    ablations = list(found.sets["ablation"].unique())
    rng = np.random.default_rng(0)
    for kind, style in _styles():
        rows = found.sets[found.sets["kind"] == kind]
        beside = rng.uniform(-0.25, 0.25, len(rows)) if kind == "random" else 0
        axes.scatter(rows["ablation"].map(ablations.index).astype(float) + beside, rows[measure], **style)
    axes.set_xticks(range(len(ablations)), ablations, rotation=30, ha="right")

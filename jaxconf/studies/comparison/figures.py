"""Figures of how further training changed a model's neurons, in Du et al.'s layout.

The base model's candidates are red.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.report.style import (
    ENTROPY,
    HUES,
    INK,
    NORMAL,
    QUIET,
    canvas,
    floor_of,
    grid_of,
    guide,
    label_points,
    log_axes,
    on_log_axis,
    say,
    styled,
)
from jaxconf.studies.comparison.models import name_of
from jaxconf.studies.comparison.sentences import MEASURES

if TYPE_CHECKING:
    from jaxconf.studies.comparison.study import Comparison

COLUMNS = 3  # panels in a row
IN_NATS = ("loss", "entropy")
LABELS = {
    "ratio": "‖w_out‖ / log LogitVar",
    "rho": "ρ",
    "ln_mediated": "ln_mediated",
    "entropy_delta": "mean change of entropy, nats",
}


@styled
def comparison_norm_logitvar(found: "Comparison") -> Figure:
    """Norm against LogitVar of each model's neurons, with the candidates of both."""
    models = [found.facts["base"], *found.facts["tuned"]]
    note = (
        "red: candidates of the base model, and the neurons that they are matched with\nringed: the model's own "
        f"candidates; dashed: the top {found.facts['share']:.0%} by norm begin here"
    )
    figure, panels = _panels(found, "Norm and LogitVar", note, len(models), share=True)
    labels = []
    for model, axes in zip(models, panels, strict=True):
        rows = found.neurons[found.neurons["model"] == model]
        rows = rows.set_axis([f"{layer}.{neuron}" for layer, neuron in zip(rows["layer"], rows["neuron"], strict=True)])
        own = rows["is_candidate"]
        of_base = own if model == models[0] else rows["neuron"].isin(_matched(found, model))
        x, y = rows["w_norm"], on_log_axis(rows["logit_var"])
        axes.scatter(x[~of_base], y[~of_base], s=6, color=NORMAL, alpha=0.6, linewidths=0)
        axes.scatter(x[of_base], y[of_base], s=16, color=ENTROPY, linewidths=0)
        axes.scatter(x[own], y[own], s=44, facecolor="none", edgecolor=INK, linewidths=0.9)
        guide(axes, x=x.quantile(1 - found.facts["share"]), width=0.8)
        log_axes(axes, y=found.neurons["logit_var"])
        _title(axes, name_of(found, model))
        axes.set_xlabel("‖w_out‖", parse_math=False)
        axes.set_ylabel("LogitVar")
        labels.append((axes, x, y, list(rows.index[own])))
    for axes, x, y, names in labels:  # only now, because every panel changes the limits that all share
        label_points(figure, axes, x, y, names, INK)
    return figure


@styled
def comparison_overlap(found: "Comparison") -> Figure:
    """IoU of the candidates over the grid of thresholds, with what chance gives."""
    shares = sorted(found.overlaps["share"].unique())
    cases = [(tuned, share) for tuned in found.facts["tuned"] for share in shares]
    note = (
        "solid: neurons matched by index, dotted: by cosine\nshaded: 95% range by chance, with permuted neurons (grey) "
        "or with random candidates among large norms (red)"
    )
    figure, panels = _panels(found, "Overlap of the candidates", note, len(cases), len(shares), share=True)
    for axes, (tuned, share) in zip(panels, cases, strict=True):
        rows = found.overlaps[(found.overlaps["model"] == tuned) & (found.overlaps["share"] == share)]
        by_index, by_cosine = (rows[rows["by"] == by].reset_index(drop=True) for by in ("index", "cosine"))
        x = np.arange(len(by_index))
        for name, colour in (("chance", NORMAL), ("norm_chance", ENTROPY)):
            low, high = by_index[f"{name}_lo"], by_index[f"{name}_hi"]
            axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
            axes.plot(x, by_index[name], color=colour, linewidth=0.9, linestyle="--")
        axes.plot(x, by_index["iou"], color=INK, marker="o", markersize=4, linewidth=1.2)
        axes.plot(x, by_cosine["iou"], color=HUES[0], marker="s", markersize=3, linewidth=1.2, linestyle=":")
        axes.set_xticks(x, [str(n) for n in by_index["lowest"]])
        axes.set_ylim(-0.03, 1.05)
        _title(axes, f"{name_of(found, tuned, 22)}, top {share:.0%} by norm")
        axes.set_xlabel("lowest LogitVar")
        axes.set_ylabel("IoU")
    return figure


@styled
def comparison_changes(found: "Comparison") -> Figure:
    """Ratio, ρ, mediated share and effect of each base neuron against those of the neuron that it is matched with."""
    pairs = {tuned: found.pairs(tuned) for tuned in found.facts["tuned"]}
    names = [name for name in LABELS if any(frame[f"{name}_tuned"].notna().any() for frame in pairs.values())]
    cases = [(tuned, name) for tuned in pairs for name in names]
    note = (
        "each point is a pair of neurons matched by cosine\nred: candidates of the base model; points on the line have "
        "not changed"
    )
    figure, panels = _panels(found, "Before and after", note, len(cases), 2)
    for axes, (tuned, name) in zip(panels, cases, strict=True):
        frame, label = pairs[tuned], LABELS[name]
        both = frame[[f"{name}_base", f"{name}_tuned"]].astype(float)
        known, of_base = both.notna().all(axis=1), frame["is_candidate_base"]
        if name == "ln_mediated" and known.any():
            floor = floor_of(both.stack())
            label += f" (lower ones at {floor:g})" if (both < floor).any(axis=None) else ""
            both = both.clip(lower=floor)
        for own, colour, size in ((~of_base, NORMAL, 6), (of_base, ENTROPY, 18)):
            x, y = both[own & known].to_numpy().T
            axes.scatter(x, y, s=size, color=colour, alpha=0.7, linewidths=0)
        if known.any():
            ends = [both[known].min(axis=None), both[known].max(axis=None)]
            axes.plot(ends, ends, color=QUIET, linewidth=0.7)
        else:
            say(axes, "only the weights were compared")
        _title(axes, name_of(found, tuned))
        axes.set_xlabel(f"{label}, base", parse_math=False)
        axes.set_ylabel(f"{label}, tuned", parse_math=False)
    return figure


@styled
def comparison_matching(found: "Comparison") -> Figure:
    """The distribution of the cosines between the write directions of matched neurons."""
    note = (
        "curves: share of the neurons with at most this cosine\ndashed: 99% quantile of the largest cosine among as "
        "many random directions"
    )
    curves = (("cosine", HUES[0], "-", "matched one to one"), ("cosine_index", INK, ":", "of the same index"))
    figure, panels = _panels(found, "Write directions", note, len(found.facts["tuned"]), share=True)
    for tuned, axes in zip(found.facts["tuned"], panels, strict=True):
        rows = found.neurons[found.neurons["model"] == tuned]
        for column, colour, line, label in curves:
            axes.ecdf(rows[column], color=colour, linestyle=line, linewidth=1.3, label=label)
        guide(axes, x=found.facts["chance_cosine"], width=0.8)
        _title(axes, name_of(found, tuned))
        axes.set_xlabel("cosine of the write directions")
        axes.set_ylabel("share of the neurons")
        axes.set_ylim(-0.03, 1.03)
        axes.legend(loc="upper left")
    return figure


@styled
def comparison_calibration(found: "Comparison") -> Figure:
    """Loss, entropy and calibration of each model on the same positions, and its accuracy by confidence."""
    note = (
        f"on the same {found.facts['positions']:,} positions; bars: 95% intervals over {found.facts['resampled']}; "
        "last panel: accuracy by confidence"
    )
    figure, (*panels, last) = _panels(found, "Calibration", note, len(MEASURES) + 1)
    models = list(dict.fromkeys(found.calibration["model"]))
    colours = [INK, *(HUES[i % len(HUES)] for i in range(len(models) - 1))]
    for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
        rows = found.calibration[found.calibration["measure"] == measure]
        for place, (row, colour) in enumerate(zip(rows.to_dict("records"), colours, strict=True)):
            low, value, high = row["value_lo"], row["value"], row["value_hi"]
            span = np.nan_to_num([[max(0.0, value - low)], [max(0.0, high - value)]])
            axes.errorbar([place], [value], yerr=span, fmt="o", color=colour, markersize=4, capsize=3)
        axes.set_xticks(
            range(len(models)), [name_of(found, model, 14) for model in models], fontsize=8, parse_math=False
        )
        axes.set_xlim(-0.6, len(models) - 0.4)
        axes.set_ylabel(f"{label}, nats" if measure in IN_NATS else label)
    last.plot([0, 1], [0, 1], color=QUIET, linewidth=0.7)
    for model, colour in zip(models, colours, strict=True):
        rows = found.reliability[found.reliability["model"] == model]
        style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 2.5, "linewidth": 1}
        last.plot(rows["confidence"], rows["accuracy"], label=name_of(found, model, 22), **style)
    last.set_xlabel("confidence")
    last.set_ylabel("accuracy")
    for text in last.legend(loc="upper left").get_texts():
        text.set_parse_math(False)
    return figure


FIGURES: dict[str, Callable[["Comparison"], Figure]] = {
    draw.__name__: draw
    for draw in (comparison_norm_logitvar, comparison_overlap, comparison_changes, comparison_matching)
}


def figures_of(found: "Comparison") -> dict[str, Callable[["Comparison"], Figure]]:
    """FIGURES, and the figure of calibration if calibration was measured."""
    return FIGURES | ({"comparison_calibration": comparison_calibration} if len(found.calibration) else {})


def _panels(
    found: "Comparison", subject: str, note: str, count: int, most: int = COLUMNS, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, at most `most` in a row; with `share` they have the same limits."""
    rows, columns = grid_of(count, most)
    size = 1 + 3.3 * max(columns, 2), 0.9 + 3 * rows
    base = name_of(found, found.facts["base"])
    return canvas(base, subject, note, rows, columns, size, count=count, sharex=share, sharey=share)


def _title(axes: Axes, text: str) -> None:
    # Mathtext is off, because a model's name may hold a dollar sign.
    axes.set_title(text, fontsize=9, loc="left", parse_math=False)


def _matched(found: "Comparison", tuned: str) -> pd.Series:
    """The tuned model's neurons that the base model's candidates are matched with."""
    pairs = found.pairs(tuned)
    return pairs.loc[pairs["is_candidate_base"], "neuron_tuned"]

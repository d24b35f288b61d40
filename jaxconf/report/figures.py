"""The paper's pictures of one analysis, drawn with matplotlib: one function per picture, numbered as in the paper.

Each takes a NeuronTable and gives a matplotlib Figure; figures that have nothing to show say so. No display is needed.
"""

from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from jaxconf.models.files import replacing
from jaxconf.results.neuron_table import Kind, NeuronTable, number

NORMAL, ENTROPY, FREQUENCY = "#8fa3bf", "#d1343f", "#2a9d5c"
INK, QUIET = "#222b38", "#657083"
COLOUR: dict[Kind, str] = {"entropy": ENTROPY, "frequency": FREQUENCY}
MARKER: dict[Kind, str] = {"entropy": "o", "frequency": "D"}
FROZEN: dict[Kind, tuple[str, str]] = {
    "entropy": ("loss_abs_delta_ln_frozen", "norm frozen"),
    "frequency": ("loss_abs_delta_freq_frozen", "frequency frozen"),
}
# For lines that stand for neurons: told apart on light and dark ground, and neither the red nor the green that carry meaning.
HUES = ("#4f83e0", "#e08a2e", "#a866d4", "#1fa6b0", "#8c8f2c", "#d265a6")
KL = r"$D_\mathrm{KL}(P_\mathrm{freq}\,\|\,P_\mathrm{model})$"

STYLE: Any = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@mpl.rc_context(STYLE)
def figure_1(table: NeuronTable) -> Figure:
    """Entropy and prediction: how far ablating a neuron moves the entropy, against how often it changes the top token."""
    frame = table.to_pandas()
    least = table.rules.min_ln_mediated
    high = frame["ln_mediated"] >= least
    figure, axes = _canvas(
        table,
        "Entropy and prediction",
        f"red: {high.sum():,} with ln_mediated ≥ {least:g}" if high.any() else f"no neuron has ln_mediated ≥ {least:g}",
    )
    x, y = on_log_axis(frame["top1_change"]), on_log_axis(frame["entropy_abs_delta"])
    _dots(axes, x[~high], y[~high])
    _dots(axes, x[high], y[high], "entropy")
    log_axes(axes, x=frame["top1_change"], y=frame["entropy_abs_delta"])
    axes.set_xlabel("share of positions whose top token changes" + _edge(frame["top1_change"], "left"))
    axes.set_ylabel("mean |change of entropy|, nats" + _edge(frame["entropy_abs_delta"], "lower"))
    _say_if_empty(axes, x, y)
    label_points(figure, axes, x, y, [name for name in table.members("entropy").index if high[name]], ENTROPY)
    return figure


@mpl.rc_context(STYLE)
def figure_2a(table: NeuronTable) -> Figure:
    """Norm of the output weights against the variance of what they write to the logits, with marginal histograms."""
    frame = table.to_pandas()
    chosen, note = shown(table, "entropy")
    figure = Figure(figsize=(5, 4), layout="constrained")
    panels = figure.subplot_mosaic([["top", "."], ["main", "right"]], width_ratios=(5, 1), height_ratios=(1, 4))
    axes, top, right = panels["main"], panels["top"], panels["right"]
    top.sharex(axes)
    right.sharey(axes)
    _titles(figure, table, "Norm and LogitVar", note)
    x, y = frame["w_norm"], on_log_axis(frame["logit_var"])
    _dots(axes, x, y)
    _dots(axes, x[chosen], y[chosen], "entropy", hollow=not frame["is_entropy_neuron"].any())
    log_axes(axes, y=frame["logit_var"])
    axes.set_xlabel("‖w_out‖", parse_math=False)
    axes.set_ylabel("LogitVar" + _edge(frame["logit_var"], "lower"))
    if x.nunique() > 1:
        top.hist(x.dropna(), bins=50, color=NORMAL)
    if y.nunique() > 1:
        right.hist(y.dropna(), bins=np.geomspace(y.min(), y.max(), 51).tolist(), color=NORMAL, orientation="horizontal")
    for panel in (top, right):
        panel.axis("off")
    _say_if_empty(axes, x, y)
    label_points(figure, axes, x, y, chosen, ENTROPY)
    return figure


@mpl.rc_context(STYLE)
def figure_2c(table: NeuronTable) -> Figure:
    """Total effect on the loss beside the effect with the final norm frozen: entropy neurons against others."""
    return _frozen_boxes(table, "entropy")


@mpl.rc_context(STYLE)
def figure_2d(table: NeuronTable) -> Figure:
    """Singular values of the folded unembedding, and how chosen neurons' output weights lie along its singular vectors."""
    k = int(table.facts.get("k", 0))
    values, count = table.singular_values, len(table.singular_values)
    figure = Figure(figsize=(5, 4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    shaded = f"shaded: the effective null space, the {k:,} smallest of {count:,} singular values"
    note = shaded if count else "no singular values were kept"
    _titles(figure, table, "Unembedding", note)
    # Counted from the smallest on a log axis, or the null space would be a sliver: the k of interest are about 1% of all.
    ranks = np.arange(count, 0, -1)
    positive = values > 0
    upper.plot(ranks[positive], values[positive], color=INK, linewidth=1.2)
    log_axes(upper, y=pd.Series(values))
    upper.set_ylabel("singular value")
    for name, cosines, colour in zip(table.cosine_neurons, np.abs(table.cosines), cycle(HUES), strict=False):
        lower.plot(ranks, cosines, color=colour, linewidth=0.9, label=name)
    if table.cosine_neurons:
        lower.legend(loc="upper left", ncols=2)
    else:
        say(lower, "no neuron was chosen")
    lower.set_ylabel("|cosine| with w_out", parse_math=False)
    lower.set_xlabel("singular vectors, counted from the smallest value")
    lower.set_ylim(0, min(1.0, 1.35 * lower.get_ylim()[1]))
    if count:
        lower.set_xscale("log")
        lower.set_xlim(count + 0.5, 0.8)
        lower.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:g}"))
        for axes in (upper, lower):
            axes.axvspan(0.8, k + 0.5, color=ENTROPY, alpha=0.12, linewidth=0)
    return figure


@mpl.rc_context(STYLE)
def figure_2e(table: NeuronTable) -> Figure:
    """Share of the weights in the null space against the share of the effect that passes through the norm's scale."""
    frame = table.to_pandas()
    chosen, note = shown(table, "entropy", mark="ringed")
    figure, axes = _canvas(table, "Null space", note)
    x, y = frame["rho"], frame["ln_mediated"].clip(lower=floor_of(frame["ln_mediated"]))
    size = frame["entropy_abs_delta"]
    order = size.fillna(-1).argsort().to_numpy()
    positive = size[size > 0]
    norm = LogNorm(positive.min(), positive.max()) if positive.nunique() > 1 else None
    colours = axes.scatter(
        x.iloc[order], y.iloc[order], s=9, c=on_log_axis(size).iloc[order], cmap="viridis", norm=norm, linewidth=0, alpha=0.85
    )
    axes.scatter(x[chosen], y[chosen], s=42, facecolor="none", edgecolor=ENTROPY, linewidth=1.3)
    for chance in frame["rho_chance"].dropna().unique():
        axes.axvline(chance, color=QUIET, linestyle="--", linewidth=0.9)
        axes.text(chance, 0.02, " chance", transform=axes.get_xaxis_transform(), color=QUIET, fontsize=7.5, rotation=90, ha="right")
    _threshold(axes, "y", table.rules.min_ln_mediated)
    axes.set_xlabel("ρ, share of w_out in the null space", parse_math=False)
    axes.set_ylabel("ln_mediated" + _floored(frame["ln_mediated"]), parse_math=False)
    if norm is not None:
        figure.colorbar(colours, ax=axes, label="mean |change of entropy|, nats", aspect=30, pad=0.02)
    _say_if_empty(axes, x, y)
    label_points(figure, axes, x, y, chosen, ENTROPY)
    return figure


@mpl.rc_context(STYLE)
def figure_3a(table: NeuronTable) -> Figure:
    """Per position, the output's entropy against its divergence from the token frequencies."""
    positions = table.positions[["entropy", "kl_freq"]].astype(float).dropna()
    note = f"{len(positions):,} position{'s' * (len(positions) != 1)}, correlation {number(table.correlation())}"
    figure, axes = _canvas(table, "Entropy and frequency", note)
    if len(positions):
        bins = axes.hexbin(positions["entropy"], positions["kl_freq"], gridsize=45, mincnt=1, bins="log", cmap="viridis", linewidths=0)
        if len(np.unique(np.asarray(bins.get_array()))) > 1:
            figure.colorbar(bins, ax=axes, label="positions", aspect=30, pad=0.02)
    else:
        say(axes, "no positions were kept")
    axes.set_xlabel("entropy, nats")
    axes.set_ylabel(f"{KL}, nats")
    return figure


@mpl.rc_context(STYLE)
def figure_3b(table: NeuronTable) -> Figure:
    """How far ablation moves the output from the token frequencies, against the share of its effect that passes along them."""
    frame = table.to_pandas()
    chosen, note = shown(table, "frequency")
    entropy = list(table.members("entropy").index)
    figure, axes = _canvas(table, "Token frequency", note + f"; red: {count_of(len(entropy), 'entropy')}" * bool(entropy))
    kl = frame["kl_freq_abs_delta"]
    x, y = on_log_axis(kl), frame["freq_mediated"].clip(lower=floor_of(frame["freq_mediated"]))
    _dots(axes, x, y)
    _dots(axes, x[chosen], y[chosen], "frequency", hollow=not frame["is_frequency_neuron"].any())
    _dots(axes, x[entropy], y[entropy], "entropy")
    log_axes(axes, x=kl)
    _threshold(axes, "y", table.rules.min_freq_mediated)
    for _, layer in kl.groupby(frame["layer"]):
        if (cut := layer.quantile(1 - table.rules.kl_top)) > 0:
            axes.axvline(cut, color=QUIET, linestyle="--", linewidth=0.9)
    axes.set_xlabel(f"mean |change of {KL}|, nats" + _edge(kl, "left"))
    axes.set_ylabel("freq_mediated" + _floored(frame["freq_mediated"]), parse_math=False)
    _say_if_empty(axes, x, y)
    label_points(figure, axes, x, y, chosen, FREQUENCY)
    return figure


@mpl.rc_context(STYLE)
def figure_3c(table: NeuronTable) -> Figure:
    """Total effect on the loss beside the effect with the frequency coordinate frozen: frequency neurons against others."""
    return _frozen_boxes(table, "frequency")


FIGURES = {
    "figure_1": figure_1,
    "figure_2a": figure_2a,
    "figure_2c": figure_2c,
    "figure_2d": figure_2d,
    "figure_2e": figure_2e,
    "figure_3a": figure_3a,
    "figure_3b": figure_3b,
    "figure_3c": figure_3c,
}


def save_figures(table: NeuronTable, folder: str | Path) -> list[Path]:
    """Writes every figure as a PNG (`figure_1.png`, …; 160 dots per inch) into `folder`, each whole or not at all."""
    return draw_all(FIGURES, table, Path(folder))


def draw_all(figures: Mapping[str, Callable[[Any], Figure]], subject: Any, folder: Path) -> list[Path]:
    """Writes what each of the `figures` (name → drawing) draws of its subject."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for path, draw in zip(paths, figures.values(), strict=True):
        with replacing(path) as temporary:
            draw(subject).savefig(temporary, format="png", dpi=160)
    return paths


# What the pictures show. The report's interactive figures show the same.


def shown(table: NeuronTable, kind: Kind, mark: str = "hollow") -> tuple[list[str], str]:
    """The neurons a picture sets apart (those that meet the rule, else the nearest to it), and a note that says which."""
    if found := list(table.members(kind).index):
        return found, f"{_hue(kind)}: {count_of(len(found), kind)}"
    near = list(table.nearest(kind).index)
    return near, f"no neuron meets the {kind} rule" + f"; the nearest ({len(near)}) {mark}" * bool(near)


def others(table: NeuronTable, kind: Kind, chosen: list[str]) -> list[str]:
    """As many neurons as `chosen`, drawn at random with the run's seed from those that neither are chosen nor meet the rule."""
    frame = table.to_pandas()
    rest = frame.index[~frame[f"is_{kind}_neuron"] & ~frame.index.isin(chosen)]
    drawn = np.random.default_rng(table.facts.get("seed", 0)).choice(len(rest), min(len(chosen), len(rest)), replace=False)
    return list(rest[np.sort(drawn)])


def on_log_axis(values: pd.Series) -> pd.Series:
    """The values as a log axis can draw them: zeros go to half of the least positive value (if there is one), NaN stays."""
    positive = values[values > 0]
    edge = positive.min() / 2 if len(positive) else 0.0
    return values.astype(float).where((values > 0) | values.isna(), edge)


def floor_of(mediated: pd.Series) -> float:
    """The least mediated share that is drawn where it is; tiny effects give quotients far below 0 that would fill the picture."""
    low = mediated.quantile(0.05)
    return -1.0 if np.isnan(low) else max(-1.0, round(min(low, 0.0) - 0.1, 1))


def title(table: NeuronTable) -> str:
    """The model and the analysed layers, short enough for a heading."""
    return f"{model_name(table.facts)}, {table.where}"


def model_name(facts: Mapping[str, Any]) -> str:
    """The model that `facts` tell of, short enough for a heading."""
    model = str(facts.get("model", "unnamed model"))
    return model if len(model) <= 36 else "…" + model[-35:]


def boxes(table: NeuronTable, kind: Kind) -> list[tuple[str, str, pd.Series]]:
    """The four boxes of a comparison, chosen neurons first: (group, effect, mean absolute loss changes by neuron, nats)."""
    column, frozen = FROZEN[kind]
    frame = table.to_pandas()
    chosen, _ = shown(table, kind)
    rest = others(table, kind, chosen)
    found = frame[f"is_{kind}_neuron"].any()
    first = count_of(len(chosen), kind) if found else f"{len(chosen)} nearest to the rule"
    return [
        (group, effect, frame.loc[names, source].astype(float).dropna())
        for group, names in ((first, chosen), (f"{len(rest):,} random other{'s' * (len(rest) != 1)}", rest))
        for effect, source in (("total", "loss_abs_delta"), (frozen, column))
    ]


def _frozen_boxes(table: NeuronTable, kind: Kind) -> Figure:
    figure, axes = _canvas(table, f"Loss, {FROZEN[kind][1]}", shown(table, kind, mark="shown")[1])
    four = boxes(table, kind)
    places = (0, 1, 3, 4)
    values = on_log_axis(pd.concat([column for _, _, column in four], keys=places))
    strong, weak = (0.75, 0.3) if table.frame[f"is_{kind}_neuron"].any() else (0.3, 0.1)
    faces = [(COLOUR[kind], strong), (COLOUR[kind], weak), (NORMAL, 0.75), (NORMAL, 0.3)]
    jitter = np.random.default_rng(0)
    for place, face in zip(places, faces, strict=True):
        column = values[values.index.get_level_values(0) == place].to_numpy()
        axes.boxplot(
            column,
            positions=[place],
            widths=0.7,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": face, "edgecolor": INK},
            medianprops={"color": INK},
            manage_ticks=False,
        )
        axes.scatter(place + jitter.uniform(-0.18, 0.18, len(column)), column, s=8, color=INK, alpha=0.6, linewidth=0, zorder=3)
    if not len(values):
        say(axes, "no neuron's effect can be compared")
    measured = pd.concat([column for _, _, column in four])
    log_axes(axes, y=measured)
    axes.set_xticks(places, [effect.replace(" ", "\n") for _, effect, _ in four])
    for middle, group in ((0.5, four[0][0]), (3.5, four[2][0])):
        axes.text(middle, -0.16, group, transform=axes.get_xaxis_transform(), ha="center", va="top")
    axes.set_xlim(-0.7, 4.7)
    axes.set_ylabel("mean |change of loss|, nats" + _edge(measured, "lower"))
    return figure


def _canvas(table: NeuronTable, subject: str, note: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    _titles(figure, table, subject, note)
    return figure, axes


def _titles(figure: Figure, table: NeuronTable, subject: str, note: str) -> None:
    # Mathtext off: a model's name may hold a dollar sign.
    figure.suptitle(f"{subject}: {title(table)}\n{note}", fontsize=9, x=0.02, ha="left", parse_math=False)


def _dots(axes: Axes, x: pd.Series, y: pd.Series, kind: Kind | None = None, hollow: bool = False) -> None:
    if kind is None:
        axes.scatter(x, y, s=8, color=NORMAL, alpha=0.6, linewidth=0)
    else:
        face, edge, width = ("none", COLOUR[kind], 1.2) if hollow else (COLOUR[kind], "white", 0.5)
        axes.scatter(x, y, s=22, facecolor=face, edgecolor=edge, linewidth=width, marker=MARKER[kind], zorder=3)


def _say_if_empty(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    if not (x.notna() & y.notna()).any():
        say(axes, "no neuron has both figures")


def say(axes: Axes, words: str) -> None:
    """What a panel without anything to draw says instead."""
    axes.text(0.5, 0.6, words, transform=axes.transAxes, ha="center", color=QUIET)


def log_axes(axes: Axes, x: pd.Series | None = None, y: pd.Series | None = None) -> None:
    """Log axes, with labelled ticks, for those of the values that are given and hold a positive one."""
    for values, scale, axis in ((x, axes.set_xscale, axes.xaxis), (y, axes.set_yscale, axes.yaxis)):
        positive = pd.Series(dtype=float) if values is None else values[values > 0]
        if len(positive):
            scale("log")
            # Powers of ten alone label too little of so short an axis, every digit too much.
            if 4 < positive.max() / positive.min() < 100:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())


def _threshold(axes: Axes, along: str, value: float) -> None:
    (axes.axhline if along == "y" else axes.axvline)(value, color=QUIET, linestyle="--", linewidth=0.9)


def _edge(values: pd.Series, edge: str) -> str:
    return f"\n(zeros drawn at the {edge} edge)" if (values <= 0).any() and (values > 0).any() else ""


def _floored(mediated: pd.Series) -> str:
    floor = floor_of(mediated)
    return f" (lower ones drawn at {floor:g})" if (mediated < floor).any() else ""


def count_of(count: int, kind: Kind) -> str:
    """Say, "2 entropy neurons"."""
    return f"{count:,} {kind} neuron{'s' * (count != 1)}"


def _hue(kind: Kind) -> str:
    return {"entropy": "red", "frequency": "green"}[kind]


def label_points(figure: Figure, axes: Axes, x: pd.Series, y: pd.Series, names: list[str], colour: str) -> None:
    """Names up to eight points, each label where it covers neither another label nor another of the points."""
    names = [name for name in names if np.isfinite(x[name]) and np.isfinite(y[name])][:8]
    if not names:
        return
    # Where the points lie is known once the layout has run.
    figure.draw_without_rendering()
    point = figure.dpi / 72
    places = axes.transData.transform(np.column_stack([x[names], y[names]])) / point
    taken = [Bbox.from_bounds(px - 3, py - 3, 6, 6) for px, py in places]
    left, right, bottom, top = (edge / point for edge in (axes.bbox.x0, axes.bbox.x1, axes.bbox.y0, axes.bbox.y1))
    for name, (px, py) in zip(names, places, strict=True):
        width, height = 4.9 * len(name), 9
        offsets = [
            (sign * reach - width * (sign < 0), rise)
            for reach, rises in ((5, (0, 7, -7)), (12, (14, -14)), (20, (22, -22, 30, -30)))
            for rise in rises
            for sign in (1, -1)
        ]
        offsets = [(dx, dy) for dx, dy in offsets if left <= px + dx <= right - width and bottom <= py + dy <= top] or offsets
        boxes = [Bbox.from_bounds(px + dx, py + dy - height / 2, width, height) for dx, dy in offsets]
        best = min(range(len(boxes)), key=lambda i: boxes[i].count_overlaps(taken))
        taken.append(boxes[best])
        label = axes.annotate(
            name,
            (x[name], y[name]),
            xytext=offsets[best],
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )
        label.set_in_layout(False)
        label.set_path_effects([withStroke(linewidth=2, foreground="white")])

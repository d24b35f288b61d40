"""The paper's figures for one analysis, drawn with matplotlib: one function per figure, numbered as in the paper.

Each takes a NeuronTable and returns a matplotlib Figure; a figure that has nothing to show says so. No display is
needed.
"""

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jaxconf.report.box_figures import mean_figure, token_figure
from jaxconf.report.shown import COLOUR, SHARE, crosses, edge, exceeded, floored, interval, shown, title
from jaxconf.report.style import (
    ENTROPY,
    FREQUENCY,
    HUES,
    INK,
    NORMAL,
    QUIET,
    canvas,
    floor_of,
    guide,
    label_points,
    log_axes,
    log_ticks,
    on_log_axis,
    say,
    say_if_empty,
    styled,
)
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Kind
from jaxconf.results.words import counted, number

MARKER: dict[Kind, str] = {"entropy": "o", "frequency": "D"}
KL = r"$D_\mathrm{KL}(P_\mathrm{freq}\,\|\,P_\mathrm{model})$"


@styled
def figure_1(table: NeuronTable) -> Figure:
    """Mean absolute change of the entropy by ablation, against how often ablation changes the top token."""
    frame = table.to_pandas()
    least = table.rules.min_ln_mediated
    high = frame["ln_mediated"] >= least
    figure, (axes,) = canvas(
        title(table),
        "Entropy and prediction",
        f"red: {high.sum():,} with ln_mediated ≥ {least:g}" if high.any() else f"no neuron has ln_mediated ≥ {least:g}",
    )
    x, y = on_log_axis(frame["top1_change"]), on_log_axis(frame["entropy_abs_delta"])
    _dots(axes, x[~high], y[~high])
    _dots(axes, x[high], y[high], "entropy")
    log_axes(axes, x=frame["top1_change"], y=frame["entropy_abs_delta"])
    axes.set_xlabel("share of positions whose top token changes" + edge(frame["top1_change"], "left"))
    axes.set_ylabel("mean |change of entropy|, nats" + edge(frame["entropy_abs_delta"], "lower"))
    say_if_empty(axes, x, y)
    named = [name for name in table.members("entropy").index if high[name]]
    _intervals(axes, table, named, "top1_change", "entropy_abs_delta", "entropy")
    label_points(figure, axes, x, y, named, ENTROPY)
    return figure


def _spread(values: pd.Series) -> bool:
    """Whether values differ by more than rounding: the rows of an autoencoder's decoder, for one, have length 1."""
    return bool(values.max() - values.min() > 1e-4 * abs(values.max()))


@styled
def figure_2a(table: NeuronTable) -> Figure:
    """LogitVar against the norm of the output weights, with marginal histograms."""
    frame = table.to_pandas()
    chosen, note = shown(table, "entropy")
    ratios: Any = {"width_ratios": (5, 1), "height_ratios": (1, 4)}
    figure, (top, corner, axes, right) = canvas(title(table), "Norm and LogitVar", note, 2, 2, **ratios)
    corner.remove()
    top.sharex(axes)
    right.sharey(axes)
    x, y = frame["w_norm"], on_log_axis(frame["logit_var"])
    _dots(axes, x, y)
    _dots(axes, x[chosen], y[chosen], "entropy", hollow=not frame["is_entropy_neuron"].any())
    log_axes(axes, y=frame["logit_var"])
    axes.set_xlabel("‖w_out‖", parse_math=False)
    axes.set_ylabel("LogitVar" + edge(frame["logit_var"], "lower"))
    if _spread(x):
        top.hist(x.dropna(), bins=50, color=NORMAL)
    if _spread(y):
        right.hist(y.dropna(), bins=np.geomspace(y.min(), y.max(), 51).tolist(), color=NORMAL, orientation="horizontal")
    for panel in (top, right):
        panel.axis("off")
    say_if_empty(axes, x, y)
    label_points(figure, axes, x, y, chosen, ENTROPY)
    return figure


@styled
def figure_2d(table: NeuronTable) -> Figure:
    """Singular values of the folded unembedding, and the cosines of neurons' output weights with its vectors."""
    k = int(table.facts.get("k", 0))
    values, count = table.singular_values, len(table.singular_values)
    shaded = f"shaded: the effective null space, the {k:,} smallest of {count:,} singular values"
    knee = table.facts.get("knee")
    marked = f"\ndotted: the knee, below which values fall by a factor of {number(knee['ratio'])}" if knee else ""
    note = shaded + marked if count else "no singular values were kept"
    figure, (upper, lower) = canvas(title(table), "Unembedding", note, 2, sharex=True, height_ratios=(2, 3))
    # The null space has about 1% of all values. Only on a log axis that counts from the smallest value is it visible.
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
            if knee is not None:
                guide(axes, x=knee["k"] + 0.5, line=":")
        if knee is not None:
            upper.text(knee["k"] + 0.5, 0.97, "knee ", transform=upper.get_xaxis_transform(), ha="right", va="top")
    return figure


@styled
def figure_2e(table: NeuronTable) -> Figure:
    """Share of the effect that passes through the norm's scale, against the weights' share in the null space."""
    frame = table.to_pandas()
    chosen, note = shown(table, "entropy", mark="ringed")
    figure, (axes,) = canvas(title(table), "Null space", note + crosses(table))
    x, y = frame["rho"], frame["ln_mediated"].clip(lower=floor_of(frame["ln_mediated"]))
    _nulls(axes, table, "rho", "ln_mediated")
    _intervals(axes, table, chosen, "rho", "ln_mediated", "entropy")
    size = frame["entropy_abs_delta"]
    order = size.fillna(-1).argsort().to_numpy()
    positive = size[size > 0]
    norm = LogNorm(positive.min(), positive.max()) if positive.nunique() > 1 else None
    colours = axes.scatter(
        x.iloc[order],
        y.iloc[order],
        s=9,
        c=on_log_axis(size).iloc[order],
        cmap="viridis",
        norm=norm,
        linewidth=0,
        alpha=0.85,
    )
    axes.scatter(x[chosen], y[chosen], s=42, facecolor="none", edgecolor=ENTROPY, linewidth=1.3)
    levels = np.sort(frame["rho_chance"].dropna().unique())
    for chance in levels:
        guide(axes, x=chance)
    for chance in levels[-1:]:  # several kinds of components have levels near each other, of which the last is named
        place: Any = {"transform": axes.get_xaxis_transform(), "rotation": 90, "ha": "right"}
        axes.text(chance, 0.02, " chance", color=QUIET, fontsize=7.5, **place)
    guide(axes, y=table.rules.min_ln_mediated)
    axes.set_xlabel("ρ, share of w_out in the null space", parse_math=False)
    axes.set_ylabel("ln_mediated" + floored(frame["ln_mediated"]), parse_math=False)
    if norm is not None:
        bar = figure.colorbar(colours, ax=axes, label="mean |change of entropy|, nats", aspect=30, pad=0.02)
        log_ticks(bar.ax.yaxis, positive)
    say_if_empty(axes, x, y)
    label_points(figure, axes, x, y, chosen, ENTROPY)
    return figure


@styled
def figure_3a(table: NeuronTable) -> Figure:
    """Divergence of the output from the token frequencies against its entropy, for each position."""
    positions = table.positions[["entropy", "kl_freq"]].astype(float).dropna()
    note = f"{counted(len(positions), 'position')}, correlation {number(table.correlation())}"
    figure, (axes,) = canvas(title(table), "Entropy and frequency", note)
    if len(positions):
        bins = axes.hexbin(
            positions["entropy"], positions["kl_freq"], gridsize=45, mincnt=1, bins="log", cmap="viridis", linewidths=0
        )
        if len(np.unique(np.asarray(bins.get_array()))) > 1:
            figure.colorbar(bins, ax=axes, label="positions", aspect=30, pad=0.02)
    else:
        say(axes, "no positions were kept")
    axes.set_xlabel("entropy, nats")
    axes.set_ylabel(f"{KL}, nats")
    return figure


@styled
def figure_3b(table: NeuronTable) -> Figure:
    """Share of the effect that passes along the frequency direction, against the change of the divergence (see KL)."""
    frame = table.to_pandas()
    chosen, note = shown(table, "frequency")
    entropy = list(table.members("entropy").index)
    figure, (axes,) = canvas(
        title(table),
        "Token frequency",
        note + f"\nred: {counted(len(entropy), f'entropy {table.noun}')}" * bool(entropy) + crosses(table),
    )
    kl = frame["kl_freq_abs_delta"]
    x, y = on_log_axis(kl), frame["freq_mediated"].clip(lower=floor_of(frame["freq_mediated"]))
    _nulls(axes, table, "kl_freq_abs_delta", "freq_mediated")
    _intervals(axes, table, chosen, "kl_freq_abs_delta", "freq_mediated", "frequency")
    _dots(axes, x, y)
    _dots(axes, x[chosen], y[chosen], "frequency", hollow=not frame["is_frequency_neuron"].any())
    _dots(axes, x[entropy], y[entropy], "entropy")
    log_axes(axes, x=kl)
    guide(axes, y=table.rules.least_share("frequency", table.frame))
    for cut in table.rules.least_changes(table.frame):
        guide(axes, x=cut)
    axes.set_xlabel(f"mean |change of {KL}|, nats" + edge(kl, "left"))
    axes.set_ylabel("freq_mediated" + floored(frame["freq_mediated"]), parse_math=False)
    say_if_empty(axes, x, y)
    label_points(figure, axes, x, y, chosen, FREQUENCY)
    return figure


@styled
def figure_nulls(table: NeuronTable) -> Figure:
    """The share of neurons, and of nulls, whose mediated share is at least as large; neurons that stand out marked."""
    count = len(table.nulls)
    note = f"{len(table.frame):,} neurons (coloured) and {count:,} nulls (grey)" if count else "there were no nulls"
    figure, panels = canvas(title(table), "Neurons and nulls", note, 1, 2, (7, 3.6), sharey=True)
    for axes, (kind, column) in zip(panels, SHARE.items(), strict=True):
        floor = floor_of(table.frame[column])
        for values, colour in ((table.nulls.get(column), QUIET), (table.frame[column], COLOUR[kind])):
            if values is not None:
                axes.step(*exceeded(values.clip(lower=floor)), where="pre", color=colour, linewidth=1.3)
        chosen = shown(table, kind)[0]
        of_chosen = table.to_pandas().loc[chosen, column].clip(lower=floor)
        heights = [(table.frame[column] >= value).mean() for value in of_chosen]
        axes.scatter(of_chosen, heights, s=22, color=COLOUR[kind], marker=MARKER[kind], zorder=3, linewidth=0)
        axes.set_xlabel(column + floored(table.frame[column]), parse_math=False)
        axes.locator_params(axis="x", nbins=5)  # more would overlap where shares are small
        axes.margins(x=0.15)  # room for names to the right of the curves
        if table.frame[column].notna().any():
            axes.set_yscale("log")
            label_points(figure, axes, of_chosen, pd.Series(heights, of_chosen.index), chosen, COLOUR[kind])
        else:
            say(axes, "no neuron has this share")
    panels[0].set_ylabel("share of rows that reach it")
    return figure


FIGURES: dict[str, Callable[[NeuronTable], Figure]] = {
    "figure_1": figure_1,
    "figure_2a": figure_2a,
    "figure_2c": partial(token_figure, kind="entropy"),
    "figure_2d": figure_2d,
    "figure_2e": figure_2e,
    "figure_3a": figure_3a,
    "figure_3b": figure_3b,
    "figure_3c": partial(token_figure, kind="frequency"),
    "figure_2c_means": partial(mean_figure, kind="entropy"),
    "figure_3c_means": partial(mean_figure, kind="frequency"),
    "figure_nulls": figure_nulls,
}


def _nulls(axes: Axes, table: NeuronTable, x: str, y: str) -> None:
    """The nulls, as grey crosses behind the neurons."""
    if len(table.nulls):
        across, up = table.nulls[x], table.nulls[y].clip(lower=floor_of(table.frame[y]))
        axes.scatter(across, up, s=14, color=QUIET, alpha=0.5, linewidth=0.7, marker="x", zorder=0)


def _intervals(axes: Axes, table: NeuronTable, names: list[str], x: str, y: str, kind: Kind) -> None:
    """The intervals of some neurons, where their columns have one."""
    bars, at = {}, {}
    for axis, column in (("x", x), ("y", y)):
        low, at[axis], high = interval(table, names, column)
        if low is not None and high is not None:
            bars[f"{axis}err"] = np.clip([at[axis] - low, high - at[axis]], 0, None)
    axes.errorbar(at["x"], at["y"], **bars, fmt="none", ecolor=COLOUR[kind], elinewidth=0.8, zorder=2)


def _dots(axes: Axes, x: pd.Series, y: pd.Series, kind: Kind | None = None, hollow: bool = False) -> None:
    if kind is None:
        axes.scatter(x, y, s=8, color=NORMAL, alpha=0.6, linewidth=0)
    else:
        face, edge, width = ("none", COLOUR[kind], 1.2) if hollow else (COLOUR[kind], "white", 0.5)
        axes.scatter(x, y, s=22, facecolor=face, edgecolor=edge, linewidth=width, marker=MARKER[kind], zorder=3)

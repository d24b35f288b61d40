"""The page's interactive figures (Plotly): the figures of `jaxconf.report.figures`, with hover texts.

The page holds the hover text of a neuron once, for all figures. The `customdata` of a point is the index of the
neuron's row, by which the page finds the text.
"""

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from jaxconf.report.plot_style import DASHED, HOVER, LOG, colour_bar, dressed, log_axis, place, say
from jaxconf.report.shown import COLOUR, FROZEN, SHARE, boxes, drawn, exceeded, floored, interval, token_boxes
from jaxconf.report.style import ENTROPY, HUES, NORMAL, QUIET, floor_of, on_log_axis
from jaxconf.results.columns import MAIN_COLUMNS
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Kind
from jaxconf.results.words import number

SYMBOL: dict[Kind, str] = {"entropy": "circle", "frequency": "diamond"}
KL = "D<sub>KL</sub>(P<sub>freq</sub> ‖ P<sub>model</sub>)"
MOST_SINGLE = 200  # positions of figure 3a whose tokens show on hover


def plots(table: NeuronTable) -> dict[str, go.Figure]:
    """The figures by name, as in PLOTS."""
    return {name: draw(table) for name, draw in PLOTS.items()}


def hover_texts(table: NeuronTable) -> list[str]:
    """A hover text for each row of the frame: the neuron's name and its MAIN_COLUMNS, in Plotly's markup."""
    columns = {column: table.frame[column].map(number) for column in MAIN_COLUMNS}
    return [
        f"<b>{name}</b><br>" + "<br>".join(f"{column} {values.iloc[row]}" for column, values in columns.items())
        for row, name in enumerate(table.names)
    ]


def _figure_1(table: NeuronTable) -> go.Figure:
    frame = table.to_pandas()
    least = table.rules.min_ln_mediated
    high = frame.index[frame["ln_mediated"] >= least]
    x, y = on_log_axis(frame["top1_change"]), on_log_axis(frame["entropy_abs_delta"])
    figure = _scatter(table, x, y)
    if high.empty:
        figure.update_traces(name=f"neurons (none has ln_mediated ≥ {least:g})")
    else:
        of_high = _points(table, x[high], y[high], f"ln_mediated ≥ {least:g}", "entropy")
        figure.add_trace(of_high.update(_intervals(table, list(high), "top1_change", "entropy_abs_delta")))
    figure.update_xaxes(title="share of positions with a new top token", **log_axis(frame["top1_change"]))
    figure.update_yaxes(title="mean |change of entropy|, nats", **log_axis(frame["entropy_abs_delta"]))
    return figure


def _figure_2a(table: NeuronTable) -> go.Figure:
    frame = table.to_pandas()
    x, y = frame["w_norm"], on_log_axis(frame["logit_var"])
    figure = _scatter(table, x, y, "entropy", "frequency")
    figure.update_xaxes(title="‖w<sub>out</sub>‖")
    figure.update_yaxes(title="LogitVar", **log_axis(frame["logit_var"]))
    return figure


def _figure_2d(table: NeuronTable) -> go.Figure:
    count, k = len(table.singular_values), int(table.facts.get("k", 0))
    figure = dressed(make_subplots(rows=2, shared_xaxes=True, row_heights=[0.4, 0.6], vertical_spacing=0.06))
    ranks = np.arange(count, 0, -1)
    positive = table.singular_values > 0
    values = {"x": ranks[positive], "y": table.singular_values[positive], "mode": "lines", "line": {"color": NORMAL}}
    hover = "%{x}: %{y:.4g}<extra></extra>"
    figure.add_trace(go.Scatter(**values, name="singular value", showlegend=False, hovertemplate=hover))
    for name, cosines, colour in zip(table.cosine_neurons, np.abs(table.cosines), cycle(HUES), strict=False):
        hover = f"{name}, vector %{{x}}: %{{y:.3f}}<extra></extra>"
        line = {"width": 1.3, "color": colour}
        lines = go.Scatter(x=ranks, y=cosines, mode="lines", line=line, name=name, hovertemplate=hover)
        figure.add_trace(lines, row=2, col=1)
    if count:
        # On a log axis, Plotly expects the edges of a rectangle as values, but the range of the axis as logarithms.
        figure.add_vrect(x0=0.8, x1=k + 0.5, fillcolor=ENTROPY, opacity=0.13, line_width=0)
        figure.update_xaxes(**LOG, range=[np.log10(count + 0.5), np.log10(0.8)])
        if knee := table.facts.get("knee"):
            figure.add_vline(knee["k"] + 0.5, line=DASHED | {"dash": "dot"})
            figure.add_annotation(
                text="knee ", x=np.log10(knee["k"] + 0.5), y=1, yref="y domain", xanchor="right", showarrow=False
            )
    else:
        say(figure, "no singular values were kept")
    if positive.any():
        figure.update_yaxes(**LOG | {"nticks": 3}, row=1, col=1)
    figure.update_yaxes(title="singular value", row=1, col=1)
    figure.update_yaxes(title="|cosine| with w<sub>out</sub>", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title="singular vectors, smallest value last", row=2, col=1)
    return figure


def _figure_2e(table: NeuronTable) -> go.Figure:
    frame = table.to_pandas()
    x, y = frame["rho"], frame["ln_mediated"].clip(lower=floor_of(frame["ln_mediated"]))
    figure = _scatter(table, x, y, "entropy", columns=("rho", "ln_mediated"))
    _add_nulls(figure, table, "rho", "ln_mediated")
    levels = np.sort(frame["rho_chance"].dropna().unique())
    for chance in levels:
        # Several kinds of components have levels near each other, of which the last has the label.
        named = {"annotation_text": "chance", "annotation_position": "bottom right"} if chance == levels[-1] else {}
        figure.add_vline(chance, line=DASHED, **named)
    figure.add_hline(table.rules.min_ln_mediated, line=DASHED)
    size = on_log_axis(frame["entropy_abs_delta"]).loc[drawn(table)]
    size = np.log10(size.where(size > 0))
    finite = size.dropna()
    if finite.nunique() > 1:
        bar = colour_bar("|Δ entropy|,<br>nats", np.arange(np.ceil(finite.min()), np.floor(finite.max()) + 1))
        marker = {"color": size, "colorscale": "Viridis", "colorbar": bar, "opacity": 0.9}
        marker["line"] = {"color": QUIET, "width": 0.7}  # for dark points on a dark background
        figure.update_traces(marker=marker, selector={"name": "neurons"})
        # Here the colour of a point shows the change of entropy, so a ring marks the neurons that stand out.
        ring = {"symbol": "circle-open", "size": 12, "line": {"width": 2}}
        figure.update_traces(marker=ring, selector={"legendgroup": "entropy"})
    figure.update_xaxes(title="ρ, share of w<sub>out</sub> in the null space")
    figure.update_yaxes(title="ln_mediated" + floored(frame["ln_mediated"]))
    return figure


def _figure_3a(table: NeuronTable) -> go.Figure:
    figure = dressed(go.Figure())
    kept = table.positions.dropna(subset=["entropy", "kl_freq"])
    if len(kept):
        figure.add_trace(_cells(kept))
        figure.add_trace(_single_positions(kept))
    else:
        say(figure, "no positions were kept")
    figure.update_xaxes(title="entropy, nats")
    figure.update_yaxes(title=f"{KL}, nats")
    return figure


def _cells(kept: pd.DataFrame) -> go.Heatmap:
    """A heat map of the number of positions by entropy and divergence."""
    x, y = kept["entropy"].to_numpy(float), kept["kl_freq"].to_numpy(float)
    counts, across, up = np.histogram2d(x, y, bins=48)
    counts = counts.T
    cells = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan)
    return go.Heatmap(
        x=(across[1:] + across[:-1]) / 2,
        y=(up[1:] + up[:-1]) / 2,
        z=cells,
        customdata=counts.astype(int),
        colorscale="Viridis",
        colorbar=colour_bar("positions", np.arange(0, np.log10(counts.max()) + 0.01)),
        hoverongaps=False,
        hovertemplate="%{customdata} positions<br>entropy %{x:.2f}, divergence %{y:.2f} nats<extra></extra>",
    )


def _single_positions(kept: pd.DataFrame) -> go.Scatter:
    """A sample of the positions, with their tokens on hover."""
    drawn = np.random.default_rng(0).choice(len(kept), min(MOST_SINGLE, len(kept)), replace=False)
    sample = kept.iloc[np.sort(drawn)]
    texts = [
        f"{place(row)}entropy {number(row.entropy)}, divergence {number(row.kl_freq)}, loss {number(row.loss)} nats"
        for row in sample.itertuples()
    ]
    marker = {"size": 6, "color": "rgba(255,255,255,0.25)", "line": {"color": "rgba(0,0,0,0.6)", "width": 0.8}}
    places = {"x": sample["entropy"], "y": sample["kl_freq"]}
    return go.Scatter(**places, text=texts, mode="markers", marker=marker, hovertemplate=HOVER, showlegend=False)


def _figure_3b(table: NeuronTable) -> go.Figure:
    frame = table.to_pandas()
    kl, mediated = frame["kl_freq_abs_delta"], frame["freq_mediated"]
    columns = ("kl_freq_abs_delta", "freq_mediated")
    y = mediated.clip(lower=floor_of(mediated))
    figure = _scatter(table, on_log_axis(kl), y, "frequency", "entropy", columns=columns)
    _add_nulls(figure, table, "kl_freq_abs_delta", "freq_mediated")
    if np.isfinite(least := table.rules.least_share("frequency", table.frame)):
        figure.add_hline(least, line=DASHED)
    for cut in table.rules.least_changes(table.frame):
        figure.add_vline(cut, line=DASHED)
    figure.update_xaxes(title=f"mean |change of {KL}|, nats", **log_axis(kl))
    figure.update_yaxes(title="freq_mediated" + floored(mediated))
    return figure


def _figure_nulls(table: NeuronTable) -> go.Figure:
    figure = dressed(make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05))
    for at, (kind, column) in enumerate(SHARE.items(), 1):
        floor = floor_of(table.frame[column])
        for values, colour, label in (
            (table.nulls.get(column), QUIET, "nulls"),
            (table.frame[column], COLOUR[kind], f"neurons, {column}"),
        ):
            if values is None or values.isna().all():
                continue
            across, up = exceeded(values.clip(lower=floor))
            line = {"shape": "vh", "color": colour, "width": 1.5}
            hover = f"{label}: a share of %{{y:.3g}} reaches %{{x:.3f}}<extra></extra>"
            lines = go.Scatter(x=across, y=up, mode="lines", line=line, name=label, hovertemplate=hover)
            figure.add_trace(lines.update(showlegend=label != "nulls" or at == 1), row=1, col=at)
        figure.update_xaxes(title=column, row=1, col=at)
    if len(figure.data):
        figure.update_yaxes(**LOG)
    else:
        say(figure, "no neuron has a mediated share")
    figure.update_yaxes(title="share of rows that reach it", row=1, col=1)
    return figure


def _add_nulls(figure: go.Figure, table: NeuronTable, x: str, y: str) -> None:
    """Adds the nulls, as grey crosses behind the neurons."""
    if table.nulls.empty:
        return
    crosses = go.Scatter(
        x=table.nulls[x],
        y=table.nulls[y].clip(lower=floor_of(table.frame[y])),
        mode="markers",
        marker={"symbol": "x-thin", "size": 5, "opacity": 0.8, "line": {"width": 1, "color": QUIET}},
        name="nulls",
        hovertemplate=f"null: {x} %{{x:.3g}}, {y} %{{y:.3f}}<extra></extra>",
    )
    figure.add_trace(crosses)
    figure.data = (figure.data[-1], *figure.data[:-1])


def _intervals(table: NeuronTable, names: list[str], x: str, y: str) -> dict[str, Any]:
    """The error bars of some neurons' points, where their columns have an interval."""
    bars = {}
    for axis, column in (("error_x", x), ("error_y", y)):
        low, at, high = interval(table, names, column)
        if low is not None and high is not None:
            up, down = (high - at).clip(lower=0), (at - low).clip(lower=0)
            bars[axis] = {"array": up, "arrayminus": down, "thickness": 1, "width": 0}
    return bars


def _token_boxes(table: NeuronTable, kind: Kind) -> go.Figure:
    """The means of neurons instead, if the table has no effects at single positions."""
    groups = token_boxes(table, kind)
    if not groups:
        return _boxes(table, kind)
    figure = dressed(go.Figure())
    every = pd.concat([values for _, *pair in groups for values in pair])
    least = on_log_axis(every).min()
    for effect, (at, fill) in {"total": (0, "rgba(143,163,191,0.45)"), FROZEN[kind][1]: (1, "rgba(0,0,0,0)")}.items():
        ends = [pair[at].clip(lower=least).quantile([0.05, 0.25, 0.5, 0.75, 0.95]) for _, *pair in groups]
        names = ("lowerfence", "q1", "median", "q3", "upperfence")
        box = go.Box(
            x=[name.replace(" ", "<br>") for name, *_ in groups],
            **dict(zip(names, np.transpose(ends).tolist(), strict=True)),
            name=effect,
            line={"color": COLOUR[kind], "width": 1.5},
            fillcolor=fill,
            offsetgroup=effect,
        )
        figure.add_trace(box)
    figure.update_layout(boxmode="group")
    figure.update_xaxes(type="category")
    figure.update_yaxes(title="|change of loss|, nats", **log_axis(every))
    return figure


def _boxes(table: NeuronTable, kind: Kind) -> go.Figure:
    figure = dressed(go.Figure())
    rows = {name: row for row, name in enumerate(table.names)}
    four = boxes(table, kind)
    measured = pd.concat([values for _, _, values in four], keys=range(4))
    heights = on_log_axis(measured)
    for number_of_box, (group, effect, _) in enumerate(four):
        values = heights[heights.index.get_level_values(0) == number_of_box].droplevel(0)
        colour = COLOUR[kind] if number_of_box < 2 else NORMAL
        box = go.Box(
            y=values,
            x=[[group] * len(values), [effect] * len(values)],
            customdata=[rows[name] for name in values.index],
            boxpoints="all",
            pointpos=0,
            jitter=0.4,
            marker={"color": colour, "size": 5, "opacity": 0.8},
            line={"color": colour},
            fillcolor="rgba(143,163,191,0.15)",
            hoveron="points",
            hovertemplate=HOVER,
            showlegend=False,
        )
        figure.add_trace(box)
    if measured.empty:
        say(figure, "no neuron's effect can be compared")
    figure.update_yaxes(title="mean |change of loss|, nats", **log_axis(measured))
    return figure


def _scatter(
    table: NeuronTable, x: pd.Series, y: pd.Series, *kinds: Kind, columns: tuple[str, str] | None = None
) -> go.Figure:
    """A scatter plot of all neurons, with the neurons of each kind drawn on top.

    If no neuron meets the rule of the first kind, the neurons nearest to it are drawn on top instead, hollow.
    `columns`: those of x and y, if the neurons of the first kind get their intervals.
    """
    figure = dressed(go.Figure())
    names = drawn(table)
    figure.add_trace(_points(table, x[names], y[names], "neurons"))
    if not (x.notna() & y.notna()).any():
        say(figure, "no neuron has both values")
    for kind in kinds:
        found = list(table.members(kind).index)
        near = list(table.nearest(kind).index) if kind == kinds[0] and not found else []
        if found or near:
            label = f"{kind} neuron{'s' * (len(found) > 1)}" if found else f"nearest to the {kind} rule"
            names = found or near
            points = _points(table, x[names], y[names], label, kind, hollow=not found)
            if columns is not None and kind == kinds[0]:
                points.update(_intervals(table, names, *columns))
            figure.add_trace(points)
    return figure


def _points(
    table: NeuronTable, x: pd.Series, y: pd.Series, label: str, kind: Kind | None = None, hollow: bool = False
) -> go.Scatter:
    """A point for each neuron of `x` and `y`, which are indexed by name."""
    rows = {name: row for row, name in enumerate(table.names)}
    marker: dict[str, Any] = {"color": NORMAL, "size": 5, "opacity": 0.65}
    if kind is not None:
        symbol = SYMBOL[kind] + "-open" * hollow
        marker = {"color": COLOUR[kind], "size": 9, "symbol": symbol, "line": {"width": 1.5 * hollow}}
    return go.Scatter(
        x=x.to_numpy(float),
        y=y.to_numpy(float),
        customdata=[rows[name] for name in x.index],
        mode="markers",
        marker=marker,
        name=label,
        legendgroup=kind or "neurons",
        hovertemplate=HOVER,
    )


PLOTS: dict[str, Callable[[NeuronTable], go.Figure]] = {
    "figure_1": _figure_1,
    "figure_2a": _figure_2a,
    "figure_2c": partial(_token_boxes, kind="entropy"),
    "figure_2d": _figure_2d,
    "figure_2e": _figure_2e,
    "figure_3a": _figure_3a,
    "figure_3b": _figure_3b,
    "figure_3c": partial(_token_boxes, kind="frequency"),
    "figure_nulls": _figure_nulls,
}

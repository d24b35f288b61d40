"""The report's interactive figures, in Plotly's own terms: what `jaxconf.report.figures` draws, with hover.

A neuron's hover text is held once for all figures: each point's `customdata` is the neuron's row, and the page fills in the text.
"""

from html import escape
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from jaxconf.report.figures import COLOUR, boxes, shown
from jaxconf.report.passages import change_of_loss, neurons_to_draw
from jaxconf.report.style import ENTROPY, HUES, NORMAL, QUIET, floor_of, on_log_axis
from jaxconf.results.columns import MAIN_COLUMNS
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Kind
from jaxconf.results.words import number

# A browser draws this many points without stutter; a wide layer has more.
MOST_POINTS = 4000
SYMBOL: dict[Kind, str] = {"entropy": "circle", "frequency": "diamond"}
HOVER = "%{text}<extra></extra>"
KL = "D<sub>KL</sub>(P<sub>freq</sub> ‖ P<sub>model</sub>)"


def plots(table: NeuronTable) -> dict[str, go.Figure]:
    """The figures by name: figure_1, 2a, 2c, 2d, 2e, 3a, 3b, 3c. Points of neurons carry the neuron's row as `customdata`."""
    return {
        "figure_1": _figure_1(table),
        "figure_2a": _figure_2a(table),
        "figure_2c": _boxes(table, "entropy"),
        "figure_2d": _figure_2d(table),
        "figure_2e": _figure_2e(table),
        "figure_3a": _figure_3a(table),
        "figure_3b": _figure_3b(table),
        "figure_3c": _boxes(table, "frequency"),
    }


def token_plots(effects: pd.DataFrame, seed: int) -> dict[str, go.Figure]:
    """Figure 4 of each neuron that is drawn, by its name; `effects` as of `jaxconf.per_token`, `seed` draws the sample of many positions."""
    return {neuron: _figure_4(effects[effects["neuron"] == neuron], seed) for neuron in neurons_to_draw(effects)}


def hover_texts(table: NeuronTable) -> list[str]:
    """A hover text for each row of the frame, the neuron's name and main figures; Plotly's markup."""
    columns = {column: table.frame[column].map(number) for column in MAIN_COLUMNS}
    return [
        f"<b>{name}</b><br>" + "<br>".join(f"{column} {values.iloc[row]}" for column, values in columns.items())
        for row, name in enumerate(table.names)
    ]


def drawn(table: NeuronTable) -> list[str]:
    """The neurons that the scatters draw: up to MOST_POINTS all, beyond that those set apart, the strongest and a sample."""
    frame = table.to_pandas()
    if len(frame) <= MOST_POINTS:
        return list(frame.index)
    keep = pd.Index([*shown(table, "entropy")[0], *shown(table, "frequency")[0]])
    keep = keep.union(frame["loss_abs_delta"].nlargest(MOST_POINTS // 4).index, sort=False).unique()
    rest = frame.index.difference(keep, sort=False)
    sample = np.random.default_rng(table.facts.get("seed", 0)).choice(
        len(rest), max(0, MOST_POINTS - len(keep)), replace=False
    )
    return list(keep) + list(rest[np.sort(sample)])


def _figure_1(table: NeuronTable) -> go.Figure:
    frame = table.to_pandas()
    least = table.rules.min_ln_mediated
    high = frame.index[frame["ln_mediated"] >= least]
    x, y = on_log_axis(frame["top1_change"]), on_log_axis(frame["entropy_abs_delta"])
    figure = _scatter(table, x, y)
    if high.empty:
        figure.update_traces(name=f"neurons (none has ln_mediated ≥ {least:g})")
    else:
        figure.add_trace(_points(table, x, y, list(high), f"ln_mediated ≥ {least:g}", "entropy", hollow=False))
    figure.update_xaxes(title="share of positions with a new top token", **_log(frame["top1_change"]))
    figure.update_yaxes(title="mean |change of entropy|, nats", **_log(frame["entropy_abs_delta"]))
    return figure


def _figure_2a(table: NeuronTable) -> go.Figure:
    frame = table.to_pandas()
    x, y = frame["w_norm"], on_log_axis(frame["logit_var"])
    figure = _scatter(table, x, y, "entropy", "frequency")
    figure.update_xaxes(title="‖w<sub>out</sub>‖")
    figure.update_yaxes(title="LogitVar", **_log(frame["logit_var"]))
    return figure


def _figure_2d(table: NeuronTable) -> go.Figure:
    count, k = len(table.singular_values), int(table.facts.get("k", 0))
    figure = _dressed(make_subplots(rows=2, shared_xaxes=True, row_heights=[0.4, 0.6], vertical_spacing=0.06))
    ranks = np.arange(count, 0, -1)
    positive = table.singular_values > 0
    values = {"x": ranks[positive], "y": table.singular_values[positive], "mode": "lines", "line": {"color": NORMAL}}
    figure.add_trace(
        go.Scatter(**values, name="singular value", showlegend=False, hovertemplate="%{x}: %{y:.4g}<extra></extra>")
    )
    for name, cosines, colour in zip(table.cosine_neurons, np.abs(table.cosines), cycle(HUES), strict=False):
        hover = f"{name}, vector %{{x}}: %{{y:.3f}}<extra></extra>"
        line = {"width": 1.3, "color": colour}
        figure.add_trace(
            go.Scatter(x=ranks, y=cosines, mode="lines", line=line, name=name, hovertemplate=hover), row=2, col=1
        )
    if count:
        # A rectangle on a log axis is placed by values, a range by their logarithms.
        figure.add_vrect(x0=0.8, x1=k + 0.5, fillcolor=ENTROPY, opacity=0.13, line_width=0)
        figure.update_xaxes(type="log", range=[np.log10(count + 0.5), np.log10(0.8)])
    else:
        _say(figure, "no singular values were kept")
    if positive.any():
        figure.update_yaxes(type="log", row=1, col=1)
    figure.update_yaxes(title="singular value", row=1, col=1)
    figure.update_yaxes(title="|cosine| with w<sub>out</sub>", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title="singular vectors, smallest value last", row=2, col=1)
    return figure


def _figure_2e(table: NeuronTable) -> go.Figure:
    frame = table.to_pandas()
    floor = floor_of(frame["ln_mediated"])
    x, y = frame["rho"], frame["ln_mediated"].clip(lower=floor)
    figure = _scatter(table, x, y, "entropy")
    for chance in frame["rho_chance"].dropna().unique():
        figure.add_vline(chance, line=_dash(), annotation_text="chance", annotation_position="bottom right")
    figure.add_hline(table.rules.min_ln_mediated, line=_dash())
    size = on_log_axis(frame["entropy_abs_delta"]).loc[drawn(table)]
    size = np.log10(size.where(size > 0))
    finite = size.dropna()
    if finite.nunique() > 1:
        ticks = np.arange(np.ceil(finite.min()), np.floor(finite.max()) + 1)
        bar = {"title": "|Δ entropy|,<br>nats", "thickness": 10, "outlinewidth": 0}
        bar |= {"tickvals": ticks.tolist(), "ticktext": [f"{10**tick:g}" for tick in ticks]}
        marker = {"color": size, "colorscale": "Viridis", "colorbar": bar, "opacity": 0.9}
        figure.update_traces(marker=marker, selector={"name": "neurons"})
        # The colour says what the others are; a set-apart neuron is a ring round its coloured point.
        figure.update_traces(
            marker={"symbol": "circle-open", "size": 12, "line": {"width": 2}}, selector={"legendgroup": "entropy"}
        )
    figure.update_xaxes(title="ρ, share of w<sub>out</sub> in the null space")
    figure.update_yaxes(title="ln_mediated" + _floored(frame["ln_mediated"], floor))
    return figure


def _figure_3a(table: NeuronTable) -> go.Figure:
    figure = _dressed(go.Figure())
    kept = table.positions.dropna(subset=["entropy", "kl_freq"])
    if len(kept):
        x, y = kept["entropy"].to_numpy(float), kept["kl_freq"].to_numpy(float)
        counts, across, up = np.histogram2d(x, y, bins=48)
        counts = counts.T
        cells = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan)
        ticks = np.arange(0, np.log10(counts.max()) + 0.01)
        bar = {"title": "positions", "thickness": 10, "outlinewidth": 0, "tickvals": ticks.tolist()}
        bar |= {"ticktext": [f"{10**tick:g}" for tick in ticks]}
        hover = "%{customdata} positions<br>entropy %{x:.2f}, divergence %{y:.2f} nats<extra></extra>"
        middle = {"x": (across[1:] + across[:-1]) / 2, "y": (up[1:] + up[:-1]) / 2}
        heat = {
            "z": cells,
            "customdata": counts.astype(int),
            "colorscale": "Viridis",
            "colorbar": bar,
            "hoverongaps": False,
        }
        figure.add_trace(go.Heatmap(**middle, **heat, hovertemplate=hover))
        sample = kept.iloc[np.sort(np.random.default_rng(0).choice(len(kept), min(200, len(kept)), replace=False))]
        texts = [
            f"{_token(row.token)} → {_token(row.target)}<br>window {row.window}, position {row.position}<br>"
            f"entropy {number(row.entropy)}, divergence {number(row.kl_freq)}, loss {number(row.loss)} nats"
            for row in sample.itertuples()
        ]
        marker = {"size": 6, "color": "rgba(255,255,255,0.25)", "line": {"color": "rgba(0,0,0,0.6)", "width": 0.8}}
        dots = go.Scatter(
            x=sample["entropy"], y=sample["kl_freq"], text=texts, mode="markers", marker=marker, hovertemplate=HOVER
        )
        figure.add_trace(dots.update(showlegend=False))
    else:
        _say(figure, "no positions were kept")
    figure.update_xaxes(title="entropy, nats")
    figure.update_yaxes(title=f"{KL}, nats")
    return figure


def _figure_3b(table: NeuronTable) -> go.Figure:
    frame = table.to_pandas()
    floor = floor_of(frame["freq_mediated"])
    kl = frame["kl_freq_abs_delta"]
    x, y = on_log_axis(kl), frame["freq_mediated"].clip(lower=floor)
    figure = _scatter(table, x, y, "frequency", "entropy")
    figure.add_hline(table.rules.min_freq_mediated, line=_dash())
    for _, layer in kl.groupby(frame["layer"]):
        if (cut := layer.quantile(1 - table.rules.kl_top)) > 0:
            figure.add_vline(cut, line=_dash())
    figure.update_xaxes(title=f"mean |change of {KL}|, nats", **_log(kl))
    figure.update_yaxes(title="freq_mediated" + _floored(frame["freq_mediated"], floor))
    return figure


def _figure_4(rows: pd.DataFrame, seed: int) -> go.Figure:
    figure = _dressed(go.Figure())
    change = change_of_loss(rows)
    if len(rows) > MOST_POINTS:
        strongest = change.abs().nlargest(MOST_POINTS // 4).index
        sample = np.random.default_rng(seed).choice(
            rows.index.difference(strongest), MOST_POINTS - len(strongest), replace=False
        )
        keep = rows.index.isin(strongest) | rows.index.isin(sample)
        rows, change = rows[keep], change[keep]
    texts = [
        f"{_token(row.token)} → {_token(row.target)}<br>window {row.window}, position {row.position}<br>activation {number(row.activation)}"
        f"<br>loss {number(row.loss)}, ablated {number(row.loss_ablated)} nats<br>reciprocal rank {number(row.reciprocal_rank)}"
        for row in rows.itertuples()
    ]
    bar = {"title": "reciprocal<br>rank", "thickness": 10, "outlinewidth": 0}
    marker = {
        "size": 5,
        "opacity": 0.8,
        "color": rows["reciprocal_rank"].to_numpy(float),
        "colorscale": "Viridis",
        "cmin": 0,
        "cmax": 1,
    }
    places = {"x": rows["loss"].to_numpy(float), "y": change.to_numpy(float)}
    figure.add_trace(
        go.Scatter(**places, text=texts, mode="markers", marker=marker | {"colorbar": bar}, hovertemplate=HOVER)
    )
    figure.add_hline(0, line=_dash())
    figure.update_layout(showlegend=False, margin={"t": 24})
    figure.update_xaxes(title="loss, nats")
    figure.update_yaxes(title="change of loss when ablated, nats")
    return figure


def _boxes(table: NeuronTable, kind: Kind) -> go.Figure:
    figure = _dressed(go.Figure())
    rows = {name: row for row, name in enumerate(table.names)}
    four = boxes(table, kind)
    measured = pd.concat([values for _, _, values in four], keys=range(4))
    heights = on_log_axis(measured)
    for place, (group, effect, _) in enumerate(four):
        values = heights[heights.index.get_level_values(0) == place].droplevel(0)
        colour = COLOUR[kind] if place < 2 else NORMAL
        figure.add_trace(
            go.Box(
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
        )
    if measured.empty:
        _say(figure, "no neuron's effect can be compared")
    figure.update_yaxes(title="mean |change of loss|, nats", **_log(measured))
    return figure


def _scatter(table: NeuronTable, x: pd.Series, y: pd.Series, *kinds: Kind) -> go.Figure:
    """All neurons, and in front those of each kind; where none meets the first kind's rule, the nearest to it, hollow."""
    figure = _dressed(go.Figure())
    names = drawn(table)
    figure.add_trace(_points(table, x, y, names, "neurons"))
    if not (x.notna() & y.notna()).any():
        _say(figure, "no neuron has both figures")
    for kind in kinds:
        found = list(table.members(kind).index)
        near = list(table.nearest(kind).index) if kind == kinds[0] and not found else []
        if found or near:
            label = f"{kind} neuron{'s' * (len(found) > 1)}" if found else f"nearest to the {kind} rule"
            figure.add_trace(_points(table, x, y, found or near, label, kind, hollow=not found))
    return figure


def _points(
    table: NeuronTable,
    x: pd.Series,
    y: pd.Series,
    names: list[str],
    label: str,
    kind: Kind | None = None,
    hollow: bool = False,
) -> go.Scatter:
    rows = {name: row for row, name in enumerate(table.names)}
    marker: dict[str, Any] = {"color": NORMAL, "size": 5, "opacity": 0.65}
    if kind is not None:
        marker = {
            "color": COLOUR[kind],
            "size": 9,
            "symbol": SYMBOL[kind] + "-open" * hollow,
            "line": {"width": 1.5 * hollow},
        }
    return go.Scatter(
        x=x.loc[names].to_numpy(float),
        y=y.loc[names].to_numpy(float),
        customdata=[rows[name] for name in names],
        mode="markers",
        marker=marker,
        name=label,
        legendgroup=kind or "neurons",
        hovertemplate=HOVER,
    )


def _dressed(figure: go.Figure) -> go.Figure:
    # Colours of text and ground come from the page, which knows whether it is light or dark.
    line = {
        "gridcolor": "rgba(128,138,154,0.18)",
        "linecolor": QUIET,
        "showline": True,
        "zeroline": False,
        "automargin": True,
    }
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 12, "r": 12, "t": 56, "b": 12},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        hovermode="closest",
    )
    figure.update_xaxes(**line, exponentformat="power")
    figure.update_yaxes(**line, exponentformat="power")
    return figure


def _say(figure: go.Figure, words: str) -> None:
    figure.add_annotation(text=words, xref="paper", yref="paper", x=0.5, y=0.6, showarrow=False)


def _log(values: pd.Series) -> dict[str, Any]:
    positive = values[values > 0]
    if positive.empty:
        return {}
    # Plotly labels every digit of a decade; beyond a few decades that is clutter.
    return {"type": "log"} | ({"dtick": 1} if positive.max() / positive.min() > 30 else {})


def _dash() -> dict[str, Any]:
    return {"color": QUIET, "dash": "dash", "width": 1}


def _floored(mediated: pd.Series, floor: float) -> str:
    return f" (lower ones drawn at {floor:g})" if (mediated < floor).any() else ""


def _token(token: object) -> str:
    return f"“{escape(str(token))}”"

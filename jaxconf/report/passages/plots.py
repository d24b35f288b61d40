"""Figure 4 of the paper as interactive figures: a point for each position, one figure for each neuron."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from jaxconf.report.passages.passage import change_of_loss, neurons_to_draw
from jaxconf.report.plot_style import DASHED, HOVER, colour_bar, dressed, place
from jaxconf.report.shown import MOST_POINTS
from jaxconf.results.words import number


def token_plots(effects: pd.DataFrame, seed: int) -> dict[str, go.Figure]:
    """Name of a neuron → its figure 4, for each of `neurons_to_draw`.

    `effects`: the table of `jaxconf.per_token`. `seed`: draws the sample if there are more positions than MOST_POINTS.
    """
    return {neuron: _figure_4(effects[effects["neuron"] == neuron], seed) for neuron in neurons_to_draw(effects)}


def _figure_4(rows: pd.DataFrame, seed: int) -> go.Figure:
    figure = dressed(go.Figure())
    rows = _thinned(rows, seed)
    texts = [
        f"{place(row)}activation {number(row.activation)}<br>loss {number(row.loss)}, ablated "
        f"{number(row.loss_ablated)} nats<br>reciprocal rank {number(row.reciprocal_rank)}"
        for row in rows.itertuples()
    ]
    marker = {"size": 5, "opacity": 0.8, "color": rows["reciprocal_rank"].to_numpy(float), "colorscale": "Viridis"}
    marker |= {"cmin": 0, "cmax": 1, "colorbar": colour_bar("reciprocal<br>rank")}
    places = {"x": rows["loss"].to_numpy(float), "y": change_of_loss(rows).to_numpy(float)}
    figure.add_trace(go.Scatter(**places, text=texts, mode="markers", marker=marker, hovertemplate=HOVER))
    figure.add_hline(0, line=DASHED)
    figure.update_layout(showlegend=False, margin={"t": 24})
    figure.update_xaxes(title="loss, nats")
    figure.update_yaxes(title="change of loss when ablated, nats")
    return figure


def _thinned(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """At most MOST_POINTS of the rows, in their order: those with the largest effects, and a sample of the others."""
    if len(rows) <= MOST_POINTS:
        return rows
    strongest = change_of_loss(rows).abs().nlargest(MOST_POINTS // 4).index
    rest = rows.index.difference(strongest)
    sample = np.random.default_rng(seed).choice(rest, MOST_POINTS - len(strongest), replace=False)
    return rows[rows.index.isin(strongest) | rows.index.isin(sample)]

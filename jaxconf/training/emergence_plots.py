"""The interactive figures of a track's page (Plotly). Letters: S measured step, n neuron."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from jaxconf.report.plot_style import DASHED, dressed, short, step_places, step_ticks
from jaxconf.report.style import ENTROPY, FREQUENCY, NORMAL, QUIET, floor_of
from jaxconf.results.words import number
from jaxconf.training.curves import Panel, curves, marks
from jaxconf.training.emergence import Emergence
from jaxconf.training.events import followed_neurons
from jaxconf.training.findings import over_steps, rules_of, with_effects

HOVERED = ("rho", "ln_mediated", "entropy_abs_delta", "loss_abs_delta", "temperature_r2")
MOST_GREY = 200  # lines of neurons in a panel that have no colour
PANEL, GAP, TOP = 150, 52, 98  # heights in pixels: of a panel with the gap above it, of the gap, above all panels


def moving(e: Emergence) -> go.Figure:
    """rho against ln_mediated, a point for each neuron, as at the last step with effects; a frame for each such step.

    A frame is named after its step. A neuron is the same point in all frames. Its size grows with the logarithm of its
    entropy_abs_delta.
    """
    effects = with_effects(e)
    steps, names = effects.index[effects], _names(e)
    values = {column: over_steps(e, column).loc[steps, names] for column in HOVERED}
    values = {column: table for column, table in values.items() if table.notna().any(axis=None)}
    rho, mediated = over_steps(e, "rho").loc[steps, names], over_steps(e, "ln_mediated").loc[steps, names]
    floor, chance = floor_of(mediated.stack()), e.steps.set_index("step")["rho_chance"]
    shown, sizes = mediated.clip(lower=floor), _sizes(over_steps(e, "entropy_abs_delta").loc[steps, names])
    low, high = floor - 0.05, max(1.0, np.nanmax([*shown.max(), 0.0])) + 0.05
    kinds = {kind: over_steps(e, f"is_{kind}_neuron").loc[steps, names] for kind in ("entropy", "frequency")}

    def points(step: int) -> dict[str, Any]:
        entropy, frequency = (kinds[kind].loc[step].to_numpy() for kind in ("entropy", "frequency"))
        colour = np.where(entropy, ENTROPY, np.where(frequency, FREQUENCY, NORMAL))
        told = pd.DataFrame({column: table.loc[step].map(number) for column, table in values.items()})
        return {
            "x": short(rho.loc[step]),
            "y": short(shown.loc[step]),
            "customdata": told.to_numpy().tolist(),
            "marker": {"color": colour.tolist(), "size": sizes.loc[step].round(1).tolist()},
        }

    figure = dressed(go.Figure())
    lines = "".join(f"<br>{column} %{{customdata[{index}]}}" for index, column in enumerate(values))
    ring = np.isin(names, followed_neurons(e)[0])
    style = {"opacity": 0.75, "line": {"color": ENTROPY, "width": np.where(ring, 1.5, 0).tolist()}}
    now, at = points(steps[-1]), chance[steps[-1]]
    neurons = go.Scatter(mode="markers", ids=names, text=names, **now)
    figure.add_trace(neurons.update(marker=style, hovertemplate=f"<b>%{{text}}</b>{lines}<extra></extra>"))
    line = {"mode": "lines", "line": DASHED, "hoverinfo": "skip", "y": [low, high]}
    figure.add_trace(go.Scatter(x=[at, at], **line))
    figure.frames = [
        go.Frame(name=str(step), data=[points(step), {"x": [chance[step]] * 2}], traces=[0, 1]) for step in steps
    ]
    figure.add_hline(rules_of(e).min_ln_mediated, line=DASHED)
    figure.update_layout(showlegend=False, margin={"t": 24})
    below = f" (lower ones at {floor:g})" * bool((mediated < floor).any(axis=None))
    right = np.nanmax([*rho.max(), *chance[steps]])
    figure.update_xaxes(title="ρ, share of w<sub>out</sub> in the null space", range=[-0.02, 1.05 * right])
    figure.update_yaxes(title=f"ln_mediated{below}", range=[low, high])
    return figure


def _names(e: Emergence) -> list[str]:
    """The names of all neurons; those that ever meet a rule are last, so that they are drawn on top."""
    ever = pd.concat([over_steps(e, f"is_{kind}_neuron") for kind in ("frequency", "entropy")]).any()
    return [*ever.index[~ever], *ever.index[ever]]


def _sizes(changes: pd.DataFrame) -> pd.DataFrame:
    """The size in pixels of a point for each entropy_abs_delta, [S n]."""
    positive = np.log10(changes.where(changes > 0))
    low, high = positive.stack().quantile(0.05), positive.max(axis=None)
    return (4 + 14 * (positive - low) / max(high - low, 1e-9)).clip(4, 18).fillna(4)


def curve_height(e: Emergence) -> int:
    """The height of the figure `curve_plots`, in pixels."""
    return TOP + 50 + PANEL * len(curves(e))


def curve_plots(e: Emergence) -> go.Figure:
    """The panels of `curves`, one below the other, with a line at each event. The last shape marks the last step."""
    panels, place = curves(e), step_places(e.steps["step"])
    count = len(panels)
    spacing = GAP / (PANEL * count) if count > 1 else 0
    figure = dressed(make_subplots(rows=count, cols=1, shared_xaxes=True, vertical_spacing=spacing))
    for row, (heading, panel) in enumerate(panels.items(), 1):
        _add_panel(figure, panel, row, place)
        names = _coloured_names(panel)
        domain = {"xref": "x domain", "yref": f"y{row if row > 1 else ''} domain", "x": 0, "y": 1}
        title = {"xanchor": "left", "yanchor": "bottom", "align": "left", "showarrow": False, "font": {"size": 12}}
        figure.add_annotation(text=heading + names, **domain, **title)
    for index, (step, letters) in enumerate(marks(e).items()):
        _across(figure, place[int(step)], {"color": QUIET, "dash": "dot", "width": 1})
        # Letters of steps that are near each other would overlap at one height.
        top = {"xref": "x", "yref": "paper", "y": 1, "yshift": 32 + 14 * (index % 3), "yanchor": "bottom"}
        figure.add_annotation(text=letters, x=place[int(step)], showarrow=False, **top)
    _across(figure, max(place.values()), {"color": QUIET, "width": 3})
    figure.update_xaxes(**step_ticks(place))
    figure.update_xaxes(title="training step", row=count, col=1)
    figure.update_layout(showlegend=False, margin={"t": TOP}, height=curve_height(e))
    return figure


def _across(figure: go.Figure, x: float, line: dict[str, Any]) -> None:
    """Add a line across all panels."""
    figure.add_shape(type="line", xref="x", yref="paper", x0=x, x1=x, y0=0, y1=1, line=line)


def _add_panel(figure: go.Figure, panel: Panel, row: int, place: dict[int, float]) -> None:
    def add(name: str, values: pd.Series, colour: str, **style: Any) -> None:
        measured = values.dropna()
        hover = f"{name}, step %{{customdata:,}}: %{{y:.3g}}<extra></extra>"
        line = {"color": colour, "width": 1.6, "shape": "hv" if panel.axis == "count" else "linear"}
        at = {"x": measured.index.map(place), "y": short(measured), "customdata": measured.index}
        figure.add_trace(go.Scatter(line=line, hovertemplate=hover, name=name, **at).update(style), row=row, col=1)

    if panel.rest.shape[1]:
        shown = np.random.default_rng(0).permutation(panel.rest.shape[1])[:MOST_GREY]
        # One trace has all grey lines, with a gap after each, because a browser is slow to draw hundreds of traces.
        grey = panel.rest.iloc[:, np.sort(shown)].dropna(how="all")
        y = np.vstack([grey, np.full(grey.shape[1], np.nan)]).T.ravel()
        x = np.tile([*grey.index.map(place), np.nan], grey.shape[1])
        line = {"mode": "lines", "line": {"color": NORMAL, "width": 0.6}, "opacity": 0.5, "hoverinfo": "skip"}
        figure.add_trace(go.Scatter(x=short(x), y=short(y), **line), row=row, col=1)
    for name, colour in zip(panel.lines.columns, panel.colours, strict=True):
        add(name, panel.lines[name], colour, mode="lines+markers", marker={"size": 4})
    if panel.guide is not None:
        add("asked for", panel.guide, QUIET, mode="lines", line={"dash": "dash", "width": 1})
    if panel.axis == "log":
        figure.update_yaxes(type="log", dtick=1, row=row, col=1)


def _coloured_names(panel: Panel) -> str:
    """The names of a panel's lines in their colours, at most eight of them, in Plotly's markup."""
    if panel.lines.shape[1] < 2 and panel.rest.empty:
        return ""
    named = list(zip(panel.lines.columns, panel.colours, strict=True))[:8]
    more = " …" * (panel.lines.shape[1] > len(named))
    words = [f'<span style="color:{colour}">{name}</span>' for name, colour in named]
    return f'<br><span style="font-size:10px">{"  ".join(words)}{more}</span>'

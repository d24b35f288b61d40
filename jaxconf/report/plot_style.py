"""The look of the interactive figures (Plotly); `jaxconf.report.style` has that of the matplotlib figures."""

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from jaxconf.report.style import QUIET

HOVER = "%{text}<extra></extra>"
# By default Plotly writes digits other than powers of ten alone, 5 for 0.5, and every digit beyond a few decades.
LOG = {"type": "log", "nticks": 4, "tickformat": "~g"}
DASHED = {"color": QUIET, "dash": "dash", "width": 1}


def dressed(figure: go.Figure) -> go.Figure:
    """The figure with the common axes, margins and legend; the page sets the colours of text and background."""
    line = {"gridcolor": "rgba(128,138,154,0.18)", "linecolor": QUIET, "showline": True, "zeroline": False}
    line |= {"automargin": True, "exponentformat": "power"}
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 12, "r": 12, "t": 56, "b": 12},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        hovermode="closest",
    )
    figure.update_xaxes(**line)
    figure.update_yaxes(**line)
    return figure


def say(figure: go.Figure, words: str) -> None:
    """Writes `words` into a figure in which there is nothing to draw."""
    figure.add_annotation(text=words, xref="paper", yref="paper", x=0.5, y=0.6, showarrow=False)


def log_axis(values: pd.Series) -> dict[str, Any]:
    """The properties LOG of a logarithmic axis, if some of the values are positive."""
    return LOG if (values > 0).any() else {}


def short(values: pd.Series | np.ndarray) -> list[float | None]:
    """Four significant digits are as many as can be seen, and the page stays small."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]


def step_places(steps: pd.Series) -> dict[int, float]:
    """Training step → its place on an axis that is logarithmic but for step 0."""
    positive = steps[steps > 0]
    zero = np.log10(positive.min() if len(positive) else 1) - 0.5
    return {int(step): round(float(np.log10(step)), 4) if step > 0 else float(zero) for step in steps.unique()}


def step_ticks(places: dict[int, float]) -> dict[str, Any]:
    """The ticks of such an axis: at powers of ten between the steps, or else at the first and the last step, and at 0.

    Step 0 has a place, but no power of ten lies between it and the next step.
    """
    steps = sorted(step for step in places if step > 0)
    ends = {places[step]: f"{step:,}" for step in (steps[0], steps[-1])} if steps else {}
    powers = [power for power in range(19) if steps and steps[0] <= 10**power <= steps[-1]]
    at = {float(power): f"{10**power:,}" for power in powers} or ends
    if 0 in places:
        at = {places[0]: "0"} | at
    return {"tickvals": list(at), "ticktext": list(at.values())}


def colour_bar(title: str, powers: np.ndarray | None = None) -> dict[str, Any]:
    """A colour bar; `powers`: the powers of ten that it labels, if its colours stand for logarithms."""
    bar: dict[str, Any] = {"title": title, "thickness": 10, "outlinewidth": 0}
    if powers is not None:
        bar |= {"tickvals": powers.tolist(), "ticktext": [f"{10**power:g}" for power in powers]}
    return bar


def place(row: Any) -> str:
    """The first lines of a position's hover text: its token and target, its window, and its place in the window."""
    token, target = (escape(str(token)) for token in (row.token, row.target))
    return f"“{token}” → “{target}”<br>window {row.window}, position {row.position}<br>"

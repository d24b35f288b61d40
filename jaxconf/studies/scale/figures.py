"""Small multiples: the metrics of many analyses against the model's size, and against the training step (Plotly).

Each line says where it is from in its `meta`, by which the page filters; a line over steps has its values in every
metric there, between which the page changes.
"""

from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from jaxconf.report.plot_style import dressed, short, step_places, step_ticks
from jaxconf.report.style import HUES
from jaxconf.studies.scale.summary import METRICS, SAME

SMALL = {"l": 8, "r": 8, "t": 8, "b": 8}


def against_scale(of: pd.DataFrame) -> dict[str, go.Figure]:
    """Metric → a figure of it against the number of parameters, with a line for each revision, text and so on.

    Later steps are brighter. Empty unless the analyses are of several sizes.
    """
    sized = of.dropna(subset=["parameters"])
    if sized["parameters"].nunique() < 2:
        return {}
    steps = sorted(sized["step"].dropna().unique())
    shades = dict(zip(steps, sample_colorscale("Viridis", np.linspace(0.15, 0.85, max(2, len(steps)))), strict=False))
    figures = {}
    for metric in METRICS:
        figure = dressed(go.Figure())
        for (*same, revision), group in sized.groupby([*SAME[1:], "revision"], sort=False):
            where = dict(zip((*SAME[1:], "revision"), (*same, revision), strict=True))
            line = group.sort_values("parameters")
            colour = shades.get(line["step"].iloc[0], HUES[0])
            texts = line["model"].map(_short) + (f", {revision}" if revision else "")
            _add(figure, line["parameters"], line[metric], texts, colour, where)
        figure.update_xaxes(title="parameters", type="log", **_powers(sized["parameters"]))
        figures[metric] = figure.update_layout(showlegend=False, margin=SMALL)
    return figures


def against_steps(of: pd.DataFrame) -> dict[str, go.Figure]:
    """Model → a figure of the first metric against the training step, with a line for each text, ablation and layer.

    Only models that were analysed at several steps have one.
    """
    figures, colours, places = {}, line_colours(of), step_places(of["step"].dropna())
    for model, own in of.dropna(subset=["step"]).groupby("model", sort=False):
        if own["step"].nunique() < 2:
            continue
        figure = dressed(go.Figure())
        for same, group in own.groupby(list(SAME[1:]), sort=False):
            line = group.sort_values("step")
            where = {"model": model, **dict(zip(SAME[1:], same, strict=True))}
            texts = line["revision"] + "<br>" + ", ".join(filter(None, same))
            values = {metric: short(line[metric]) for metric in METRICS}
            x, first = line["step"].map(places), line[next(iter(METRICS))]
            _add(figure, x, first, texts, colours[same], where, values)
        figure.update_xaxes(title="training step", **step_ticks(places), range=_range(places))
        figures[str(model)] = figure.update_layout(showlegend=False, margin=SMALL)
    return figures


def line_colours(of: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """Text, ablation and layer → the colour of their lines over the steps."""
    different = of[list(SAME[1:])].drop_duplicates().itertuples(index=False, name=None)
    return dict(zip(different, cycle(HUES), strict=False))


def ranges(of: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Metric → the range of its axis, the same for all models."""
    found = {}
    for metric in METRICS:
        values = of[metric].dropna()
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        room = 0.06 * (high - low) or 0.5
        found[metric] = (low - room, high + room)
    return found


def _add(
    figure: go.Figure,
    x: pd.Series,
    y: pd.Series,
    texts: pd.Series,
    colour: str,
    where: dict[str, Any],
    values: dict[str, list[float | None]] | None = None,
) -> None:
    figure.add_trace(
        go.Scatter(
            x=short(x),
            y=short(y),
            text=texts,
            mode="lines+markers",
            line={"color": colour, "width": 1.6},
            marker={"size": 5},
            hovertemplate="%{text}<br>%{y:.3g}<extra></extra>",
            meta={"where": where, "values": values or {}},
        )
    )


def _range(places: dict[int, float]) -> list[float]:
    low, high = min(places.values()), max(places.values())
    room = 0.05 * (high - low) or 0.5
    return [low - room, high + room]


def _powers(sizes: pd.Series) -> dict[str, Any]:
    """Ticks of an axis of sizes: at powers of ten, or at the sizes themselves if fewer than two lie between them."""
    low, high = np.log10(sizes.min()), np.log10(sizes.max())
    at = [10.0**power for power in range(20) if low - 0.1 <= power <= high + 0.1]
    at = at if len(at) > 1 else [sizes.min(), sizes.max()]
    return {"tickvals": at, "ticktext": [_size(value) for value in at], "range": [low - 0.15, high + 0.15]}


def _size(count: float) -> str:
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return f"{count:.0f}"


def _short(model: str) -> str:
    return model.rpartition("/")[2]

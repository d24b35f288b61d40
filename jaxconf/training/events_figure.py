"""The figure of the events of a track. Letters: S measured step, n neuron."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.report.style import NORMAL, QUIET, canvas, log_axes, styled
from jaxconf.training.curves import Panel, about_neurons, curves, key, marks
from jaxconf.training.emergence import Emergence
from jaxconf.training.step_axes import step_axis, where, zero_log


@styled
def emergence_events(e: Emergence) -> Figure:
    """What happens over the steps, one panel above the other, with a line across them at each event."""
    panels, found = curves(e), marks(e)
    note = "\n".join(
        [*(key(e) or ["none of the events happened"]), f"{about_neurons(e)}; dashed: what an event asks for"]
    )
    rows, count = -(-len(panels) // 2), len(panels)
    size = 9.5, 0.9 + 0.16 * note.count("\n") + 1.75 * rows
    figure, axes_of = canvas(where(e), "Order of events", note, rows, 2, size, count=count)
    # Down the first column and then the second, so that what is compared stands in one column.
    places = [2 * (index % rows) + index // rows for index in range(count)]
    for place, (heading, panel) in zip(places, panels.items(), strict=True):
        axes = axes_of[place]
        _draw(axes, panel)
        top = place < 2
        axes.set_title(heading, fontsize=9, loc="left", parse_math=False, pad=30 if top else 6)
        step_axis(axes, e)
        if place + 2 < count:
            axes.set_xlabel("")
        for index, (step, letters) in enumerate(found.items()):
            axes.axvline(step, color=QUIET, linestyle=":", linewidth=0.9, zorder=0)
            if top:
                # Letters of steps that are near each other would overlap at one height.
                at: dict[str, Any] = {"xytext": (0, 2 + 8 * (index % 3)), "textcoords": "offset points", "ha": "center"}
                axes.annotate(letters, (step, 1), xycoords=axes.get_xaxis_transform(), fontsize=7, **at)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    how: dict[str, Any] = {"linewidth": 1.3, "marker": ".", "markersize": 3.5}
    for name in panel.rest.columns:
        axes.plot(panel.rest[name].dropna(), color=NORMAL, linewidth=0.4, alpha=0.4)
    for name, colour in zip(panel.lines.columns, panel.colours, strict=True):
        values = panel.lines[name].dropna()
        style = {"drawstyle": "steps-post"} if panel.axis == "count" else {}
        axes.plot(values, color=colour, label=name, **how | style)
    if panel.guide is not None:
        axes.plot(panel.guide, color=QUIET, linestyle="--", linewidth=0.9)
    if panel.axis == "log":
        log_axes(axes, y=pd.concat([panel.rest, panel.lines], axis=1).stack())
    elif panel.axis == "count":
        zero_log(axes, "y", panel.lines.to_numpy())
    if panel.lines.shape[1] > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=7)

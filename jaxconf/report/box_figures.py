"""The figures that compare the total effect on the loss with the effect while something is frozen, as boxes.

As in the paper, there are boxes for each neuron, of its effects at single positions; or, as an option, of the means of
several neurons.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.report.shown import COLOUR, FROZEN, MOST_BOXED, boxes, edge, shown, title, token_boxes
from jaxconf.report.style import INK, NORMAL, canvas, log_axes, on_log_axis, say, styled
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Kind


@styled
def token_figure(table: NeuronTable, kind: Kind) -> Figure:
    """|Change of loss| at single positions, total and frozen (FROZEN), for each neuron of a kind and for others.

    The means of neurons instead, if the table has no effects at single positions.
    """
    groups = token_boxes(table, kind)
    if not groups:
        return mean_figure(table, kind)
    every, first = shown(table, kind, mark="shown")
    first += f", the first {MOST_BOXED} shown" if len(every) > MOST_BOXED else ""
    note = f"{first}\nin each pair: total effect (left), {FROZEN[kind][1]} (right)"
    figure, (axes,) = canvas(title(table), "Loss at single positions", note, size=(6, 4))
    measured = pd.concat([values for _, *pair in groups for values in pair])
    least = on_log_axis(measured).min()
    strength = 0.75 if table.frame[f"is_{kind}_neuron"].any() else 0.3
    for at, (name, *pair) in enumerate(groups):
        colour = COLOUR[kind] if name != groups[-1][0] else NORMAL
        for side, (values, alpha) in enumerate(zip(pair, (strength, strength / 3), strict=True)):
            _box(axes, values.clip(lower=least).to_numpy(float), at + 0.4 * side - 0.2, 0.34, (colour, alpha))
    log_axes(axes, y=measured)
    axes.set_xticks(range(len(groups)), [name.replace(" ", "\n") for name, *_ in groups], fontsize=8)
    axes.set_ylabel("|change of loss|, nats" + edge(measured, "lower"))
    return figure


def _box(axes: Axes, values: np.ndarray, place: float, width: float, face: tuple[str, float]) -> None:
    """A box from the 25% to the 75% quantile, with whiskers from the 5% to the 95% quantile."""
    axes.boxplot(
        values,
        positions=[place],
        widths=width,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": face, "edgecolor": INK},
        medianprops={"color": INK},
        manage_ticks=False,
    )


@styled
def mean_figure(table: NeuronTable, kind: Kind) -> Figure:
    """Mean |change of loss|, total and frozen (FROZEN), of the neurons of a kind and of others."""
    figure, (axes,) = canvas(title(table), f"Loss, {FROZEN[kind][1]}", shown(table, kind, mark="shown")[1])
    four = boxes(table, kind)
    places = (0, 1, 3, 4)
    values = on_log_axis(pd.concat([column for _, _, column in four], keys=places))
    strong, weak = (0.75, 0.3) if table.frame[f"is_{kind}_neuron"].any() else (0.3, 0.1)
    faces = [(COLOUR[kind], strong), (COLOUR[kind], weak), (NORMAL, 0.75), (NORMAL, 0.3)]
    jitter = np.random.default_rng(0)
    for place, face in zip(places, faces, strict=True):
        column = values[values.index.get_level_values(0) == place].to_numpy()
        _box(axes, column, place, 0.7, face)
        axes.scatter(
            place + jitter.uniform(-0.18, 0.18, len(column)), column, s=8, color=INK, alpha=0.6, linewidth=0, zorder=3
        )
    if not len(values):
        say(axes, "no neuron's effect can be compared")
    measured = pd.concat([column for _, _, column in four])
    log_axes(axes, y=measured)
    axes.set_xticks(places, [effect.replace(" ", "\n") for _, effect, _ in four])
    for middle, group in ((0.5, four[0][0]), (3.5, four[2][0])):
        axes.text(middle, -0.16, group, transform=axes.get_xaxis_transform(), ha="center", va="top")
    axes.set_xlim(-0.7, 4.7)
    axes.set_ylabel("mean |change of loss|, nats" + edge(measured, "lower"))
    return figure

"""The look of all matplotlib figures of the project: colours, canvas, axes, and how figures are saved as files.

A function that draws a figure takes a result, returns a matplotlib Figure and is decorated with `styled`. No display is
needed.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from jaxconf.models.files import replacing
from jaxconf.results.words import model_title

NORMAL, ENTROPY, FREQUENCY = "#8fa3bf", "#d1343f", "#2a9d5c"
INK, QUIET = "#222b38", "#657083"
# Colours of lines that stand for neurons, distinguishable on light and on dark backgrounds. Red and green are left out,
# because they mark entropy and frequency neurons.
HUES = ("#4f83e0", "#e08a2e", "#a866d4", "#1fa6b0", "#8c8f2c", "#d265a6")

DOTS = 160  # of a picture, per inch
BESIDE = 7  # how far above or below its point a name may be without a line to it, in points

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


class Picture(Figure):
    """A matplotlib Figure that a notebook shows by itself.

    Of plain ones it shows those of pyplot, which is not used here.
    """

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png", dpi=DOTS)
        return picture.getvalue()


styled = mpl.rc_context(STYLE)
"""Decorates a function that draws a figure, so that it draws in STYLE."""


def canvas(
    model: str,
    subject: str,
    note: str,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (5, 4),
    *,
    count: int | None = None,
    **grid: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure with a heading, and its panels in reading order.

    The heading is `subject` and `model` (see `model_name`), with the lines of `note` below. `size`: width and height in
    inches. `count`: the number of panels, if that is less than `rows` times `columns`. `grid`: further arguments of
    `Figure.subplots`, such as sharex or width_ratios.
    """
    figure = Picture(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, **grid).ravel())
    for spare in panels[count:] if count is not None else ():
        spare.remove()
    # Mathtext is off, because a model's name may hold a dollar sign.
    figure.suptitle(f"{subject}: {model}\n{note}", fontsize=9, x=0.02, ha="left", parse_math=False)
    return figure, panels[:count]


def grid_of(count: int, most: int) -> tuple[int, int]:
    """Rows and columns for `count` panels, with at most `most` panels in a row."""
    columns = min(count, most)
    return -(-count // columns), columns


def save_figures(figures: Mapping[str, Callable[[Any], Figure]], subject: Any, folder: str | Path) -> list[Path]:
    """Draws the result `subject` with each function of `figures` (file name → function) into a PNG file in `folder`.

    Returns the paths of the files. Each file is written whole or not at all, with DOTS dots per inch.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for path, draw in zip(paths, figures.values(), strict=True):
        with replacing(path) as temporary:
            draw(subject).savefig(temporary, format="png", dpi=DOTS)
    return paths


def model_name(facts: Mapping[str, Any]) -> str:
    """The name of the model in `facts`, cut to the length of a heading."""
    return short(model_title(facts))


def short(name: str, most: int = 36) -> str:
    """The name; if it is longer than `most` characters, an ellipsis and its end."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def log_axes(axes: Axes, x: pd.Series | None = None, y: pd.Series | None = None) -> None:
    """Makes an axis logarithmic, with labelled ticks, if its values are given and some are positive."""
    for values, scale, axis in ((x, axes.set_xscale, axes.xaxis), (y, axes.set_yscale, axes.yaxis)):
        positive = pd.Series(dtype=float) if values is None else values[values > 0]
        if len(positive):
            scale("log")
            log_ticks(axis, positive)


def log_ticks(axis: Axis, positive: pd.Series) -> None:
    """Labels the ticks of a logarithmic axis, which shows `positive`, in plain digits if its range is short."""
    # On an axis this short, powers of ten alone would give too few labels, and all digits too many.
    if 4 < positive.max() / positive.min() < 100:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def on_log_axis(values: pd.Series) -> pd.Series:
    """The values as a log axis can draw them: values of 0 or less become half of the least positive one; NaN stays."""
    positive = values[values > 0]
    edge = positive.min() / 2 if len(positive) else 0.0
    return values.astype(float).where((values > 0) | values.isna(), edge)


def floor_of(mediated: pd.Series) -> float:
    """The least mediated share that figures show; they draw lower ones at this value.

    Tiny effects can have shares far below 0, which would leave no room for the others.
    """
    low = mediated.quantile(0.05)
    return -1.0 if np.isnan(low) else max(-1.0, round(min(low, 0.0) - 0.1, 1))


def guide(axes: Axes, *, x: float | None = None, y: float | None = None, width: float = 0.9, line: str = "--") -> None:
    """Draws a grey line across the panel at `x` or at `y`: a threshold, a chance level, or zero."""
    for value, draw in ((x, axes.axvline), (y, axes.axhline)):
        if value is not None:
            draw(value, color=QUIET, linestyle=line, linewidth=width)


def say(axes: Axes, words: str) -> None:
    """Writes `words` into a panel in which there is nothing to draw."""
    axes.text(0.5, 0.6, words, transform=axes.transAxes, ha="center", color=QUIET)


def say_if_empty(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Writes into a scatter plot of neurons that it is empty, if no neuron has both an `x` and a `y`."""
    if not (x.notna() & y.notna()).any():
        say(axes, "no neuron has both values")


def label_points(figure: Figure, axes: Axes, x: pd.Series, y: pd.Series, names: list[str], colour: str) -> None:
    """Labels up to eight points with their names, if possible so that no label covers another label, a point or a bar.

    `x` and `y` are indexed by name.
    """
    names = [name for name in names if np.isfinite(x[name]) and np.isfinite(y[name])][:8]
    if not names:
        return
    leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
    # The points have no positions in pixels before the layout has run.
    figure.draw_without_rendering()
    point = figure.dpi / 72
    places = axes.transData.transform(np.column_stack([x[names], y[names]])) / point
    panel = Bbox(axes.bbox.get_points() / point)
    taken = [Bbox.from_bounds(px - 3, py - 3, 6, 6) for px, py in places]
    for lines in axes.collections:
        if isinstance(lines, LineCollection):  # the bars of intervals
            ends = [axes.transData.transform(segment) / point for segment in lines.get_segments()]
            taken += [Bbox([segment.min(axis=0) - 0.5, segment.max(axis=0) + 0.5]) for segment in ends if len(segment)]
    for name, place in zip(names, places, strict=True):
        offset, box = _room(place, 4.9 * len(name), 9, panel, taken)
        taken.append(box)
        label = axes.annotate(
            name,
            (x[name], y[name]),
            xytext=offset,
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
            # Beside its point, a name needs no line to it, which would look like a minus sign.
            arrowprops=None if abs(offset[1]) <= BESIDE else leader,
        )
        label.set_in_layout(False)
        label.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _room(
    place: np.ndarray, width: float, height: float, panel: Bbox, taken: list[Bbox]
) -> tuple[tuple[float, float], Bbox]:
    """Where a label of this size fits best beside a point: its offset from the point, and its box.

    All lengths are in points (1/72 inch).
    """
    px, py = place
    offsets = [
        (sign * reach - width * (sign < 0), rise)
        for reach, rises in ((5, (0, BESIDE, -BESIDE)), (12, (14, -14)), (20, (22, -22, 30, -30)))
        for rise in rises
        for sign in (1, -1)
    ]
    inside = [
        (dx, dy) for dx, dy in offsets if panel.x0 <= px + dx <= panel.x1 - width and panel.y0 <= py + dy <= panel.y1
    ]
    offsets = inside or offsets
    boxes = [Bbox.from_bounds(px + dx, py + dy - height / 2, width, height) for dx, dy in offsets]
    best = min(range(len(boxes)), key=lambda i: boxes[i].count_overlaps(taken))
    return offsets[best], boxes[best]

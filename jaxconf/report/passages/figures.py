"""Figure 4 of the paper as PNG files: a point for each position, and passages in which neurons prevent large losses."""

import functools
import math
import textwrap
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxconf.report.passages.passage import Passage, change_of_loss, neurons_to_draw, passages, scales
from jaxconf.report.style import HUES, INK, NORMAL, canvas, grid_of, guide, model_name, save_figures, styled
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.words import counted, noun_of, number

NEGATIVE, POSITIVE, _, FALL, _, RISE = HUES

# Sizes in points. The width of a mono-spaced glyph of DejaVu is 0.602 of its size.
MONO, MARGIN, BAR, CHIP, GAP = 7.5, 14.0, 26.0, 10.0, 4.0
GLYPH = 0.602 * MONO
COLUMNS = 116  # glyphs in a line of a passage
WORDS = 128  # characters of the proportional font that fit into the same width


@styled
def figure_4(table: NeuronTable, effects: pd.DataFrame) -> Figure:
    """How ablation changes the loss at each position, against the loss; the colour is the target's reciprocal rank."""
    neurons = neurons_to_draw(effects)
    rows, columns = grid_of(len(neurons), 3)
    figure, panels = canvas(
        model_name(table.facts),
        "Loss, token by token",
        _how_many(effects, neurons),
        rows,
        columns,
        (1 + 4 * columns, 0.5 + 3.5 * rows),
        count=len(neurons),
    )
    for axes, neuron in zip(panels, neurons, strict=True):
        here = effects[effects["neuron"] == neuron]
        guide(axes, y=0)
        colours = {"c": here["reciprocal_rank"], "cmap": "viridis", "vmin": 0, "vmax": 1}
        points = axes.scatter(here["loss"], change_of_loss(here), s=6, **colours, linewidth=0, alpha=0.7)
        axes.set_title(neuron, fontsize=9)
        axes.set_xlabel("loss, nats")
        axes.set_ylabel("change of loss when ablated, nats")
    figure.colorbar(points, ax=panels, label="reciprocal rank of the target", aspect=30, pad=0.02)
    return figure


@styled
def figure_4_passages(table: NeuronTable, effects: pd.DataFrame) -> Figure:
    """The passages in which neurons prevent the largest spikes of the loss: activations as colours, losses as bars."""
    neurons = neurons_to_draw(effects)
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    below = _write(axes, MARGIN, f"Where ablation raises the loss most: {model_name(table.facts)}", size=9)
    below = _write(axes, below, f"{_how_many(effects, neurons)}; outlined: the token whose loss rises most", size=9)
    below = _legend(axes, below + 4)
    for neuron in neurons:
        told = passages(effects, neuron)
        if not told:
            below = _write(axes, below + 10, f"Ablating {neuron} raises the loss nowhere.", weight="bold")
            continue
        activation, loss = full = scales(told)
        scale = f"full colour is an activation of ±{number(activation)}, the highest bar a loss of {number(loss)} nats"
        below = _write(axes, below + 10, f"{neuron}: {scale}", weight="bold")
        for passage in told:
            below = _write(axes, below + 5, passage.words())
            below = _draw(axes, below + 3, passage, full)
    width, height = 2 * MARGIN + COLUMNS * GLYPH, below + MARGIN
    figure.set_size_inches(width / 72, height / 72)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def save_token_figures(table: NeuronTable, effects: pd.DataFrame, folder: Path) -> list[Path]:
    """Writes figure_4.png and figure_4_passages.png into `folder`, each whole or not at all, and returns the paths."""
    figures = {draw.__name__: functools.partial(draw, effects=effects) for draw in (figure_4, figure_4_passages)}
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes here; the page shows them in the reader's fonts.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        return save_figures(figures, table, folder)


def _how_many(effects: pd.DataFrame, neurons: list[str]) -> str:
    every = effects["neuron"].nunique()
    positions = int((effects["neuron"] == neurons[0]).sum())
    noun = noun_of(neurons[0])
    which = f"the first {len(neurons)} of {every} {noun}s" if len(neurons) < every else counted(every, noun)
    return f"{which}; {counted(positions, 'kept position')}"


def _legend(axes: Axes, top: float) -> float:
    """Writes what the colours mean, and returns the y below it."""
    left = MARGIN
    samples = {
        "activation above 0": POSITIVE,
        "below 0": NEGATIVE,
        "loss of the token": NORMAL,
        "what ablation adds": RISE,
        "or takes away": FALL,
    }
    for words, colour in samples.items():
        _box(axes, left, top + 1, 8, 8, colour)
        axes.text(left + 11, top, words, va="top", fontsize=MONO)
        left += 22 + len(words) * GLYPH
    return top + 12


def _write(axes: Axes, top: float, words: str, size: float = MONO, weight: str = "normal") -> float:
    """Writes wrapped text, and returns the y below it."""
    for line in textwrap.wrap(words, WORDS):
        axes.text(MARGIN, top, line, va="top", fontsize=size, weight=weight, parse_math=False)
        top += 1.35 * size
    return top


def _draw(axes: Axes, top: float, passage: Passage, full: tuple[float, float]) -> float:
    """Draws a passage as lines of text, and returns the y below it. `full`: the result of `scales`."""
    line, column, height = 0, 0, BAR + CHIP + GAP
    for token in passage.tokens.itertuples():
        cells = max(_cells(token.text), 1)
        if column + cells > COLUMNS:
            line, column = line + 1, 0
        left, base, width = MARGIN + column * GLYPH, top + line * height + BAR, cells * GLYPH
        column += cells
        _draw_token(axes, token, left, base, width, full)
        if token.Index == passage.at:
            outline = Rectangle((left, base), width, CHIP, fill=False, edgecolor=INK, linewidth=0.9, zorder=3)
            axes.add_patch(outline)
    return top + (line + 1) * height


def _draw_token(axes: Axes, token: Any, left: float, base: float, width: float, full: tuple[float, float]) -> None:
    """Draws a token's text below `base` on the colour of its activation, and its loss as a bar above."""
    if not math.isnan(token.loss):
        before, after = BAR * token.loss / full[1], BAR * token.loss_ablated / full[1]
        low, high = sorted((before, after))
        _box(axes, left + 0.3, base - low, width - 0.6, low, NORMAL, 0.7)
        _box(axes, left + 0.3, base - high, width - 0.6, high - low, RISE if after > before else FALL)
    if not math.isnan(token.activation):
        colour = POSITIVE if token.activation > 0 else NEGATIVE
        _box(axes, left, base, width, CHIP, colour, 0.85 * abs(token.activation) / full[0])
    fonts = ["DejaVu Sans Mono", "DejaVu Sans"]
    axes.text(left, base + 1.2, token.text, va="top", fontsize=MONO, family=fonts, parse_math=False)


def _box(axes: Axes, x: float, y: float, width: float, height: float, colour: str, alpha: float | None = None) -> None:
    axes.add_patch(Rectangle((x, y), width, height, color=colour, alpha=alpha, linewidth=0))


def _cells(text: str) -> int:
    """How many mono-spaced glyphs wide a text is; a Chinese, Japanese or Korean character counts as two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)

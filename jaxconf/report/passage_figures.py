"""Figure 4 of the paper for the neurons of `--per-token`: a point per position, and the text where each neuron prevents the largest losses."""

import functools
import math
import textwrap
import unicodedata
import warnings
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxconf.report.passages import Passage, change_of_loss, neurons_to_draw, passages, scales
from jaxconf.report.style import HUES, INK, NORMAL, canvas, grid_of, guide, model_name, save_figures, styled
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.words import number

NEGATIVE, POSITIVE, _, FALL, _, RISE = HUES

# Sizes in points. A mono-spaced glyph of DejaVu is 0.602 of its size wide.
MONO, MARGIN, COLUMNS, BAR = 7.5, 14.0, 116, 26.0
GLYPH = 0.602 * MONO
WORDS = 128  # characters of the proportional font that take no more room than COLUMNS


@styled
def figure_4(table: NeuronTable, effects: pd.DataFrame) -> Figure:
    """Per position, the change of the loss when a neuron is ablated against the loss before; colour: the target's reciprocal rank."""
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
    """The passages in which each neuron prevents the largest spikes of the loss: its activation behind the text, losses as bars above."""
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
        heading = f"{neuron}: full colour is an activation of ±{number(activation)}, the highest bar a loss of {number(loss)} nats"
        below = _write(axes, below + 10, heading, weight="bold")
        for passage in told:
            below = _write(axes, below + 5, passage.words())
            below = _draw(axes, below + 3, passage, full)
    width, height = 2 * MARGIN + COLUMNS * GLYPH, below + MARGIN
    figure.set_size_inches(width / 72, height / 72)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def save_story_figures(table: NeuronTable, effects: pd.DataFrame, folder: Path) -> list[Path]:
    """Writes figure_4.png and figure_4_passages.png into `folder`, each whole or not at all. `effects`: as of `jaxconf.per_token`."""
    figures = {draw.__name__: functools.partial(draw, effects=effects) for draw in (figure_4, figure_4_passages)}
    with warnings.catch_warnings():
        # Scripts that the font lacks are drawn as boxes; the report, in the reader's own fonts, shows them.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        return save_figures(figures, table, folder)


def _how_many(effects: pd.DataFrame, neurons: list[str]) -> str:
    every = effects["neuron"].nunique()
    positions = int((effects["neuron"] == neurons[0]).sum())
    which = (
        f"the first {len(neurons)} of {every} neurons" if len(neurons) < every else f"{every} neuron{'s' * (every > 1)}"
    )
    return f"{which}; {positions:,} kept position{'s' * (positions != 1)}"


def _legend(axes: Axes, top: float) -> float:
    """What the colours mean, and the y below it."""
    left = MARGIN
    samples = {
        "activation above 0": POSITIVE,
        "below 0": NEGATIVE,
        "loss of the token": NORMAL,
        "what ablation adds": RISE,
        "or takes away": FALL,
    }
    for words, colour in samples.items():
        axes.add_patch(Rectangle((left, top + 1), 8, 8, color=colour, linewidth=0))
        axes.text(left + 11, top, words, va="top", fontsize=MONO)
        left += 22 + len(words) * GLYPH
    return top + 12


def _write(axes: Axes, top: float, words: str, size: float = MONO, weight: str = "normal") -> float:
    """Wrapped text, and the y below it."""
    for line in textwrap.wrap(words, WORDS):
        axes.text(MARGIN, top, line, va="top", fontsize=size, weight=weight, parse_math=False)
        top += 1.35 * size
    return top


def _draw(axes: Axes, top: float, passage: Passage, full: tuple[float, float]) -> float:
    """A passage as lines of text, and the y below it. `full`: the activation and the loss that are drawn in full."""
    line, column = 0, 0
    for token in passage.tokens.itertuples():
        cells = max(_cells(token.text), 1)
        if column + cells > COLUMNS:
            line, column = line + 1, 0
        left, base, width = MARGIN + column * GLYPH, top + line * (BAR + 14) + BAR, cells * GLYPH
        column += cells
        if not math.isnan(token.loss):
            before, after = BAR * token.loss / full[1], BAR * token.loss_ablated / full[1]
            low, high = sorted((before, after))
            axes.add_patch(Rectangle((left + 0.3, base - low), width - 0.6, low, color=NORMAL, alpha=0.7, linewidth=0))
            change = RISE if after > before else FALL
            axes.add_patch(Rectangle((left + 0.3, base - high), width - 0.6, high - low, color=change, linewidth=0))
        if not math.isnan(token.activation):
            colour = POSITIVE if token.activation > 0 else NEGATIVE
            axes.add_patch(
                Rectangle(
                    (left, base), width, 10, color=colour, alpha=0.85 * abs(token.activation) / full[0], linewidth=0
                )
            )
        if token.Index == passage.at:
            axes.add_patch(Rectangle((left, base), width, 10, fill=False, edgecolor=INK, linewidth=0.9, zorder=3))
        fonts = ["DejaVu Sans Mono", "DejaVu Sans"]
        axes.text(left, base + 1.2, token.text, va="top", fontsize=MONO, family=fonts, parse_math=False)
    return top + (line + 1) * (BAR + 14)


def _cells(text: str) -> int:
    """How many mono-spaced glyphs of room a text takes: those of Chinese, Japanese and Korean are two wide."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)

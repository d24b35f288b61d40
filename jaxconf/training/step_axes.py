"""What the figures of a track share: the axis of steps, its heading, and lines over the steps."""

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

from jaxconf.report.style import model_name
from jaxconf.training.emergence import Emergence

# Neurons that never meet a criterion are drawn at this multiple of the last step.
NEVER = 4


def where(e: Emergence) -> str:
    """The model and the layer, for a heading."""
    return f"{model_name(e.facts)}, layer {e.facts['layer']}"


def draw_lines(axes: Axes, e: Emergence, values: Any, colour: str, **style: Any) -> None:
    """Draw values [S] or [S n] over the steps."""
    # One measured step makes no line, so it gets a marker.
    axes.plot(e.steps["step"], np.asarray(values), color=colour, marker="." if len(e.steps) == 1 else "", **style)


def step_axis(axes: Axes, e: Emergence) -> None:
    """Make the x axis that of the steps, logarithmic but for step 0."""
    zero_log(axes, "x", e.steps["step"].to_numpy())
    axes.set_xlabel("training step")


def zero_log(axes: Axes, along: Literal["x", "y"], values: np.ndarray, never: str = "") -> None:
    """Make a log axis for whole numbers that also shows 0, and at its end the label `never`, if given.

    The axis is linear from 0 to the least positive value.
    """
    positive = values[values > 0]
    least, most = (positive.min(), positive.max()) if len(positive) else (1, 1)
    low = -0.3 * least if (values <= 0).any() else least / 1.2
    ticks = [place * 10**power for power in range(15) for place in (1, 2, 5) if least <= place * 10**power <= most]
    # Only powers of ten are labelled if there are too many of these.
    ticks = [tick for tick in ticks if len(ticks) <= 6 or str(tick).startswith("1")] or [least]
    ticks = [0, *ticks] if low < 0 else ticks
    axis = {"x": axes.xaxis, "y": axes.yaxis}[along]
    getattr(axes, f"set_{along}scale")("symlog", linthresh=least, linscale=0.5)
    axis.set_minor_locator(NullLocator())
    labels = [EngFormatter(sep="")(tick) for tick in ticks]
    axis.set_ticks([*ticks, NEVER * most] if never else ticks, [*labels, never] if never else labels)
    getattr(axes, f"set_{along}lim")(low, most * (2 * NEVER if never else 1.2))

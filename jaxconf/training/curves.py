"""What a track shows over its steps, panel by panel, for the figure and the page alike.

Letters: S measured step, n neuron, L level of noise.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_hex

from jaxconf.report.style import ENTROPY, FREQUENCY, HUES, floor_of
from jaxconf.results.words import count_of
from jaxconf.training.emergence import Emergence
from jaxconf.training.events import (
    LEARNT,
    OPEN,
    SEPARATED,
    WORDS,
    by_level,
    events,
    followed_neurons,
    in_order,
    separation,
    spectrum_gap,
)
from jaxconf.training.findings import above_chance, over_steps, rules_of, with_effects


@dataclass(frozen=True)
class Panel:
    """Curves over the steps that share a vertical axis.

    `lines`: a row for each step that has a value, a column for each named line. `colours`: of the lines. `rest`: the
    grey lines of the other neurons, [S n], which the legend does not name. `guide`: what an event asks for at each
    step, [S]. `axis`: "linear", "log", or "count" for whole numbers, 0 among them, on a log axis.
    """

    lines: pd.DataFrame
    colours: list[str]
    rest: pd.DataFrame = field(default_factory=pd.DataFrame)
    guide: pd.Series | None = None
    axis: str = "linear"

    @property
    def empty(self) -> bool:
        return not (self.lines.notna().any(axis=None) or self.rest.notna().any(axis=None))


def level_colours(noise: np.ndarray) -> list[str]:
    """A colour for each level [L], from cold to warm with ε; all can be seen on light and on dark backgrounds."""
    scale = LinearSegmentedColormap.from_list("levels", [HUES[0], HUES[2], HUES[5], HUES[1]])
    return [to_hex(scale(place)) for place in (noise - noise.min()) / (np.ptp(noise) or 1.0)]


def curves(e: Emergence) -> dict[str, Panel]:
    """Heading → panel: of the predictions, the unembedding, and the neurons. Panels without values are left out."""
    panels = {**_of_predictions(e), **_of_weights(e), **_of_neurons(e)}
    return {heading: panel for heading, panel in panels.items() if not panel.empty}


def _of_predictions(e: Emergence) -> dict[str, Panel]:
    of = by_level(e)
    if of is None:
        accuracy = e.steps.set_index("step").get("accuracy", pd.Series(dtype=float))
        return {"accuracy": Panel(accuracy.to_frame("all positions"), [HUES[0]])}
    names = [f"{noise:.3g}" for noise in of.noise]
    share = separation(of).to_frame("range")
    return {
        "accuracy by level of noise ε": Panel(
            of.accuracy.set_axis(names, axis=1), level_colours(of.noise), guide=_at_all(e, LEARNT * (1 - of.noise[0]))
        ),
        "range of the entropy over the levels; best: 1": Panel(share, [HUES[0]], guide=_at_all(e, SEPARATED)),
    }


def _of_weights(e: Emergence) -> dict[str, Panel]:
    gap, effects = spectrum_gap(e), with_effects(e)
    counts = {"ρ above chance": above_chance(e).sum(axis=1)}
    for kind in ("entropy", "frequency") if effects.any() else ():
        counts[f"{kind} rule"] = over_steps(e, f"is_{kind}_neuron").sum(axis=1).where(effects)
    return {
        "smallest singular value / median": Panel(
            gap.to_frame("ratio"), [HUES[0]], guide=_at_all(e, OPEN * gap.iloc[0])
        ),
        "number of neurons": Panel(pd.DataFrame(counts), [HUES[0], ENTROPY, FREQUENCY][: len(counts)], axis="count"),
    }


def _of_neurons(e: Emergence) -> dict[str, Panel]:
    chosen, _ = followed_neurons(e)
    named = chosen[: len(HUES)]
    # Entropy neurons beyond the colours are red.
    colours = [*HUES[: len(named)], *[ENTROPY] * (len(chosen) - len(named))]

    def panel(column: str, **how: Any) -> Panel:
        values = over_steps(e, column)
        if column == "ln_mediated":
            values = values.clip(lower=floor_of(values.stack()))
        return Panel(values[chosen], colours, values.drop(columns=chosen), **how)

    return {
        "ρ, share of w_out in the null space": panel("rho", guide=e.steps.set_index("step")["rho_chance"]),
        "ln_mediated": panel("ln_mediated", guide=_at_all(e, rules_of(e).min_ln_mediated)),
        "mean |change of entropy|, nats": panel("entropy_abs_delta", axis="log"),
        "temperature_r2": panel("temperature_r2"),
    }


def _at_all(e: Emergence, value: float) -> pd.Series:
    return pd.Series(value, e.steps["step"])


def marks(e: Emergence) -> dict[float, str]:
    """Step → the letters of the events that happened there, such as "b–d"; the events have letters in their order."""
    steps = in_order(events(e))["step"]
    letters = pd.Series(list("abcdefg")[: len(steps)], steps.index)
    ends = letters.groupby(steps).agg(["first", "last"])
    return {step: first if first == last else f"{first}–{last}" for step, first, last in ends.itertuples()}


def key(e: Emergence) -> list[str]:
    """The events in order, a line each, with the letters of `marks`."""
    happened = in_order(events(e))["step"]
    return [
        f"{letter}  step {step:,.0f}: {WORDS[name]}"
        for letter, (name, step) in zip("abcdefg", happened.items(), strict=False)
    ]


def about_neurons(e: Emergence) -> str:
    """A note that says which neurons are in colour."""
    chosen, at_end = followed_neurons(e)
    named = count_of(len(chosen), "entropy")
    if at_end:
        return f"in colour: {named} of the last step with effects; grey: all others"
    if chosen:
        return f"no neuron meets the entropy rule at the last step with effects; in colour: {named} of earlier steps"
    if with_effects(e).any():
        return "no neuron ever meets the entropy rule, so all are grey"
    return "effects were not measured, so no neuron is named"

"""Pictures of how the neurons of one model came to be over its training, and the same in a few sentences.

Each picture is a matplotlib Figure, drawn without a display. Letters: S measured step, n neuron.
"""

from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator

from jaxconf.analysis.emergence import first_steps
from jaxconf.report.style import (
    ENTROPY,
    FREQUENCY,
    HUES,
    INK,
    NORMAL,
    QUIET,
    STYLE,
    label_points,
    log_axes,
    model_name,
    save_figures,
    say,
)
from jaxconf.results.rules import Rules
from jaxconf.results.words import count_of, number
from jaxconf.training.emergence import Emergence

# Where neurons that never meet a criterion are drawn, as a multiple of the last step.
NEVER = 4


@mpl.rc_context(STYLE)
def emergence_spectrum(e: Emergence) -> Figure:
    """Singular values of the folded unembedding over the steps of training, those of the effective null space in red."""
    k, count = e.facts["k"], e.singular_values.shape[1]
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    _titles(figure, e, "Unembedding", f"red: the effective null space, the {k:,} smallest of {count:,} singular values")
    values = np.where(e.singular_values > 0, e.singular_values, np.nan)
    _lines(axes, e, values[:, : count - k], NORMAL, linewidth=0.5, alpha=0.5)
    _lines(axes, e, values[:, count - k :], ENTROPY, linewidth=1.0)
    log_axes(axes, y=pd.Series(values.ravel()))
    _step_axis(axes, e)
    axes.set_ylabel("singular value")
    return figure


@mpl.rc_context(STYLE)
def emergence_rho(e: Emergence) -> Figure:
    """Share of every neuron's output weights in the null space over the steps of training, beside what chance gives."""
    rho, met = _over_steps(e, "rho"), _over_steps(e, "is_entropy_neuron")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    chosen, note = _chosen(e)
    _titles(figure, e, "Null space", note)
    _lines(axes, e, rho, NORMAL, linewidth=0.5, alpha=0.4)
    _lines(axes, e, e.steps["rho_chance"], INK, linewidth=1.2, linestyle="--", label="chance")
    for name, colour in zip(chosen, HUES, strict=False):
        _lines(axes, e, rho[name], colour, linewidth=1.6, label=name)
    if met.any(axis=None):
        when, which = np.nonzero(met)
        axes.plot(rho.index[when], rho.to_numpy()[when, which], "o", color=ENTROPY, markersize=4, label="entropy rule met")
    _step_axis(axes, e)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ρ, share of w_out in the null space", parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@mpl.rc_context(STYLE)
def emergence_first(e: Emergence) -> Figure:
    """Weights or cause first: when each neuron first has rho above chance and ln_mediated high enough, and how many had by when.

    Judged at the steps with effects only: the weights are measured more often, and would seem to come first.
    """
    first, steps = _first(e)
    order, effects, cause = _order(first), _with_effects(e).any(), f"ln_mediated ≥ {_rules(e).min_ln_mediated:g}"
    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    axes, sums = figure.subplots(1, 2, width_ratios=(5, 4))
    found = "met both: {both:,} (weights first {weights:,}, same step {same:,}, cause first {cause:,}), weights only: {weights_only:,}, "
    found += f"cause only: {{cause_only:,}}, of {len(first):,} neurons\njudged at the steps with measured effects ({len(steps):,})"
    _titles(figure, e, "Weights or cause first", found.format(**order) if effects else "judged by the weights alone")

    entropy = list(first.index[first["entropy"].notna()])
    never = NEVER * max(steps[-1], 1)
    points = first[["weights", "cause"]].dropna(how="all").fillna(never)
    _bubbles(axes, points, entropy)
    _zero_log(axes, "x", steps, "never")
    _zero_log(axes, "y", steps, "never" if effects else "not\nmeasured")
    for span in (axes.axvspan, axes.axhspan):
        span(never / 2, never * 2, color=NORMAL, alpha=0.15, linewidth=0, zorder=0)
    axes.set_xlabel("first step with ρ above chance (weights)")
    axes.set_ylabel(f"first step with {cause} (cause)", parse_math=False)
    if order["both"]:
        axes.axline((0, 0), (1, 1), color=QUIET, linestyle="--", linewidth=0.9, zorder=0)
        axes.text(0.02, 0.86, f"weights first: {order['weights']:,}", transform=axes.transAxes, va="top", color=QUIET)
        axes.text(0.86, 0.02, f"cause first: {order['cause']:,}", transform=axes.transAxes, ha="right", color=QUIET)
    else:
        say(axes, f"no neuron meets {'both criteria' if len(points) else 'either criterion'}" if effects else "effects were not measured")

    drawn = {"weights": ("ρ above chance (weights)", HUES[0])}
    if effects:
        drawn |= {"cause": (f"{cause} (cause)", HUES[1]), "entropy": ("entropy rule", ENTROPY), "frequency": ("frequency rule", FREQUENCY)}
    counts = {name: (first[[name]].to_numpy() <= steps).sum(0) for name in drawn}
    for name, (words, colour) in drawn.items():
        sums.plot(steps, counts[name], drawstyle="steps-post", marker=".", color=colour, label=f"{words}: {counts[name][-1]:,}")
    _zero_log(sums, "y", np.concatenate(list(counts.values())))
    _step_axis(sums, e)
    sums.set_ylabel("neurons that had met it by then")
    sums.legend(loc="upper left")
    label_points(figure, axes, points["weights"], points["cause"], entropy, ENTROPY)
    return figure


@mpl.rc_context(STYLE)
def emergence_series(e: Emergence) -> Figure:
    """Small multiples over the steps of training: losses, entropy, calibration, norms, effects, counts. What was not measured is left out."""
    steps, above, mediated = e.steps.set_index("step"), _above_chance(e), _over_steps(e, "ln_mediated")
    met = {f"{kind} rule": _over_steps(e, f"is_{kind}_neuron").sum(axis=1).where(_with_effects(e)) for kind in ("entropy", "frequency")}
    bands = {
        column: {name: _over_steps(e, column).quantile(q, axis=1) for name, q in (("median", 0.5), ("5%", 0.05), ("95%", 0.95))}
        for column in ("w_norm", "logit_var")
    }
    panels: dict[str, dict[str, pd.Series | None]] = {
        "loss, nats per token": {"training": steps.get("train_loss"), "held-out": steps.get("loss")},
        "mean entropy of predictions, nats": {"entropy": steps.get("entropy")},
        "expected calibration error (0 to 1)": {"ece": steps.get("ece")},
        "‖w_out‖: median, 5% to 95%": bands["w_norm"],
        "LogitVar: median, 5% to 95%": bands["logit_var"],
        "largest ln_mediated": {"of all neurons": mediated.max(axis=1), "of those above chance": mediated.where(above).max(axis=1)},
        f"of {above.shape[1]:,} neurons": {"above chance": above.sum(axis=1), **met},
    }
    tables = {heading: pd.DataFrame(lines, steps.index, dtype=float).dropna(axis=1, how="all") for heading, lines in panels.items()}
    tables = {heading: lines for heading, lines in tables.items() if lines.shape[1]}
    colours = {"training": NORMAL, "of all neurons": NORMAL, "of those above chance": HUES[0], "above chance": HUES[0]}
    colours |= {"entropy rule": ENTROPY, "frequency rule": FREQUENCY}

    columns = min(len(tables), 4)
    rows = -(-len(tables) // columns)
    figure = Figure(figsize=(2.9 * columns, 0.5 + 2.4 * rows), layout="constrained")
    _titles(figure, e, "Training", f"measured steps: {len(steps):,}")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (heading, lines) in zip(grid, tables.items(), strict=False):
        shown = [name for name in lines if not name.endswith("%")]
        for name in shown:
            axes.plot(lines[name].dropna(), marker=".", markersize=3.5, linewidth=1.2, color=colours.get(name, INK), label=name)
        if "median" in lines:
            axes.fill_between(lines.index, lines["5%"], lines["95%"], color=NORMAL, alpha=0.35, linewidth=0)
        if len(shown) > 1 or heading.startswith("of"):
            axes.legend()
        if heading.startswith("LogitVar"):
            log_axes(axes, y=lines.stack())
        elif heading.startswith("largest"):
            axes.axhline(_rules(e).min_ln_mediated, color=QUIET, linestyle="--", linewidth=0.9)
        elif heading.startswith("of"):
            _zero_log(axes, "y", lines.to_numpy())
        axes.set_title(heading, fontsize=9, loc="left", parse_math=False)
        _step_axis(axes, e)
    for axes in grid[len(tables) :]:
        axes.remove()
    return figure


FIGURES = {
    "emergence_spectrum": emergence_spectrum,
    "emergence_rho": emergence_rho,
    "emergence_first": emergence_first,
    "emergence_series": emergence_series,
}


def save_emergence_figures(e: Emergence, folder: str | Path) -> list[Path]:
    """Writes every picture as a PNG (`emergence_rho.png`, …; 160 dots per inch) into `folder`, each whole or not at all."""
    return save_figures(FIGURES, e, Path(folder))


def summary_lines(e: Emergence) -> list[str]:
    """What was found, a sentence each."""
    steps, effects, above, mediated = e.steps["step"], _with_effects(e), _above_chance(e), _over_steps(e, "ln_mediated")
    ever = above.any(axis=1)
    since = f"the first crossed it at step {ever.idxmax():,}" if ever.any() else "none was at any step"
    lines = [
        f"Measured steps: {len(steps):,}, the last {steps.iloc[-1]:,}; with effects: {effects.sum():,}.",
        f"Neurons with rho above chance at the end: {above.iloc[-1].sum():,} of {above.shape[1]:,}; {since}.",
    ]
    if not effects.any():
        return lines
    if mediated.notna().any(axis=None):
        step, name = mediated.stack().idxmax()
        side = "above" if above.loc[step, name] else "not above"
        lines.append(f"Largest ln_mediated: {number(mediated.loc[step, name])}, neuron {name} at step {step:,}, its rho {side} chance.")
    first, _ = _first(e)
    for kind in ("entropy", "frequency"):
        when = first[kind].dropna().sort_values(kind="stable")
        named = ", ".join(f"{name} (step {step:,.0f})" for name, step in when.iloc[:6].items())
        more = f" and {len(when) - 6:,} more" * (len(when) > 6)
        lines.append(f"{count_of(len(when), kind)} at one step or more{', first at: ' * bool(named)}{named}{more}.")
    told = "Neurons that met both criteria, rho above chance and ln_mediated ≥ {least:g}: {both:,}"
    if (order := _order(first))["both"]:
        told += "; {weights:,} met that of rho first, {cause:,} that of ln_mediated, {same:,} both at one step"
    lines.append(told.format(least=_rules(e).min_ln_mediated, **order) + ".")
    return lines


def _rules(e: Emergence) -> Rules:
    return Rules(**e.facts["rules"])


def _over_steps(e: Emergence, column: str) -> pd.DataFrame:
    """A column of the neurons, by step and name, [S n]; where there is no such column, NaN, or False for a rule."""
    shape = len(e.steps), len(e.neurons) // len(e.steps)
    missing = False if column.startswith("is_") else np.nan
    values = e.neurons[column].to_numpy().reshape(shape) if column in e.neurons else np.full(shape, missing)
    return pd.DataFrame(values, pd.Index(e.steps["step"]), [f"{e.facts['layer']}.{neuron}" for neuron in range(shape[1])])


def _above_chance(e: Emergence) -> pd.DataFrame:
    return _over_steps(e, "rho").gt(e.steps["rho_chance"].to_numpy(), axis=0)


def _with_effects(e: Emergence) -> pd.Series:
    """At which steps effects were measured, bool [S]."""
    return _over_steps(e, "loss_abs_delta").notna().any(axis=1)


def _first(e: Emergence) -> tuple[pd.DataFrame, np.ndarray]:
    """The step at which each neuron (a row) first meets each criterion (NaN: never), and the steps judged: those with effects, if any."""
    effects = _with_effects(e)
    holds = {
        "weights": _above_chance(e),
        "cause": _over_steps(e, "ln_mediated") >= _rules(e).min_ln_mediated,
        "entropy": _over_steps(e, "is_entropy_neuron"),
        "frequency": _over_steps(e, "is_frequency_neuron"),
    }
    judged = effects | ~effects.any()
    steps = effects.index[judged].to_numpy()
    first = {name: first_steps(steps, held[judged].to_numpy()) for name, held in holds.items()}
    return pd.DataFrame(first, holds["weights"].columns), steps


def _order(first: pd.DataFrame) -> dict[str, int]:
    """How many neurons met both of the criteria, which of them first, and how many met only one."""
    weights, cause = first["weights"], first["cause"]
    told = {"weights": weights < cause, "same": weights == cause, "cause": cause < weights}
    told |= {
        "both": weights.notna() & cause.notna(),
        "weights_only": weights.notna() & cause.isna(),
        "cause_only": cause.notna() & weights.isna(),
    }
    return {name: int(of.sum()) for name, of in told.items()}


def _chosen(e: Emergence) -> tuple[list[str], str]:
    """The neurons to set apart, largest final rho first, and a note that says which they are."""
    above, last, effects = _above_chance(e), _over_steps(e, "rho").iloc[-1], _with_effects(e)
    found = last[_over_steps(e, "is_entropy_neuron").any()].sort_values(ascending=False)
    if len(found):
        return list(found.index[: len(HUES)]), count_of(len(found), "entropy") + f", {len(HUES)} named" * (len(found) > len(HUES))
    column, told = ("ln_mediated", "no neuron meets the entropy rule") if effects.any() else ("rho", "effects were not measured")
    step = effects.index[effects | ~effects.any()][-1]
    best = _over_steps(e, column).loc[step, above.loc[step]].nlargest(3)
    told += f"; named: largest final {column} of those above chance" if len(best) else "; none is above chance at the end"
    return list(last[best.index].sort_values(ascending=False).index), told


def _titles(figure: Figure, e: Emergence, subject: str, note: str) -> None:
    # Mathtext off: a model's name may hold a dollar sign.
    heading = f"{subject}: {model_name(e.facts)}, layer {e.facts['layer']}"
    figure.suptitle(f"{heading}\n{note}", fontsize=9, x=0.02, ha="left", parse_math=False)


def _lines(axes: Axes, e: Emergence, values: Any, colour: str, **style: Any) -> None:
    # One measured step makes no line.
    axes.plot(e.steps["step"], np.asarray(values), color=colour, marker="." if len(e.steps) == 1 else "", **style)


def _bubbles(axes: Axes, points: pd.DataFrame, red: list[str]) -> None:
    """A bubble wherever neurons lie, with their number; red where one of them is `red`."""
    for (x, y), there in points.groupby(["weights", "cause"]).groups.items():
        colour = ENTROPY if there.isin(red).any() else NORMAL
        axes.scatter(x, y, s=30 + 120 * np.log10(len(there)), color=colour, alpha=0.8, linewidth=0)
        if len(there) > 1:
            axes.text(x, y, f"{len(there):,}", fontsize=6.5, ha="center", va="center")


def _step_axis(axes: Axes, e: Emergence) -> None:
    _zero_log(axes, "x", e.steps["step"].to_numpy())
    axes.set_xlabel("training step")


def _zero_log(axes: Axes, along: Literal["x", "y"], values: np.ndarray, never: str = "") -> None:
    """A log axis for whole numbers that has a place for 0, being linear up to the least positive one, and one for `never` at its end."""
    positive = values[values > 0]
    least, most = (positive.min(), positive.max()) if len(positive) else (1, 1)
    low = -0.3 * least if (values <= 0).any() else least / 1.2
    ticks = [place * 10**power for power in range(15) for place in (1, 2, 5) if least <= place * 10**power <= most]
    # Where these are too many to label, powers of ten.
    ticks = [tick for tick in ticks if len(ticks) <= 6 or str(tick).startswith("1")] or [least]
    ticks = [0, *ticks] if low < 0 else ticks
    axis = {"x": axes.xaxis, "y": axes.yaxis}[along]
    getattr(axes, f"set_{along}scale")("symlog", linthresh=least, linscale=0.5)
    axis.set_minor_locator(NullLocator())
    labels = [EngFormatter(sep="")(tick) for tick in ticks]
    axis.set_ticks([*ticks, NEVER * most] if never else ticks, [*labels, never] if never else labels)
    getattr(axes, f"set_{along}lim")(low, most * (2 * NEVER if never else 1.2))

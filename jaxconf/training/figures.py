"""Figures of how one model's neurons emerged over its training. Letters: S measured step, n neuron."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.report.style import (
    ENTROPY,
    FREQUENCY,
    HUES,
    INK,
    NORMAL,
    QUIET,
    canvas,
    grid_of,
    guide,
    label_points,
    log_axes,
    save_figures,
    say,
    styled,
)
from jaxconf.results.words import count_of
from jaxconf.training.components_figure import emergence_components
from jaxconf.training.emergence import Emergence
from jaxconf.training.events_figure import emergence_events
from jaxconf.training.findings import above_chance, first_met, order_met, over_steps, rules_of, with_effects
from jaxconf.training.optimum_figures import OF_OPTIMUM
from jaxconf.training.step_axes import NEVER, draw_lines, step_axis, where, zero_log


@styled
def emergence_spectrum(e: Emergence) -> Figure:
    """Singular values of the folded unembedding over the steps; those of the effective null space are red."""
    k, count = e.facts["k"], e.singular_values.shape[1]
    note = f"red: the effective null space, the {k:,} smallest of {count:,} singular values"
    figure, [axes] = canvas(where(e), "Unembedding", note)
    values = np.where(e.singular_values > 0, e.singular_values, np.nan)
    draw_lines(axes, e, values[:, : count - k], NORMAL, linewidth=0.5, alpha=0.5)
    draw_lines(axes, e, values[:, count - k :], ENTROPY, linewidth=1.0)
    log_axes(axes, y=pd.Series(values.ravel()))
    step_axis(axes, e)
    axes.set_ylabel("singular value")
    return figure


@styled
def emergence_rho(e: Emergence) -> Figure:
    """The rho of every neuron over the steps, and the chance level of rho."""
    rho, met = over_steps(e, "rho"), over_steps(e, "is_entropy_neuron")
    chosen, note = _chosen(e)
    figure, [axes] = canvas(where(e), "Null space", note, size=(6, 4))
    draw_lines(axes, e, rho, NORMAL, linewidth=0.5, alpha=0.4)
    draw_lines(axes, e, e.steps["rho_chance"], INK, linewidth=1.2, linestyle="--", label="chance")
    for name, colour in zip(chosen, HUES, strict=False):
        draw_lines(axes, e, rho[name], colour, linewidth=1.6, label=name)
    if met.any(axis=None):
        when, which = np.nonzero(met)
        points = rho.index[when], rho.to_numpy()[when, which]
        axes.plot(*points, "o", color=ENTROPY, markersize=4, label="entropy rule met")
    step_axis(axes, e)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ρ, share of w_out in the null space", parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def emergence_first(e: Emergence) -> Figure:
    """Whether neurons first have rho above chance or first have a large ln_mediated, and how many have had each.

    Only steps with effects are judged. The weights are measured at more steps than the effects, so otherwise rho would
    seem to come first.
    """
    first, steps = first_met(e)
    order, effects, cause = order_met(first), with_effects(e).any(), f"ln_mediated ≥ {rules_of(e).min_ln_mediated:g}"
    found = (
        "both: {both:,} (ρ first {weights:,}, same step {same:,}, ln_mediated first {cause:,}), "
        f"only ρ: {{weights_only:,}}, only ln_mediated: {{cause_only:,}}, of {len(first):,} neurons\n"
        f"judged at the steps with measured effects ({len(steps):,})"
    ).format(**order)
    note = found if effects else "effects were not measured, so only ρ is judged"
    heading = "Which comes first: ρ above chance or a large ln_mediated"
    figure, [axes, sums] = canvas(where(e), heading, note, 1, 2, (9.5, 4.4), width_ratios=(5, 4))

    never = NEVER * max(steps[-1], 1)
    points = first[["weights", "cause"]].dropna(how="all").fillna(never)
    entropy = list(first.index[first["entropy"].notna()])
    _bubbles(axes, points, entropy)
    zero_log(axes, "x", steps, "never")
    zero_log(axes, "y", steps, "never" if effects else "not\nmeasured")
    for span in (axes.axvspan, axes.axhspan):
        span(never / 2, never * 2, color=NORMAL, alpha=0.15, linewidth=0, zorder=0)
    axes.set_xlabel("first step with ρ above chance")
    axes.set_ylabel(f"first step with {cause}", parse_math=False)
    if order["both"]:
        axes.axline((0, 0), (1, 1), color=QUIET, linestyle="--", linewidth=0.9, zorder=0)
        later = f"ln_mediated first: {order['cause']:,}"
        axes.text(0.02, 0.86, f"ρ first: {order['weights']:,}", transform=axes.transAxes, va="top", color=QUIET)
        axes.text(0.86, 0.02, later, transform=axes.transAxes, ha="right", color=QUIET)
    elif effects:
        say(axes, f"no neuron meets {'both criteria' if len(points) else 'either criterion'}")
    else:
        say(axes, "effects were not measured")
    _sums(sums, e, first, steps, cause if effects else None)
    label_points(figure, axes, points["weights"], points["cause"], entropy, ENTROPY)
    return figure


def _sums(axes: Axes, e: Emergence, first: pd.DataFrame, steps: np.ndarray, cause: str | None) -> None:
    """How many neurons had met each criterion by each step. If `cause` is None, only rho above chance is drawn."""
    drawn = {"weights": ("ρ above chance", HUES[0])}
    if cause:
        drawn["cause"] = cause, HUES[1]
        drawn |= {"entropy": ("entropy rule", ENTROPY), "frequency": ("frequency rule", FREQUENCY)}
    counts = {name: (first[[name]].to_numpy() <= steps).sum(0) for name in drawn}
    for name, (words, colour) in drawn.items():
        label = f"{words}: {counts[name][-1]:,}"
        axes.plot(steps, counts[name], drawstyle="steps-post", marker=".", color=colour, label=label)
    zero_log(axes, "y", np.concatenate(list(counts.values())))
    step_axis(axes, e)
    axes.set_ylabel("neurons that have met the criterion so far")
    axes.legend(loc="upper left")


@styled
def emergence_series(e: Emergence) -> Figure:
    """Losses, entropy, calibration, norms, effects and counts over the steps, one panel each.

    A panel is left out if nothing of it was measured.
    """
    tables = _series(e)
    rows, columns = grid_of(len(tables), 4)
    size, note = (2.9 * columns, 0.5 + 2.4 * rows), f"measured steps: {len(e.steps):,}"
    figure, panels = canvas(where(e), "Training", note, rows, columns, size, count=len(tables))
    colours = {"training": NORMAL, "of all neurons": NORMAL, "of those above chance": HUES[0], "above chance": HUES[0]}
    colours |= {"entropy rule": ENTROPY, "frequency rule": FREQUENCY}
    for axes, (heading, lines) in zip(panels, tables.items(), strict=True):
        shown = [name for name in lines if not name.endswith("%")]
        for name in shown:
            how = {"color": colours.get(name, INK), "label": name}
            axes.plot(lines[name].dropna(), marker=".", markersize=3.5, linewidth=1.2, **how)
        if "median" in lines:
            axes.fill_between(lines.index, lines["5%"], lines["95%"], color=NORMAL, alpha=0.35, linewidth=0)
        if len(shown) > 1 or heading.startswith("of"):
            axes.legend()
        if heading.startswith("LogitVar"):
            log_axes(axes, y=lines.stack())
        elif heading.startswith("largest"):
            guide(axes, y=rules_of(e).min_ln_mediated)
        elif heading.startswith("of"):
            zero_log(axes, "y", lines.to_numpy())
        axes.set_title(heading, fontsize=9, loc="left", parse_math=False)
        step_axis(axes, e)
    return figure


def _series(e: Emergence) -> dict[str, pd.DataFrame]:
    """Heading of a panel → its lines over the steps. Panels and lines without any value are left out."""
    steps, above, mediated = e.steps.set_index("step"), above_chance(e), over_steps(e, "ln_mediated")
    effects, quantiles = with_effects(e), {"median": 0.5, "5%": 0.05, "95%": 0.95}
    met = {
        f"{kind} rule": over_steps(e, f"is_{kind}_neuron").sum(axis=1).where(effects)
        for kind in ("entropy", "frequency")
    }
    bands = {
        column: {name: over_steps(e, column).quantile(q, axis=1) for name, q in quantiles.items()}
        for column in ("w_norm", "logit_var")
    }
    panels: dict[str, dict[str, pd.Series | None]] = {
        "loss, nats per token": {"training": steps.get("train_loss"), "held-out": steps.get("loss")},
        "mean entropy of predictions, nats": {"entropy": steps.get("entropy")},
        "expected calibration error (0 to 1)": {"ece": steps.get("ece")},
        "‖w_out‖: median, 5% to 95%": bands["w_norm"],
        "LogitVar: median, 5% to 95%": bands["logit_var"],
        "largest ln_mediated": {
            "of all neurons": mediated.max(axis=1),
            "of those above chance": mediated.where(above).max(axis=1),
        },
        f"of {above.shape[1]:,} neurons": {"above chance": above.sum(axis=1), **met},
    }
    tables = {
        heading: pd.DataFrame(lines, steps.index, dtype=float).dropna(axis=1, how="all")
        for heading, lines in panels.items()
    }
    return {heading: lines for heading, lines in tables.items() if lines.shape[1]}


FIGURES = {
    "emergence_spectrum": emergence_spectrum,
    "emergence_rho": emergence_rho,
    "emergence_first": emergence_first,
    "emergence_series": emergence_series,
    "emergence_events": emergence_events,
}


def save_emergence_figures(e: Emergence, folder: str | Path) -> list[Path]:
    """Write every figure as a PNG (`emergence_rho.png`, …) into `folder`, and return their paths.

    Those of OF_OPTIMUM are among them only if the best possible predictions are known, and that of components only if
    others than neurons were measured.
    """
    of_components = {"emergence_components": emergence_components} if len(e.components) else {}
    return save_figures(FIGURES | (OF_OPTIMUM if len(e.optimum) else {}) | of_components, e, folder)


def _chosen(e: Emergence) -> tuple[list[str], str]:
    """The names of the neurons to highlight, largest final rho first, and a note that says how they were chosen."""
    above, last, effects = above_chance(e), over_steps(e, "rho").iloc[-1], with_effects(e)
    found = last[over_steps(e, "is_entropy_neuron").any()].sort_values(ascending=False)
    if len(found):
        named = f", {len(HUES)} named" * (len(found) > len(HUES))
        return list(found.index[: len(HUES)]), count_of(len(found), "entropy") + named
    column, note = "rho", "effects were not measured"
    if effects.any():
        column, note = "ln_mediated", "no neuron meets the entropy rule"
    step = effects.index[effects | ~effects.any()][-1]
    best = over_steps(e, column).loc[step, above.loc[step]].nlargest(3)
    if len(best):
        note += f"; named: largest final {column} of those above chance"
    else:
        note += "; none is above chance at the end"
    return list(last[best.index].sort_values(ascending=False).index), note


def _bubbles(axes: Axes, points: pd.DataFrame, red: list[str]) -> None:
    """Draw a bubble at each place where there are neurons, with their number; it is red if one of them is in `red`."""
    for (x, y), there in points.groupby(["weights", "cause"]).groups.items():
        colour = ENTROPY if there.isin(red).any() else NORMAL
        axes.scatter(x, y, s=30 + 120 * np.log10(len(there)), color=colour, alpha=0.8, linewidth=0)
        if len(there) > 1:
            axes.text(x, y, f"{len(there):,}", fontsize=6.5, ha="center", va="center")

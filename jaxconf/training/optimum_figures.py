"""Figures of how a model came near the best possible predictions. Letters: S measured step, L level of noise."""

from matplotlib.figure import Figure

from jaxconf.report.optimum_figures import optimum_sets
from jaxconf.report.style import canvas, say, styled
from jaxconf.training.curves import level_colours
from jaxconf.training.emergence import Emergence
from jaxconf.training.events import by_level
from jaxconf.training.findings import with_effects
from jaxconf.training.step_axes import draw_lines, step_axis, where


@styled
def emergence_optimum(e: Emergence) -> Figure:
    """The entropy at each level of noise over the steps; the best one is a dashed line of the same colour."""
    note = "lines: the model at each level of noise ε; dashed: the best possible"
    figure, [axes] = canvas(where(e), "Entropy by level of noise", note, size=(6.5, 4.2))
    of = by_level(e)
    if of is None:
        say(axes, "no position has a known level")
        return figure
    colours = level_colours(of.noise)
    for level, noise, colour in reversed(list(zip(of.entropy, of.noise, colours, strict=True))):
        draw_lines(axes, e, of.best_entropy[level], colour, linewidth=0.9, linestyle="--")
        draw_lines(axes, e, of.entropy[level], colour, linewidth=1.6, label=f"ε = {noise:.3g}")
    step_axis(axes, e)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("entropy, nats")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def emergence_optimum_sets(e: Emergence) -> Figure:
    """`optimum_sets` at the last step with effects, or at the last one of all if effects were never measured."""
    effects = with_effects(e)
    step = (effects.index[effects] if effects.any() else effects.index)[-1]
    return optimum_sets(e.optimum[e.optimum["step"] == step], f"{where(e)}, step {step:,}")


OF_OPTIMUM = {"emergence_optimum": emergence_optimum, "emergence_optimum_sets": emergence_optimum_sets}
"""The figures that are drawn only if the best possible predictions are known."""

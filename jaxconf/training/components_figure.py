"""The figure of components other than neurons over the training of one model."""

import pandas as pd
from matplotlib.figure import Figure

from jaxconf.models.errors import listed
from jaxconf.report.style import HUES, canvas, guide, styled
from jaxconf.training.emergence import Emergence
from jaxconf.training.findings import rules_of
from jaxconf.training.step_axes import where, zero_log

MOST_NAMED = 6
PANELS = (("rho", "ρ, share of the length in the null space"), ("ln_mediated", "share of the effect through the norm"))


@styled
def emergence_components(e: Emergence) -> Figure:
    """The rho and the ln_mediated of every component over the steps with effects, coloured by kind."""
    kinds = list(e.components["component"].unique())
    colours = {kind: HUES[i % len(HUES)] for i, kind in enumerate(kinds)}
    met = e.components[e.components["is_entropy_neuron"]]["name"].unique().tolist()
    named = f"thick: the entropy rule met at some step ({listed(met, MOST_NAMED)})"
    note = f"{named if met else 'none meets the entropy rule'}; the lowest shares are cut off"
    figure, panels = canvas(where(e), "Components other than neurons", note, 1, 2, (9.5, 4))
    least = e.components["ln_mediated"].quantile(0.02)
    for axes, (column, label) in zip(panels, PANELS, strict=True):
        seen: set[str] = set()
        for (kind, name), own in e.components.groupby(["component", "name"], sort=False):
            known = {"label": kind} if kind not in seen else {}
            seen.add(kind)
            values = own[column].clip(lower=min(0.0, least)) if column == "ln_mediated" else own[column]
            width = 2.0 if name in met else 0.8
            axes.plot(own["step"], values, color=colours[kind], linewidth=width, marker=".", markersize=3, **known)
        zero_log(axes, "x", pd.unique(e.components["step"]))
        axes.set_xlabel("training step")
        axes.set_ylabel(label, parse_math=False)
    guide(panels[1], y=rules_of(e).min_ln_mediated)
    panels[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure

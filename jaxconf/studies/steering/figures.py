"""Figures of steering: what each dose does, and what the chosen doses do to text that they were not chosen on."""

import itertools
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from jaxconf.report.style import (
    ENTROPY,
    FREQUENCY,
    HUES,
    INK,
    NORMAL,
    canvas,
    guide,
    model_name,
    short,
    styled,
)
from jaxconf.studies.steering.treatments import TEMPERATURE

if TYPE_CHECKING:
    from jaxconf.studies.steering.study import Steering

LABELS = {"entropy": "entropy, nats", "ece": "calibration error", "loss": "loss, nats", "accuracy": "accuracy"}


def _colours(found: "Steering") -> dict[str, str]:
    names = found.best.loc[found.best["kind"] != "random", "treatment"].tolist()
    known = {TEMPERATURE: INK, "entropy": ENTROPY, "frequency": FREQUENCY}
    others = itertools.cycle(HUES)
    return {name: known.get(name) or next(others) for name in names}


@styled
def steer_doses(found: "Steering") -> Figure:
    """The held-out measures against the entropy that each dose gives: one curve for each treatment."""
    figure, panels = canvas(
        model_name(found.facts), "Doses", "a point for each dose, held-out documents; grey: random sets", 1, 3, (11, 4)
    )
    doses = found.doses[found.doses["part"] == "held out"].sort_values(["treatment", "dose"])
    colours = _colours(found)
    for axes, measure in zip(panels, ("ece", "loss", "accuracy"), strict=True):
        for _, own in doses[doses["kind"] == "random"].groupby("treatment"):
            axes.plot(own["entropy"], own[measure], color=NORMAL, linewidth=0.5, alpha=0.6)
        for name, colour in colours.items():
            own = doses[doses["treatment"] == name]
            axes.plot(own["entropy"], own[measure], "o-", color=colour, markersize=3, linewidth=1.1, label=name)
        axes.set_xlabel(LABELS["entropy"])
        axes.set_ylabel(LABELS[measure])
    panels[0].legend(fontsize=7, frameon=False)
    return figure


@styled
def steer_best(found: "Steering") -> Figure:
    """The calibration error and the loss of each treatment at its dose, with intervals."""
    figure, panels = canvas(
        model_name(found.facts),
        "Held-out documents, at the dose that was chosen on others",
        "change from the unsteered model; grey: random sets",
        1,
        2,
        (11, 3.6),
    )
    rows = found.best[found.best["kind"] != "random"].iloc[::-1]
    colours = _colours(found)
    for axes, measure in zip(panels, ("ece", "loss"), strict=True):
        for height, row in enumerate(rows.to_dict("records")):
            random = found.best[(found.best["kind"] == "random") & (found.best["beside"] == row["treatment"])]
            axes.scatter(random[f"{measure}_change"], np.full(len(random), height), s=9, color=NORMAL, linewidths=0)
            middle = row[f"{measure}_change"]
            ends = [[middle - row[f"{measure}_change_lo"]], [row[f"{measure}_change_hi"] - middle]]
            colour = colours[row["treatment"]]
            axes.errorbar(middle, height, xerr=np.maximum(ends, 0), fmt="o", color=colour, markersize=4, linewidth=1)
        axes.set_yticks(range(len(rows)), [short(name, 24) for name in rows["treatment"]])
        guide(axes, x=0)
        axes.set_xlabel(f"change of the {LABELS[measure]}")
    return figure


FIGURES = {"steer_doses": steer_doses, "steer_best": steer_best}

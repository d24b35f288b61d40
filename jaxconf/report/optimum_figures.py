"""How a model's confidence compares with the best possible one, with sets of neurons ablated.

Letters: L level of noise. Entropies are in nats.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.report.style import ENTROPY, FREQUENCY, INK, NORMAL, QUIET, canvas, styled
from jaxconf.results.words import count_of, counted

COLOURS = {"entropy": ENTROPY, "frequency": FREQUENCY}


@styled
def optimum_sets(sets: pd.DataFrame, model: str) -> Figure:
    """The model's entropy at each level of noise against the best one: unablated, and with each set of neurons ablated.

    A row of panels for each set, a panel for each thing that is done to it. A perfect model lies on the diagonal.
    `sets`: a row for each set, thing and level, with the columns `set`, `kind` ("none", "set" or "random"), `neurons`,
    `size`, `how`, `level`, `entropy` and `best_entropy`, as `jaxconf.measure.optimum.Beside.sets` has them. `model`:
    what the heading names.
    """
    rows = sets[sets["level"] >= 0]
    whole, ablated = rows[rows["kind"] == "none"], rows[rows["kind"] != "none"]
    names, hows = list(ablated["set"].unique()), list(ablated["how"].unique())
    shape = max(1, len(names)), max(1, len(hows))
    size = 3.1 * shape[1] + 1.2 * (not names), 3 * shape[0] + 0.9
    figure, panels = canvas(model, "Entropy beside the best", _note(ablated), *shape, size, sharex=True, sharey=True)
    most = 1.06 * rows[["entropy", "best_entropy"]].max(axis=None)
    for axes in panels:
        axes.axline((0, 0), slope=1, color=QUIET, linestyle="--", linewidth=0.9, label="a perfect model")
        axes.set(xlim=(0, most), ylim=(0, most))
    for axes, (name, how) in zip(panels, [(name, how) for name in names for how in hows], strict=False):
        of = ablated[(ablated["set"] == name) & (ablated["how"] == how)]
        for index, (_, one) in enumerate(of[of["kind"] == "random"].groupby("neurons")):
            _line(axes, one, NORMAL, label="" if index else "random sets", linewidth=0.6, alpha=0.7)
        _line(axes, of[of["kind"] == "set"], COLOURS.get(name, ENTROPY), label=f"{name} set", marker="o", markersize=4)
        axes.set_title(f"{name} set, {how.replace('mean', 'mean-ablated')}", fontsize=9, loc="left")
    for index, axes in enumerate(panels):
        _line(axes, whole, INK, label="unablated", marker=".", markersize=5, linewidth=1.2)
        if index >= len(panels) - shape[1]:
            axes.set_xlabel("best entropy, nats")
        if index % shape[1] == 0:
            axes.set_ylabel("model's entropy, nats")
            axes.legend(loc="upper left")
    return figure


def _line(axes: Axes, rows: pd.DataFrame, colour: str, **style: Any) -> None:
    rows = rows.sort_values("level")
    axes.plot(rows["best_entropy"], rows["entropy"], color=colour, **{"label": "", **style})


def _note(ablated: pd.DataFrame) -> str:
    if ablated.empty:
        return "a point for each level of noise\nno neuron was named, so nothing is ablated"
    own = ablated[ablated["kind"] == "set"].drop_duplicates("set")
    random = ablated[ablated["kind"] == "random"].groupby(["set", "how", "level"]).size()
    told = [f"{count_of(row['size'], row['set'])}" for _, row in own.iterrows()]
    beside = f", beside {counted(int(random.max()), 'random set')} of as many" * bool(len(random))
    return f"a point for each level of noise\n{' and '.join(told)} ablated together{beside}"

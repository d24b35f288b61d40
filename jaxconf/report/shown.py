"""What the figures of an analysis show: the neurons that stand out, those they are compared with, and the labels.

The PNG files (`jaxconf.report.figures`) and the interactive figures of the page (`jaxconf.report.plots`) show the same.
"""

import numpy as np
import pandas as pd

from jaxconf.report.style import ENTROPY, FREQUENCY, floor_of, model_name
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Kind
from jaxconf.results.words import counted

COLOUR: dict[Kind, str] = {"entropy": ENTROPY, "frequency": FREQUENCY}
HUE: dict[Kind, str] = {"entropy": "red", "frequency": "green"}
FROZEN: dict[Kind, tuple[str, str]] = {
    "entropy": ("loss_abs_delta_ln_frozen", "norm frozen"),
    "frequency": ("loss_abs_delta_freq_frozen", "frequency frozen"),
}
SHARE: dict[Kind, str] = {"entropy": "ln_mediated", "frequency": "freq_mediated"}
MOST_BOXED = 6  # neurons of a kind whose effects at single positions are shown
MOST_POINTS = 4000  # of a scatter plot; a browser draws so many points smoothly, and a wide layer has more neurons


def title(table: NeuronTable) -> str:
    """The model and the analysed layers, short enough for a heading."""
    return f"{model_name(table.facts)}, {table.where}"


def shown(table: NeuronTable, kind: Kind, mark: str = "hollow") -> tuple[list[str], str]:
    """The neurons that stand out, and a note that says which these are.

    They are the neurons that meet the rule or, if there are none, those that are nearest to it.
    """
    if found := list(table.members(kind).index):
        return found, f"{HUE[kind]}: {counted(len(found), f'{kind} {table.noun}')}"
    near = list(table.nearest(kind).index)
    return near, f"no {table.noun} meets the {kind} rule" + f"; the nearest ({len(near)}) {mark}" * bool(near)


def others(table: NeuronTable, kind: Kind, chosen: list[str]) -> list[str]:
    """As many random neurons as `chosen`, from the others that do not meet the rule; the analysis' seed draws them."""
    frame = table.to_pandas()
    rest = frame.index[~frame[f"is_{kind}_neuron"] & ~frame.index.isin(chosen)]
    return _sample(table, rest, min(len(chosen), len(rest)))


def boxes(table: NeuronTable, kind: Kind) -> list[tuple[str, str, pd.Series]]:
    """The four boxes of a comparison, chosen neurons first: (group, effect, mean |change of loss| by neuron, nats)."""
    column, frozen = FROZEN[kind]
    frame = table.to_pandas()
    chosen, _ = shown(table, kind)
    rest = others(table, kind, chosen)
    found = frame[f"is_{kind}_neuron"].any()
    first = counted(len(chosen), f"{kind} {table.noun}") if found else f"{len(chosen)} nearest to the rule"
    return [
        (group, effect, frame.loc[names, source].astype(float).dropna())
        for group, names in ((first, chosen), (counted(len(rest), "random other"), rest))
        for effect, source in (("total", "loss_abs_delta"), (frozen, column))
    ]


def boxed(table: NeuronTable, kind: Kind) -> tuple[list[str], list[str]]:
    """The neurons whose effects at single positions are shown, and as many others to compare them with."""
    chosen = shown(table, kind)[0][:MOST_BOXED]
    return chosen, others(table, kind, chosen)


def token_boxes(table: NeuronTable, kind: Kind) -> list[tuple[str, pd.Series, pd.Series]]:
    """The pairs of boxes of single positions: (name, total, frozen), |change of loss| in nats.

    A pair for each neuron of `boxed`, and one for all of the others together. Empty if the table has no such effects.
    """
    if table.token_changes.empty:
        return []
    of_neuron = dict(list(table.token_changes.groupby("neuron")))
    chosen, rest = boxed(table, kind)
    groups = {name: [name] for name in chosen} | {counted(len(rest), "random other"): rest}
    frozen = FROZEN[kind][0]
    found = []
    for name, members in groups.items():
        if rows := [of_neuron[member] for member in members if member in of_neuron]:
            every = pd.concat(rows)
            found.append((name, every["loss_abs_delta"], every[frozen]))
    return found


def edge(values: pd.Series, where: str) -> str:
    """What the label of a logarithmic axis adds if some of its values are drawn at its edge."""
    return f"\n(zeros drawn at the {where} edge)" if (values <= 0).any() and (values > 0).any() else ""


def drawn(table: NeuronTable) -> list[str]:
    """The neurons that interactive scatter plots show.

    If the table has more than MOST_POINTS, these are the neurons that stand out, those with the largest effects on the
    loss, and a sample of the others.
    """
    frame = table.to_pandas()
    if len(frame) <= MOST_POINTS:
        return list(frame.index)
    keep = pd.Index([*shown(table, "entropy")[0], *shown(table, "frequency")[0]])
    keep = keep.union(frame["loss_abs_delta"].nlargest(MOST_POINTS // 4).index, sort=False).unique()
    rest = frame.index.difference(keep, sort=False)
    return list(keep) + _sample(table, rest, max(0, MOST_POINTS - len(keep)))


def floored(mediated: pd.Series) -> str:
    """What the label of an axis adds if some of its mediated shares are below the floor."""
    floor = floor_of(mediated)
    return f" (lower ones drawn at {floor:g})" if (mediated < floor).any() else ""


def crosses(table: NeuronTable) -> str:
    """What a note adds if the nulls are drawn as crosses."""
    return f"\ncrosses: {counted(len(table.nulls), 'null')}" if len(table.nulls) else ""


def exceeded(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The values, ascending, and the share of them that is at least as large; NaN is left out."""
    known = np.sort(values.dropna().to_numpy(float))
    return known, 1 - np.arange(len(known)) / max(1, len(known))


def interval(table: NeuronTable, names: list[str], column: str) -> tuple[pd.Series | None, pd.Series, pd.Series | None]:
    """The lower end, the value and the upper end of a column for some neurons; the ends are None if it has none.

    Those of a mediated share are not below its floor.
    """
    rows = table.to_pandas().loc[names]
    least = floor_of(table.frame[column]) if column in SHARE.values() else -np.inf
    ends = [rows[name].clip(lower=least) if name in rows else None for name in (f"{column}_lo", f"{column}_hi")]
    return ends[0], rows[column].clip(lower=least), ends[1]


def _sample(table: NeuronTable, names: pd.Index, count: int) -> list[str]:
    """`count` random names, in their order; the analysis' seed draws them."""
    drawn = np.random.default_rng(table.facts.get("seed", 0)).choice(len(names), count, replace=False)
    return list(names[np.sort(drawn)])

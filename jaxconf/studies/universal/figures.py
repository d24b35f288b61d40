"""Figures of which neurons recur in other models. Universal neurons are red, others are grey."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxconf.report.style import (
    ENTROPY,
    HUES,
    INK,
    NORMAL,
    QUIET,
    canvas,
    guide,
    log_axes,
    model_name,
    on_log_axis,
    say,
    say_if_empty,
    styled,
)
from jaxconf.studies.universal.attention import CANDIDATES, judged_heads
from jaxconf.studies.universal.explanations import FEATURES
from jaxconf.studies.universal.families import EXAMPLES
from jaxconf.studies.universal.sentences import of_first

if TYPE_CHECKING:
    from jaxconf.studies.universal.study import Universality

MOMENTS = {
    "w_norm": "‖w_out‖",
    "logit_var": "LogitVar",
    "vocab_skew": "skew over the vocabulary",
    "vocab_kurtosis": "kurtosis over the vocabulary",
    "rho": "ρ, share of w_out in the null space",
    "cos_freq": "cosine with the token frequencies",
}
ON_LOG_AXIS = ("logit_var", "vocab_kurtosis")
PROPERTIES = (
    "w_norm",
    "weight_cost",
    "logit_var",
    "vocab_skew",
    "vocab_kurtosis",
    "rho",
    "cos_freq",
    "in_out_cosine",
    "activation_mean",
    "activation_std",
    "activation_skew",
    "activation_kurtosis",
    "position_r2",
)
BY_DEPTH = ("prediction", "suppression", "partition", "null_space")
MOST_LABELLED = 30  # the most layers along an axis that all get a label
LEAST_BOXED = 10  # the fewest universal neurons of which quartiles are drawn


@styled
def universal_layers(found: "Universality") -> Figure:
    """The share of universal neurons in each layer, and the layers in which best matches lie."""
    note = "right: where the best matches of a layer's neurons lie"
    figure, (left, right) = _panels(found, "Universal neurons by layer", note, (8.4, 3.6), columns=2)
    left.bar(found.layers["layer"], found.layers["share"], color=ENTROPY, width=0.7)
    left.set_ylim(0, max(0.01, 1.15 * found.layers["share"].max()))
    for row in found.layers.to_dict("records"):
        if len(found.layers) <= MOST_LABELLED:
            above: dict[str, Any] = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "fontsize": 7.5}
            left.annotate(f"{row['universal']:,}", (row["layer"], row["share"]), **above)
    left.set_xlabel("layer")
    left.set_ylabel("share of universal neurons")
    top = found.matches[found.matches["rank"] == 0]
    if len(top):
        where = pd.crosstab(top["layer"], top["match_layer"], normalize="index")
        layers = range(int(top["match_layer"].max()) + 1)
        where = where.reindex(index=found.layers["layer"], columns=layers, fill_value=0)
        image = right.imshow(where, cmap="Reds", vmin=0, vmax=1, aspect="auto", origin="lower")
        figure.colorbar(image, ax=right, label="share of the best matches")
    else:
        say(right, "no neuron has a match")
    right.set_xlabel("layer of the best match")
    right.set_ylabel("layer")
    for axis in (left.xaxis, right.xaxis, right.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def universal_excess(found: "Universality") -> Figure:
    """The correlation with the best match against that with the best of the rotated layers."""
    note = f"red: universal; above the dashed line the excess is at least {found.facts['min_excess']:g}"
    figure, (axes,) = _panels(found, "Best match and baseline", note, (5.4, 4.4))
    first = of_first(found)
    _points(axes, first, first["baseline"], first["correlation"])
    ends = np.array([0.0, 1.0])
    axes.plot(ends, ends, color=QUIET, linewidth=0.6)
    axes.plot(ends, ends + found.facts["min_excess"], color=QUIET, linewidth=0.9, linestyle="--")
    axes.set_xlim(min(0, first["baseline"].min()), 1)
    axes.set_ylim(min(0, first["correlation"].min()), 1.03)
    axes.set_xlabel("largest correlation with the rotated layers")
    axes.set_ylabel("correlation with the best match")
    return figure


@styled
def universal_moments(found: "Universality") -> Figure:
    """The excess against statistics of each neuron's weights."""
    note = "red: universal; dashed: the least excess of a universal neuron"
    figure, panels = _panels(found, "Excess correlation and weights", note, (10, 6), 2, 3)
    first = of_first(found)
    for axes, (name, label) in zip(panels, MOMENTS.items(), strict=True):
        on_log = name in ON_LOG_AXIS
        _points(axes, first, on_log_axis(first[name]) if on_log else first[name], first["excess"])
        if on_log:
            log_axes(axes, x=first[name])
        guide(axes, y=found.facts["min_excess"])
        axes.set_xlabel(label, parse_math=False)
        axes.set_ylabel("excess correlation")
    return figure


@styled
def universal_properties(found: "Universality") -> Figure:
    """The percentiles of universal neurons among the neurons of their layer, for each property."""
    note = "percentiles within a neuron's own layer; dashed: the median of the layer"
    figure, (axes,) = _panels(found, "What sets universal neurons apart", note, (7, 4.4))
    first = of_first(found)
    ranks = first.groupby("layer")[list(PROPERTIES)].rank(pct=True)[first["is_universal"]]
    if len(ranks):
        places = np.arange(1, len(PROPERTIES) + 1)
        aside = np.random.default_rng(0).uniform(-0.2, 0.2, len(ranks))
        alpha = float(np.clip(60 / len(ranks), 0.1, 0.6))
        for place, name in zip(places, PROPERTIES, strict=True):
            axes.scatter(place + aside, ranks[name], s=9, color=ENTROPY, alpha=alpha, linewidths=0)
        if len(ranks) >= LEAST_BOXED:
            known = [ranks[name].dropna().to_numpy() for name in PROPERTIES]
            axes.boxplot(known, widths=0.6, showfliers=False, medianprops={"color": INK})
        axes.set_xticks(places, PROPERTIES, rotation=45, ha="right")
        guide(axes, y=0.5)
    else:
        say(axes, "no neuron is universal")
        axes.set_xticks([])
    axes.set_ylim(0, 1)
    axes.set_ylabel("percentile within the layer")
    return figure


@styled
def universal_families(found: "Universality") -> Figure:
    """How many of each family are universal, and how often its best matches are of it too, beside other neurons."""
    note = (
        "left: share of universal neurons; right: share of the best matches that are of the same family\nred: the "
        "family; grey: neurons outside it"
    )
    figure, (left, right) = _panels(found, "Families", note, (9.4, 4.4), columns=2)
    y = np.arange(len(found.families))
    for axes, own, others in ((left, "share", "share_of_others"), (right, "recurs", "recurs_of_others")):
        axes.barh(y - 0.2, found.families[own], height=0.36, color=ENTROPY)
        axes.barh(y + 0.2, found.families[others], height=0.36, color=NORMAL)
        axes.set_xlim(0, 1.1 * max(0.01, found.families[[own, others]].max().max()))
        axes.invert_yaxis()
    left.set_yticks(y, [f"{row['family']} ({row['neurons']:,})" for row in found.families.to_dict("records")])
    right.set_yticks(y, [""] * len(y))
    left.set_xlabel("share that is universal")
    right.set_xlabel("share of best matches of the same family")
    return figure


@styled
def universal_depth(found: "Universality") -> Figure:
    """The share of some families in each layer of every model."""
    note = "thick: the first model; thin: the others; 0: the first layer, 1: the last"
    figure, (axes,) = _panels(found, "Families by depth", note, (6.5, 3.8))
    for family, colour in zip(BY_DEPTH, HUES, strict=False):
        for index, rows in found.neurons.groupby("model"):
            share = rows.groupby("layer")[f"is_{family}_neuron"].mean()
            style: dict[str, Any] = {"linewidth": 1.8, "marker": "o", "markersize": 4, "label": family}
            if index:
                style = {"linewidth": 0.8, "alpha": 0.6}
            axes.plot(share.index / max(1, share.index.max()), share, color=colour, **style)
    axes.set_xlabel("depth")
    axes.set_ylabel("share of the layer's neurons")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def universal_vocabulary(found: "Universality") -> Figure:
    """The cosines with every token's unembedding, for the neuron of each family that has the largest excess."""
    note = (
        "the neuron with the largest excess of each family; it promotes the tokens at the right and suppresses those "
        "at the left\nbelow: the tokens that it promotes (+) and suppresses (−) most"
    )
    figure, panels = _panels(found, "Effects on the vocabulary", note, (12, 4), columns=len(EXAMPLES))
    for axes, family in zip(panels, EXAMPLES, strict=True):
        rows = found.vocabulary[found.vocabulary["family"] == family]
        if rows.empty:
            say(axes, f"no {family} neuron")
            axes.axis("off")
            continue
        name = rows["neuron"].iloc[0]
        excess = of_first(found).set_index(["layer", "neuron"])["excess"][tuple(map(int, name.split(".")))]
        axes.set_title(f"{family} {name}, excess {excess:.2f}", fontsize=9)
        axes.hist(rows["cosine"], bins=50, color=NORMAL)
        axes.set_yscale("log")
        axes.set_xlabel("cosine with the unembedding\n" + _extremes(rows), parse_math=False, fontsize=8)
    panels[0].set_ylabel("tokens")
    return figure


@styled
def universal_explanations(found: "Universality") -> Figure:
    """How many neurons each feature of the text explains, and how much it explains of universal neurons and others."""
    note = (
        f"left: share of neurons of which the feature explains most, and at least {found.facts['min_explained']:g}\n"
        "red: universal neurons; grey: others; right: quartiles, and whiskers from 5% to 95%"
    )
    figure, (left, right) = _panels(found, "What explains activations", note, (9.4, 4), columns=2)
    table = found.explanations
    y = np.arange(len(table))
    first = of_first(found)
    for aside, column, some, colour in (
        (-0.2, "share_of_universal", first["is_universal"], ENTROPY),
        (0.2, "share_of_others", ~first["is_universal"], NORMAL),
    ):
        left.barh(y + aside, table[column], height=0.36, color=colour)
        r2 = [first.loc[some, f"r2_{name}"].dropna().to_numpy() for name in FEATURES]
        at: dict[str, Any] = {"positions": y[:-1] + aside, "widths": 0.3, "orientation": "horizontal"}
        at |= {f"{part}props": {"color": colour} for part in ("box", "whisker", "cap", "median")}
        right.boxplot(r2, showfliers=False, whis=(5, 95), **at)
    left.set_yticks(y, [f"{row['feature']} ({row['neurons']:,})" for row in table.to_dict("records")], parse_math=False)
    right.set_yticks(y[:-1], [""] * (len(y) - 1))
    guide(right, x=found.facts["min_explained"])
    for axes in (left, right):
        axes.set_ylim(len(y) - 0.5, -0.5)
    left.set_xlabel("share of the neurons")
    right.set_xlabel("share of the variance that is explained (held-out R²)")
    return figure


@styled
def universal_attention(found: "Universality") -> Figure:
    """The change of a head's attention to BOS by a neuron: by the gradient, and by ablation."""
    note = (
        f"red: the {CANDIDATES} neurons of each layer with the largest change by the gradient;\n"
        "grey: random neurons; for an activation of a standard deviation more"
    )
    figure, (axes,) = _panels(found, "Attention to BOS by ablation", note, (5.6, 4.4))
    rows = {kind: judged_heads(found.attention, kind) for kind in ("random", "candidate")}
    if all(of.empty for of in rows.values()):
        say(axes, "no neuron was ablated")
    else:
        for kind, colour in (("random", NORMAL), ("candidate", ENTROPY)):
            axes.scatter(rows[kind]["bos_change"], rows[kind]["bos_change_ablated"], s=14, color=colour, linewidths=0)
        axes.axline((0, 0), slope=1, color=QUIET, linewidth=0.6)
        guide(axes, x=0, y=0, width=0.5, line=":")
    axes.set_xlabel("change by the gradient")
    axes.set_ylabel("change by ablation")
    return figure


@styled
def universal_composition(found: "Universality") -> Figure:
    """The strongest composition of each neuron, as a multiple of its chance level."""
    note = "red: universal neurons; grey: others; dashed: the chance level of the largest of as many cosines"
    figure, panels = _panels(found, "Composition with other neurons", note, (9, 3.6), columns=2)
    table = found.composition.assign(times=found.composition["cosine"].abs() / found.composition["chance"])
    for axes, side, label in zip(
        panels, ("in", "out"), ("an earlier neuron writes", "a later neuron reads"), strict=True
    ):
        rows = table[table["side"] == side]
        if rows.empty:
            say(axes, "the model has one layer")
        universal = rows["is_universal"].astype(bool)
        for some, colour in ((~universal, NORMAL), (universal, ENTROPY)):
            if some.any():
                axes.ecdf(rows["times"][some], color=colour, linewidth=1.3)
        guide(axes, x=1)
        verb = "reads" if side == "in" else "writes"
        axes.set_xlabel(f"largest |cosine| of what the neuron {verb}\nand {label}, over its chance level")
    panels[0].set_ylabel("share of the neurons below")
    return figure


FIGURES: dict[str, Callable[["Universality"], Figure]] = {
    "universal_layers": universal_layers,
    "universal_excess": universal_excess,
    "universal_families": universal_families,
    "universal_moments": universal_moments,
    "universal_properties": universal_properties,
    "universal_depth": universal_depth,
    "universal_vocabulary": universal_vocabulary,
    "universal_explanations": universal_explanations,
    "universal_attention": universal_attention,
    "universal_composition": universal_composition,
}


def _points(axes: Axes, first: pd.DataFrame, x: pd.Series, y: pd.Series) -> None:
    for some, colour, size in ((~first["is_universal"], NORMAL, 6), (first["is_universal"], ENTROPY, 9)):
        axes.scatter(x[some], y[some], s=size, color=colour, alpha=0.7, linewidths=0)
    say_if_empty(axes, x, y)


def _extremes(rows: pd.DataFrame) -> str:
    """The most and the least promoted tokens, a line each."""
    named = rows[rows["word"].notna()].sort_values("cosine")
    half = len(named) // 2
    lines = []
    for sign, words in (("+", named["word"].iloc[half:].iloc[::-1]), ("−", named["word"].iloc[:half])):
        lines += [f"{sign} " + " ".join(repr(word)[1:-1] for word in part) for part in (words.iloc[:4], words.iloc[4:])]
    return "\n".join(lines)


def _panels(
    found: "Universality", subject: str, note: str, size: tuple[float, float], rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    others = len(found.facts["models"]) - 1
    models = f"{model_name(found.facts)} and {others} other{'s' * (others > 1)}"
    return canvas(models, subject, note, rows, columns, size)

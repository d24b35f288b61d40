"""Which neurons recur in other models, in a few sentences."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxconf.results.words import counted, counts_doubts, number, reading_notes
from jaxconf.studies.universal.attention import judged_heads

if TYPE_CHECKING:
    from jaxconf.studies.universal.study import Universality

OF_INTEREST = ("entropy", "null_space")
SIGNIFICANT = 0.01
LIMITS = (
    "Correlations say which neurons are active on the same tokens, not that they have the same function. Families "
    "other than entropy and frequency are judged by weights and activations, not by ablations. Fisher's test assumes "
    "independent neurons, but those of one model are not independent. A feature that explains an activation need not "
    "be what the neuron reads."
)


def sentences(found: "Universality") -> list[str]:
    """What the numbers show, and then what they do not show."""
    first, others = of_first(found), len(found.facts["models"]) - 1
    among = f"{others} other models" if others > 1 else "the other model"
    universal = int(first["is_universal"].sum())
    said = [
        f"{universal:,} of {len(first):,} neurons ({universal / len(first):.1%}) are universal: their correlation with "
        f"the best match in {among} is at least {found.facts['min_excess']:g} above the baseline, which is the largest "
        f"correlation with the randomly rotated layers. The median correlation with the best match is "
        f"{number(first['correlation'].median())}, and the median baseline {number(first['baseline'].median())}."
    ]
    if universal:
        most = found.layers.loc[found.layers["share"].idxmax()]
        said.append(
            f"They are most frequent in layer {int(most['layer'])}, where {most['share']:.1%} of the neurons are "
            "universal."
        )
    constant = int(first["correlation"].isna().sum())
    if constant:
        said.append(f"{constant:,} neurons are constant on this text and have no match.")
    families = found.families.set_index("family")
    apart = families.drop(index=list(OF_INTEREST), errors="ignore")
    apart = apart[apart["p"] < SIGNIFICANT].sort_values("p")
    for family, row in apart.iterrows():
        more = "more" if row["share"] > row["share_of_others"] else "less"
        said.append(f"{_words(str(family)).capitalize()} are universal {more} often than others: {_shares(row)}.")
    recur = [_recurrence(families, family) for family in OF_INTEREST]
    return [
        *said,
        *recur,
        _explanations(found),
        *_attention(found),
        *_composition(found),
        *reading_notes(found.facts),
        *counts_doubts(found.facts),
        LIMITS,
    ]


def of_first(found: "Universality") -> pd.DataFrame:
    """The first model's neurons."""
    first = found.neurons[found.neurons["model"] == 0]
    return first.assign(is_universal=first["is_universal"].astype(bool))


def _recurrence(families: pd.DataFrame, family: str) -> str:
    """A sentence on whether neurons of the family recur."""
    words = _words(family)
    if family not in families.index:
        return f"Effects were not measured (--effects 0), so {words} are not known."
    row = families.loc[family]
    if not row["neurons"]:
        return f"The first model has no {words}."
    found = (
        f"Of its {words}, {_shares(row)}. Their median excess is {number(row['excess'])}, that of the other neurons "
        f"{number(row['excess_of_others'])}"
    )
    if np.isnan(row["recurs"]):
        return f"{found}."
    return (
        f"{found}. The best match of such a neuron is of the same kind in {row['recurs']:.0%} of the cases, and the "
        f"best match of another neuron is of this kind in {row['recurs_of_others']:.1%}."
    )


def _explanations(found: "Universality") -> str:
    """A sentence on how many neurons the features of the text explain."""
    table = found.explanations.set_index("feature")
    named = table.drop(index="none")
    named = named[named["neurons"] > 0].sort_values("neurons", ascending=False)
    least = f"at least {found.facts['min_explained']:g} of a neuron's held-out variance"
    if named.empty:
        return f"No feature of the text explains {least}."
    by = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in named["neurons"].items())
    said = f"A feature of the text explains {least} in {counted(int(named['neurons'].sum()), 'neuron')}: {by}."
    shares = 1 - table.loc["none", ["share_of_universal", "share_of_others"]]
    if shares.isna().any():
        return said
    return (
        f"{said} That is so of {shares.iloc[0]:.1%} of the universal neurons and of {shares.iloc[1]:.1%} of the others."
    )


def _attention(found: "Universality") -> list[str]:
    """A sentence on whether ablation confirms what the gradient says about attention to BOS."""
    ablated, random = (judged_heads(found.attention, kind) for kind in ("candidate", "random"))
    if ablated.empty:
        return []
    same = int((np.sign(ablated["bos_change"]) == np.sign(ablated["bos_change_ablated"])).sum())
    own, others = (number(of["bos_change_ablated"].abs().median()) for of in (ablated, random))
    return [
        f"{counted(len(ablated), 'neuron')} of the layers but the last, those that by the gradient change attention to "
        f"BOS most, were set to 0. In {same:,} cases this changes the attention in the direction that the gradient "
        f"says. In {int(ablated['confirmed'].sum()):,} of them the change by a standard deviation is "
        f"{found.facts['min_bos_change']:g} or more, and larger than that of any random neuron of the layer. The "
        f"median size of the change is {own}, and that of random neurons {others}."
    ]


def _composition(found: "Universality") -> list[str]:
    """A sentence on the composition of universal neurons."""
    size, universal = found.composition["cosine"].abs(), found.composition["is_universal"].astype(bool)
    if not universal.any():
        return []
    beyond = size > found.composition["chance"]
    others = "" if universal.all() else f", and in {beyond[~universal].mean():.1%} for the others"
    top = found.composition.loc[size[universal].idxmax()]
    pair = [f"{top['layer']}.{top['neuron']}", f"{top['partner_layer']}.{top['partner_neuron']}"]
    writer, reader = pair if top["side"] == "out" else pair[::-1]
    return [
        "The strongest cosine of what a neuron writes with what a later one reads is beyond chance in "
        f"{beyond[universal].mean():.1%} of the cases for universal neurons{others}. The strongest of all is that of "
        f"{writer}, which writes, and {reader}, which reads: {number(top['cosine'])}. Random pairs of these two layers "
        f"are below {number(top['random'])} in size in 99% of the cases."
    ]


def _words(family: str) -> str:
    return family.replace("null_space", "null-space").replace("_", "-") + " neurons"


def _shares(row: pd.Series) -> str:
    return (
        f"{row['universal']:,.0f} of {row['neurons']:,.0f} are universal, and {row['share_of_others']:.1%} of the "
        f"neurons outside the family (p = {row['p']:.2g})"
    )

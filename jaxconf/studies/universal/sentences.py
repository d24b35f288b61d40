"""Which neurons recur in other models, in a few sentences."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxconf.results.words import counts_doubts, number

if TYPE_CHECKING:
    from jaxconf.studies.universal.study import Universality

OF_INTEREST = ("entropy", "null_space")
SIGNIFICANT = 0.01
LIMITS = (
    "Correlations say which neurons are active on the same tokens, not that they have the same function. Families "
    "other than entropy and frequency are judged by weights and activations, not by ablations. Fisher's test assumes "
    "independent neurons, but those of one model are not independent."
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
    recurrence = (_recurrence(families, family) for family in OF_INTEREST)
    return [*said, *recurrence, *counts_doubts(found.facts), LIMITS]


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


def _words(family: str) -> str:
    return family.replace("null_space", "null-space").replace("_", "-") + " neurons"


def _shares(row: pd.Series) -> str:
    return (
        f"{row['universal']:,.0f} of {row['neurons']:,.0f} are universal, and {row['share_of_others']:.1%} of the "
        f"neurons outside the family (p = {row['p']:.2g})"
    )

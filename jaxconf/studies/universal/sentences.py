"""Which neurons recur in other models, in a few sentences."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxconf.results.words import number

if TYPE_CHECKING:
    from jaxconf.studies.universal.study import Universality

OF_INTEREST = ("entropy", "null_space")
SIGNIFICANT = 0.01
LIMITS = (
    "This says which neurons are active on the same tokens, not that they do the same there; families other than "
    "entropy and frequency rest on weights and activations, not on ablations; and the test takes neurons as "
    "independent, which those of one model are not."
)


def sentences(found: "Universality") -> list[str]:
    """What the numbers show, and what they do not."""
    first, others = of_first(found), len(found.facts["models"]) - 1
    among = f"{others} other models" if others > 1 else "the other model"
    universal = int(first["is_universal"].sum())
    said = [
        f"{universal:,} of {len(first):,} neurons ({universal / len(first):.1%}) are universal: their best match in "
        f"{among} correlates by at least {found.facts['min_excess']:g} more than the best of the randomly rotated "
        f"layers does. The median neuron's best match correlates {number(first['correlation'].median())}, its baseline "
        f"{number(first['baseline'].median())}."
    ]
    if universal:
        most = found.layers.loc[found.layers["share"].idxmax()]
        said.append(f"They are most frequent in layer {int(most['layer'])}, {most['share']:.1%} of its neurons.")
    constant = int(first["correlation"].isna().sum())
    if constant:
        said.append(f"{constant:,} neurons are constant on this text and have no match.")
    families = found.families.set_index("family")
    apart = families.drop(index=list(OF_INTEREST), errors="ignore")
    apart = apart[apart["p"] < SIGNIFICANT].sort_values("p")
    for family, row in apart.iterrows():
        more = "more" if row["share"] > row["share_of_others"] else "less"
        said.append(f"{_words(str(family)).capitalize()} are universal {more} often than others: {_shares(row)}.")
    return [*said, *(_recurrence(families, family) for family in OF_INTEREST), LIMITS]


def of_first(found: "Universality") -> pd.DataFrame:
    """The first model's neurons."""
    first = found.neurons[found.neurons["model"] == 0]
    return first.assign(is_universal=first["is_universal"].astype(bool))


def _recurrence(families: pd.DataFrame, family: str) -> str:
    """Whether neurons of the family recur."""
    words = _words(family)
    if family not in families.index:
        return f"Whether {words} recur by their effects was not asked (--effects 0)."
    row = families.loc[family]
    if not row["neurons"]:
        return f"The first model has no {words}."
    found = (
        f"Of its {words} {_shares(row)}, and their median excess is {number(row['excess'])}, that of the others "
        f"{number(row['excess_of_others'])}"
    )
    if np.isnan(row["recurs"]):
        return f"{found}."
    return (
        f"{found}; the best match of one is one too in {row['recurs']:.0%} of the cases, that of another neuron in "
        f"{row['recurs_of_others']:.1%}."
    )


def _words(family: str) -> str:
    return family.replace("null_space", "null-space").replace("_", "-") + " neurons"


def _shares(row: pd.Series) -> str:
    return (
        f"{row['universal']:,.0f} of {row['neurons']:,.0f} are universal, of the neurons outside the family "
        f"{row['share_of_others']:.1%} (p = {row['p']:.2g})"
    )

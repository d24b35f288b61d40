"""What the tables of `jaxconf carry` say of each set: whether it influences the entropy, and whether it carries it.

Each function but `labels` takes a result that holds one text (`Carry.of`).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxconf.results.published_rules import GATE_ENTROPY
from jaxconf.studies.carry.positions import STREAM
from jaxconf.studies.carry.sets import CORRELATED

if TYPE_CHECKING:
    from jaxconf.studies.carry.study import Carry

ROUNDING = 1e-9  # an R² that is not larger is that of a constant prediction
REACHED = 0.05  # the largest share of the random sets that may have at least as much
SHARE = 0.8  # of what can be decoded, which the first principal directions must hold


def worst(found: "Carry", name: str, value: str = "entropy", by: str = "gap") -> dict[str, Any]:
    """The row of `carrying` for a set of features, of the split in which `by` is smallest."""
    rows = found.carrying[(found.carrying["set"] == name) & (found.carrying["value"] == value)]
    return rows.loc[rows[by].fillna(np.inf).idxmin()].to_dict()


def influence_of(found: "Carry", name: str) -> dict[str, Any]:
    """The row of `influence` of a set."""
    rows = found.influence[(found.influence["set"] == name) & (found.influence["kind"] != "neuron")]
    return rows.iloc[0].to_dict()


def influences(row: dict[str, Any], random: pd.Series) -> bool:
    """Whether a set influences the entropy, by its row of `influence` and the influence of its random sets.

    The interval of its change must lie above 0.02 nats, as much as the rule `gates` asks for, and that of the
    difference from random sets above 0; and hardly any random set may have as much.
    """
    own = row["entropy_abs_delta_lo"] > GATE_ENTROPY and row["gap_lo"] > 0
    return bool(own and (random >= row["entropy_abs_delta"]).mean() <= REACHED)


def carries(row: dict[str, Any], random: pd.Series) -> bool:
    """Whether a set carries a value, by its row of `carrying` in the worst split and the R² of its random sets there.

    The intervals of R² and of its difference from random sets must lie above 0, and hardly any random set may have as
    much. The difference is one from their mean, which a fifth of the random sets may exceed too.
    """
    own = row["r2_lo"] > ROUNDING and row["gap_lo"] > ROUNDING
    return bool(own and (random >= row["r2"]).mean() <= REACHED)


def verdict(influence: bool, carrying: bool) -> str:
    if influence:
        return "causal and a carrier" if carrying else "causal but not a carrier"
    return "a carrier but not causal" if carrying else "neither causal nor a carrier"


def directions_needed(found: "Carry", value: str = "entropy") -> int | None:
    """How many first principal directions hold SHARE of what can be decoded from the stream, in the worst split.

    None if nothing can be decoded, or if all directions together hold less.
    """
    row = worst(found, STREAM, value, "r2")
    curve = found.components[found.components["split"] == row["split"]]
    enough = curve.loc[curve[value] >= SHARE * row["r2"], "number"]
    return int(enough.min()) if row["r2"] > 0 and len(enough) else None


def labels(found: "Carry") -> dict[str, str]:
    """Each text → the last part of its name, which may be a path; the whole name where two end alike."""
    names = list(found.facts["texts"])
    last = [name.rstrip("/").rpartition("/")[2] for name in names]
    return dict(zip(names, last if len(set(last)) == len(last) else names, strict=True))


def random_influence(found: "Carry", beside: str) -> pd.Series:
    """The influence of the random sets beside a set, by their names."""
    rows = found.influence[(found.influence["kind"] == "random") & (found.influence["beside"] == beside)]
    return rows.set_index("set")["entropy_abs_delta"]


def random_r2(found: "Carry", beside: str, split: int, value: str = "entropy") -> pd.Series:
    """The R² of the random sets beside a set in a split, by their names."""
    rows = found.carrying[(found.carrying["kind"] == "random") & (found.carrying["beside"] == beside)]
    return rows[(rows["split"] == split) & (rows["value"] == value)].set_index("set")["r2"]


def table_of_verdicts(found: "Carry") -> pd.DataFrame:
    """A row for each set that is not random, with the numbers of its worst split."""
    rows = []
    for name in [*found.facts["sets"], CORRELATED]:
        own, row = influence_of(found, name), worst(found, name)
        stream = found.carrying[(found.carrying["set"] == STREAM) & (found.carrying["value"] == "entropy")]
        whole = float(stream.loc[stream["split"] == row["split"], "r2"].iloc[0])
        columns: dict[str, Any] = {"set": name, "data": row["data"], "size": row["size"]}
        for end in ("", "_lo", "_hi"):
            columns |= {f"influence{end}": own[f"entropy_abs_delta{end}"], f"R²{end}": row[f"r2{end}"]}
            columns |= {f"gap{end}": row[f"gap{end}"]}
        columns |= {"random": row["r2"] - row["gap"], "of decodable": row["r2"] / whole if whole > 0 else np.nan}
        does = influences(own, random_influence(found, own["beside"]))
        has = carries(row, random_r2(found, row["beside"], row["split"]))
        rows.append(columns | {"verdict": verdict(does, has)})
    return pd.DataFrame(rows)

"""The neurons or components of the last layer that are ablated or scaled together, beside random sets of as many.

Letters: n neuron of the last layer, or component.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jaxconf.measure.named_sets import Population
from jaxconf.measure.selections import Selection
from jaxconf.measure.treated_sets import Treated
from jaxconf.models.errors import InputError

MEAN = "mean"  # the treatment that sets activations to their means; others are named as by `scaling_name`


def check_factors(scale: Sequence[float]) -> None:
    """Raises InputError for factors on activations that are not finite, or of which two have the same name."""
    names = [scaling_name(factor) for factor in scale]
    if not np.isfinite(list(scale)).all() or len(set(names)) < len(names):
        raise InputError(f"scale is {', '.join(map(str, scale))}; give different finite factors, such as 0 2")


def scaling_name(factor: float) -> str:
    """The name of the treatment that multiplies activations by a factor, such as "x2"."""
    return f"x{factor:g}"


def treated(
    found: Sequence[Selection], factors: Sequence[float], means: Mapping[Population, np.ndarray]
) -> tuple[pd.DataFrame, list[Treated]]:
    """A row per treatment and set, and what it does to activations; the first row is of no ablation.

    `factors`: by which activations are multiplied, besides setting them to the `means` of their population, [n].
    Columns `treatment`, `selection`, `set`, `kind` ("none", "set" or "random") and `members`.
    """
    rows = [{"treatment": "none", "selection": "none", "set": "no ablation", "kind": "none", "members": ""}]
    done = [Treated(found[0].own, 0, 0)]
    for factor in (None, *factors):
        for own in found:
            for one in own.sets:
                name = MEAN if factor is None else scaling_name(factor)
                place = {"treatment": name, "selection": own.name, "set": one.name, "kind": one.kind}
                rows.append({**place, "members": one.listed})
                to_mean = Treated(one, means[one.population][one.indices], 1)
                done.append(to_mean if factor is None else Treated(one, 0, 1 - factor))
    return pd.DataFrame(rows), done


def table_of_neurons(found: Sequence[Selection], means: Mapping[Population, np.ndarray]) -> pd.DataFrame:
    """A row per selection and neuron or component, with the mean that its activation is set to."""
    parts = []
    for own in found:
        mean = means[own.own.population][own.own.indices]
        parts.append(pd.DataFrame({"selection": own.name, "neuron": own.own.names, "activation_mean": mean}))
    return pd.concat(parts, ignore_index=True)

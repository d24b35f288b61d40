"""The neurons of the last layer that are ablated or scaled together, beside random sets of as many others.

Letters: c neuron set, k neuron of a set, n neuron of the last layer.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxconf.analysis.ablated_sets import Ablations
from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.measure.selections import Selection
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


def treated(found: Sequence[Selection], factors: Sequence[float], means: np.ndarray) -> tuple[pd.DataFrame, Ablations]:
    """A row per treatment and set, and what it does to activations; the first row is of no ablation.

    `factors`: by which activations are multiplied, besides setting them to their `means` [n]. Columns `treatment`,
    `selection`, `set`, `kind` ("none", "set" or "random") and `members`.
    """
    width = max(len(own.neurons) for own in found)
    rows = [{"treatment": "none", "selection": "none", "set": "no ablation", "kind": "none", "members": ""}]
    members, values, ablated = ([np.zeros(width, kind)] for kind in (np.int64, np.float32, np.float32))
    for factor in (None, *factors):
        for own in found:
            for one in own.sets:
                name = MEAN if factor is None else scaling_name(factor)
                place = {"treatment": name, "selection": own.name, "set": one.name, "kind": one.kind}
                rows.append({**place, "members": one.listed})
                indices = np.array([index for _, index in one.members])
                real = np.arange(width) < len(indices)
                indices = np.pad(indices, (0, width - len(indices)), mode="edge")
                members.append(indices)
                values.append((means[indices] * (factor is None)).astype(np.float32))
                ablated.append((real * (1 if factor is None else 1 - factor)).astype(np.float32))
    return pd.DataFrame(rows), Ablations(np.stack(members), np.stack(values), np.stack(ablated))


def table_of_neurons(found: Sequence[Selection], means: np.ndarray) -> pd.DataFrame:
    """A row per selection and neuron, with the mean that its activation is set to."""
    rows = [(own.name, neuron_name(*pair), means[pair[1]]) for own in found for pair in own.neurons]
    return pd.DataFrame(rows, columns=["selection", "neuron", "activation_mean"])

"""The neurons of the last layer that are ablated or scaled together, beside random sets of as many others.

Letters: c neuron set, k neuron of a set, n neuron of the last layer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.ablated_sets import Ablations
from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.analysis.neuron_sets import random_sets
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import null_space_size, rho
from jaxconf.measure.named_sets import NamedSet, beside_random
from jaxconf.measure.neuron_sets import check_form, check_last_layer, highest_rho
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Kind

KINDS: tuple[Kind, ...] = ("entropy", "frequency")
MEAN = "mean"  # the treatment that sets activations to their means; others are named as by `scaling_name`


class Selection(NamedTuple):
    """Neurons that are treated together, and the random sets that they are compared with."""

    name: str
    neurons: list[tuple[int, int]]
    sets: list[NamedSet]  # the neurons, and random sets
    by: str  # how they were chosen


def selections(
    lm: LanguageModel,
    run: str | Path | None,
    sets: Sequence[Sequence[Sequence[int]]],
    controls: int,
    k: int | None,
    seed: int,
) -> list[Selection]:
    """The "entropy" and "frequency" neurons of an analysis in the folder `run`, and each of `sets`, "set 1" and so on.

    If neither is given, the neurons of the "highest rho", for which `k` is the size of the null space. Each has
    `controls` random sets. Raises InputError for neurons of other layers than the last, for a folder that is no run or
    that names no such neurons, and as `check_last_layer` does.
    """
    found = [(name, neurons, f"the rule of {run}") for name, neurons in _of_run(lm, run).items()] if run else []
    for number, own in enumerate(sets, 1):
        check_form(lm.config, own, f"set {number}")
        found.append((f"set {number}", [(layer, index) for layer, index in own], "name"))
    if not found:
        size = null_space_size(lm.config, k)
        every = rho(fetched(readout(lm.config, lm.params).w_out), spectrum(lm.config, lm.params), size)
        found.append(("highest rho", highest_rho(lm.config, every), f"the highest rho({size}) of the last layer"))
    chosen = []
    for number, (name, neurons, by) in enumerate(found):
        own = check_last_layer(lm.config, neurons, controls)
        drawn = random_sets(lm.config, own, controls, np.random.default_rng([seed, number]))
        chosen.append(Selection(name, own, beside_random(own, drawn), by))
    return chosen


def _of_run(lm: LanguageModel, run: str | Path) -> dict[str, list[tuple[int, int]]]:
    """Kind → the neurons of the last layer that an analysis names, for each kind that has some."""
    table, last = NeuronTable.load(run), lm.config.n_layers - 1
    shape = {"n_layers": lm.config.n_layers, "n_neurons": lm.config.d_mlp}
    if any(table.facts.get(name, size) != size for name, size in shape.items()):
        raise InputError(f"the analysis in {run} is of a model of another shape; give one of this model")
    found = {}
    for kind in KINDS:
        members = table.members(kind)
        own = members[members["layer"] == last]
        found[kind] = [(last, int(index)) for index in own["neuron"]]
    named: dict[str, list[tuple[int, int]]] = {kind: neurons for kind, neurons in found.items() if neurons}
    if not named:
        raise InputError(
            f"the analysis in {run} names no entropy or frequency neurons of layer {last}; name neurons with --set"
        )
    return named


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

"""Which neurons of the last layer a study treats together, and the random sets that they are compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxconf.analysis.neuron_sets import random_sets
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import null_space_size, rho
from jaxconf.measure.named_sets import NamedSet, beside_random
from jaxconf.measure.neuron_sets import check_form, check_last_layer, highest_rho
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS


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


def table_of_run(lm: LanguageModel, run: str | Path) -> NeuronTable:
    """The neuron table of a finished analysis of the same model, with the neurons of the last layer only.

    Raises InputError if it is of another model, which the lengths of the write directions tell, or of other layers.
    """
    table, config = NeuronTable.load(run), lm.config
    last = table.neurons[table.neurons["layer"] == config.n_layers - 1].sort_values("neuron")
    norms = np.linalg.norm(fetched(readout(config, lm.params, table.facts["convention"]).w_out), axis=1)
    if len(last) != config.d_mlp or not np.allclose(last["w_norm"], norms, rtol=1e-2):
        raise InputError(
            f"the run {run} is of another model or of other layers than the last of {lm.name}; give the folder of "
            "`jaxconf analyze` on this model"
        )
    table.frame = last.drop(columns=["component", "name"], errors="ignore").reset_index(drop=True)
    return table


def _of_run(lm: LanguageModel, run: str | Path) -> dict[str, list[tuple[int, int]]]:
    """Kind → the neurons of the last layer that an analysis names, for each kind that has some."""
    table, last = table_of_run(lm, run), lm.config.n_layers - 1
    found = {kind: [(last, int(index)) for index in table.members(kind)["neuron"]] for kind in KINDS}
    named: dict[str, list[tuple[int, int]]] = {kind: neurons for kind, neurons in found.items() if neurons}
    if not named:
        raise InputError(
            f"the analysis in {run} names no entropy or frequency neurons of layer {last}; name neurons with --set"
        )
    return named

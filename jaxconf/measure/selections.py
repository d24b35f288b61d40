"""Which sets of the last layer a study treats, and the random sets that they are compared with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import null_space_size, rho
from jaxconf.measure.chosen_sets import Checked, check_chosen
from jaxconf.measure.named_sets import NamedSet, Population, beside_random
from jaxconf.measure.neuron_sets import Named, check_last_layer, highest_rho
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS


class Selected(NamedTuple):
    """Neurons or components that are treated together."""

    name: str
    of: Checked
    by: str  # how they were chosen


class Selection(NamedTuple):
    """Those, and the random sets that they are compared with."""

    name: str
    sets: list[NamedSet]  # the set itself first
    by: str

    @property
    def own(self) -> NamedSet:
        return self.sets[0]


def selected(
    lm: LanguageModel, run: str | Path | None, sets: Sequence[Named], components: str, controls: int, k: int | None
) -> list[Selected]:
    """The "entropy" and "frequency" neurons of an analysis in the folder `run`, and each of `sets`, "set 1" and so on.

    If neither is given, the neurons of the "highest rho", for which `k` is the size of the null space. The other
    arguments are as for `jaxconf.measure.chosen_sets.check_chosen`. Raises InputError as that does, and for a folder
    that is no run or that names no such neurons of the last layer.
    """
    given = [
        Selected(f"set {number}", of, "name")
        for number, of in enumerate(check_chosen(lm.config, sets, components, controls, k), 1)
    ]
    of_run = _of_run(lm, run).items() if run else ()
    found = [
        Selected(kind, Checked("neuron", check_last_layer(lm.config, neurons, controls)), f"the rule of {run}")
        for kind, neurons in of_run
    ]
    if found or given:
        return [*found, *given]
    size = null_space_size(lm.config, k)
    every = rho(fetched(readout(lm.config, lm.params).w_out), spectrum(lm.config, lm.params), size)
    best = Checked("neuron", highest_rho(lm.config, every))
    return [Selected("highest rho", best, f"the highest rho({size}) of the last layer")]


def selections(
    found: Sequence[Selected], populations: Mapping[str, Population], controls: int, seed: int
) -> list[Selection]:
    """Each with `controls` random sets. `populations`: from `jaxconf.measure.chosen_sets.populations`."""
    return [
        Selection(
            name,
            beside_random(populations[of.component], of.members, controls, np.random.default_rng([seed, number])),
            by,
        )
        for number, (name, of, by) in enumerate(found)
    ]


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

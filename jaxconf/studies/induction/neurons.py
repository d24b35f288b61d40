"""The chosen set and the random sets; and weights and mean activations of all neurons of the chosen layers.

If components are chosen, all of their kind are in the neurons' place.

Letters: t position, n neuron.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.induction import halves
from jaxconf.analysis.observation import Totals
from jaxconf.analysis.unembedding import Readout, Spectrum, at_layer, readout, spectrum
from jaxconf.analysis.weights import chance_rho, rho
from jaxconf.measure.named_sets import Members, NamedSet, Population, beside_random
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.studies.induction.repeated_text import Shown


class Chosen(NamedTuple):
    """The chosen set of neurons or components, and random sets of as many."""

    compared: list[NamedSet]  # the chosen set first

    @property
    def own(self) -> NamedSet:
        return self.compared[0]

    @property
    def random(self) -> list[NamedSet]:
        return self.compared[1:]

    @property
    def sets(self) -> list[NamedSet]:
        """Each chosen neuron alone, if there are several, and then the sets of `compared`."""
        population = self.own.population
        alone = [NamedSet(population.name(one), "neuron", [one], population) for one in self.own.members]
        return [*(alone if len(alone) > 1 else []), *self.compared]

    @property
    def shown(self) -> list[Shown]:
        """The chosen neurons, and those of the first random set."""
        return [
            Shown(self.own.population.name(member), member, kind)
            for kind, of in (("chosen", [self.own]), ("random", self.random[:1]))
            for one in of
            for member in one.members
        ]

    @property
    def layers(self) -> set[int]:
        return {layer for layer, _ in self.own.members}


def choose(population: Population, members: Members, controls: int, seed: int) -> Chosen:
    """The chosen members of a population, and `controls` random sets."""
    return Chosen(beside_random(population, members, controls, np.random.default_rng([seed, 0])))


class NullSpace(NamedTuple):
    """The unembedding, its singular values, and the size of its effective null space."""

    readout: Readout
    spectrum: Spectrum
    k: int


def null_space(lm: LanguageModel, k: int) -> NullSpace:
    """The effective null space of a model's unembedding; `k` is its size."""
    return NullSpace(readout(lm.config, lm.params), spectrum(lm.config, lm.params), k)


def rho_of_last_layer(space: NullSpace) -> np.ndarray:
    """ρ of each neuron of the last layer, float64 [n]."""
    return rho(fetched(space.readout.w_out), space.spectrum, space.k)


def table_of_neurons(lm: LanguageModel, space: NullSpace, means: Totals, chosen: NamedSet) -> pd.DataFrame:
    """The table `Induction.neurons`: a row per neuron of the layers for which `means` has activations."""
    tables = [_rows(lm, space, means, chosen.population, layer) for layer in means.activations]
    table, own = pd.concat(tables, ignore_index=True), set(chosen.members)
    pairs = zip(table["layer"], table["neuron"], strict=True)
    return table.assign(is_chosen=[pair in own for pair in pairs])


def _rows(lm: LanguageModel, space: NullSpace, means: Totals, population: Population, layer: int) -> pd.DataFrame:
    seen = population.readout(lm.config, at_layer(lm.config, lm.params, space.readout, "paper", layer))
    w_out = fetched(seen.w_out)
    first, second = halves(len(means.entropy) // 2)
    at_first, at_second = (means.activations[layer][half].mean(0) for half in (first, second))
    w_norm = np.linalg.norm(w_out, axis=1)
    return pd.DataFrame(
        {
            "layer": layer,
            "neuron": np.arange(population.count),
            "name": [population.name((layer, n)) for n in range(population.count)],
            "w_norm": w_norm,
            "rho": rho(w_out, space.spectrum, space.k),
            "rho_chance": chance_rho(space.k, len(space.spectrum.values), population.count)[0],
            "activation_first": at_first,
            "activation_second": at_second,
            "weighted_change": (at_second - at_first) * w_norm,
        }
    )

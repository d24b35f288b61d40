"""The chosen neurons and the random sets; and weights and mean activations of all neurons of the chosen layers.

Letters: t position, n neuron.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.induction import halves
from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.analysis.neuron_sets import random_sets
from jaxconf.analysis.observation import Totals
from jaxconf.analysis.unembedding import Readout, Spectrum, at_layer, readout, spectrum
from jaxconf.analysis.weights import chance_rho, rho
from jaxconf.measure.named_sets import Members, NamedSet, beside_random
from jaxconf.measure.neuron_sets import check_set
from jaxconf.models.config import DecoderConfig
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.studies.induction.repeated_text import Shown


class Chosen(NamedTuple):
    """The chosen neurons, and random sets of as many neurons."""

    neurons: list[tuple[int, int]]
    random: list[list[tuple[int, int]]]

    @property
    def compared(self) -> list[NamedSet]:
        """The chosen set and the random sets."""
        return beside_random(self.neurons, self.random)

    @property
    def sets(self) -> list[NamedSet]:
        """Each chosen neuron alone, if there are several, and then the sets of `compared`."""
        alone = [NamedSet(neuron_name(*pair), "neuron", [pair]) for pair in self.neurons]
        return [*(alone if len(alone) > 1 else []), *self.compared]

    @property
    def shown(self) -> Shown:
        """The chosen neurons, and those of the first random set."""
        return [
            *((pair, "chosen") for pair in self.neurons),
            *((pair, "random") for of_set in self.random[:1] for pair in of_set),
        ]

    @property
    def layers(self) -> set[int]:
        return {layer for layer, _ in self.neurons}


def choose(config: DecoderConfig, neurons: Members, controls: int, seed: int) -> Chosen:
    """The chosen neurons, (layer, index) each, and `controls` random sets. Raises InputError as `check_set` does."""
    chosen = check_set(config, neurons, controls)
    return Chosen(chosen, random_sets(config, chosen, controls, np.random.default_rng([seed, 0])))


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


def table_of_neurons(lm: LanguageModel, space: NullSpace, means: Totals, chosen: Members) -> pd.DataFrame:
    """The table `Induction.neurons`: a row per neuron of the layers for which `means` has activations."""
    table = pd.concat([_rows(lm, space, means, layer) for layer in means.activations], ignore_index=True)
    pairs = zip(table["layer"], table["neuron"], strict=True)
    return table.assign(is_chosen=[pair in set(chosen) for pair in pairs])


def _rows(lm: LanguageModel, space: NullSpace, means: Totals, layer: int) -> pd.DataFrame:
    w_out = fetched(at_layer(lm.config, lm.params, space.readout, "paper", layer).w_out)
    first, second = halves(len(means.entropy) // 2)
    at_first, at_second = (means.activations[layer][half].mean(0) for half in (first, second))
    w_norm = np.linalg.norm(w_out, axis=1)
    return pd.DataFrame(
        {
            "layer": layer,
            "neuron": np.arange(lm.config.d_mlp),
            "w_norm": w_norm,
            "rho": rho(w_out, space.spectrum, space.k),
            "rho_chance": chance_rho(space.k, len(space.spectrum.values), lm.config.d_mlp)[0],
            "activation_first": at_first,
            "activation_second": at_second,
            "weighted_change": (at_second - at_first) * w_norm,
        }
    )

"""The chosen neurons of the last layer, and the random sets that they are compared with.

Letter: n neuron of the last layer.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.neuron_sets import Neurons, random_sets
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import rho
from jaxconf.measure.named_sets import NamedSet, beside_random
from jaxconf.measure.neuron_sets import check_set, highest_rho, neuron_name
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched


class Chosen(NamedTuple):
    """The chosen set, the random sets, and ρ and norm of all neurons of the last layer."""

    neurons: list[tuple[int, int]]
    sets: list[NamedSet]  # the chosen set, and random sets
    by: str  # how they were chosen
    k: int
    rho: np.ndarray  # float64 [n]
    w_norm: np.ndarray  # float32 [n]

    @property
    def indices(self) -> list[int]:
        """The indices of the chosen neurons in the layer."""
        return [n for _, n in self.neurons]


def choose(lm: LanguageModel, neurons: Neurons | None, controls: int, k: int, seed: int) -> Chosen:
    """The `neurons`, by default those with the highest ρ, and `controls` random sets.

    `k`: size of the null space, for ρ. Raises InputError as `check_chosen` does.
    """
    config = lm.config
    w_out = fetched(readout(config, lm.params).w_out)
    own_rho = rho(w_out, spectrum(config, lm.params), k)
    chosen = check_chosen(config, neurons or highest_rho(config, own_rho), controls)
    drawn = random_sets(config, chosen, controls, np.random.default_rng([seed, 0]))
    by = "name" if neurons else f"the highest rho of layer {config.n_layers - 1}"
    return Chosen(chosen, beside_random(chosen, drawn), by, k, own_rho, np.linalg.norm(w_out, axis=1))


def check_chosen(config: DecoderConfig, neurons: Neurons, controls: int) -> list[tuple[int, int]]:
    """The set of neurons. Raises InputError as `check_set` does, and for neurons of other layers than the last."""
    found = check_set(config, neurons, controls)
    for layer, index in found:
        if layer != config.n_layers - 1:
            raise InputError(
                f"neuron {neuron_name(layer, index)} is not of the last layer, which this study is limited to; name "
                f"neurons of layer {config.n_layers - 1}"
            )
    return found


def table_of_neurons(chosen: Chosen, values: pd.DataFrame) -> pd.DataFrame:
    """The table `Copying.neurons`. `values`: a row per neuron of the layer, with the values that it is set to."""
    n = chosen.indices
    names = [neuron_name(*pair) for pair in chosen.neurons]
    table = pd.DataFrame({"neuron": names, "rho": chosen.rho[n], "w_norm": chosen.w_norm[n]})
    return table.join(values.loc[n].reset_index(drop=True))

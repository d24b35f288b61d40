"""The neurons of the last layer that are ablated together, and the random sets that they are compared with.

Letter: n neuron of the last layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.analysis.neuron_sets import Neurons, random_sets
from jaxconf.analysis.selection import LEAST_RHO, candidates, published_k, scaled_k
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import null_space_size, rho, vocabulary_statistics
from jaxconf.measure.named_sets import NamedSet, beside_random
from jaxconf.measure.neuron_sets import check_last_layer, highest_rho
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched, mesh_of

CHOSEN, PUBLISHED = "chosen", "published"
"""The selections: the neurons that were named or have the highest ρ, and those by the rule of Tighidet et al. 2025."""


class Selection(NamedTuple):
    """Neurons, random sets, and weight statistics of all neurons of the last layer."""

    name: str  # CHOSEN or PUBLISHED
    neurons: list[tuple[int, int]]
    sets: list[NamedSet]  # the neurons, and random sets
    by: str  # how they were chosen
    k: int
    k_from: str  # why k has that value
    rho: np.ndarray  # float64 [n]
    logit_var: np.ndarray  # float32 [n]
    w_norm: np.ndarray  # float32 [n]

    @property
    def indices(self) -> list[int]:
        """The indices of the neurons in the layer."""
        return [n for _, n in self.neurons]


def selections(
    lm: LanguageModel, neurons: Neurons | None, controls: int, k: int | None, as_published: bool, seed: int
) -> list[Selection]:
    """The `neurons`, by default those with the highest ρ; then those of the published rule, if `as_published`.

    Each has `controls` random sets. `k`: size of the null space, for ρ; by default as in `jaxconf.analyze`, and for the
    published rule that of the paper. Raises InputError as `check_last_layer` does, for a bad `k`, and if no neuron
    meets the published rule.
    """
    config, last = lm.config, lm.config.n_layers - 1
    seen, values = readout(config, lm.params), spectrum(config, lm.params)
    w_out = fetched(seen.w_out)
    of_weights = fetched(vocabulary_statistics(mesh_of(lm.params), seen, jnp.zeros(config.vocab_size)))
    logit_var, w_norm = of_weights["logit_var"], of_weights["w_norm"]

    def selection(name: str, own: Neurons, by: str, size: int, k_from: str, own_rho: np.ndarray) -> Selection:
        chosen = check_last_layer(config, own, controls)
        drawn = random_sets(config, chosen, controls, np.random.default_rng([seed, 0]))
        return Selection(name, chosen, beside_random(chosen, drawn), by, size, k_from, own_rho, logit_var, w_norm)

    size, k_from = null_space_size(config, k), "the default" if k is None else "as given"
    own_rho = rho(w_out, values, size)
    by = "name" if neurons else f"the highest rho of layer {last}"
    found = [selection(CHOSEN, neurons or highest_rho(config, own_rho), by, size, k_from, own_rho)]
    if as_published:
        size, k_from = published_size(config, k)
        own_rho = rho(w_out, values, size)
        indices = candidates(logit_var, own_rho)
        if not len(indices):
            raise InputError(
                f"no neuron of layer {last} has a rho({size}) of {LEAST_RHO:g} or more, as the published rule asks; "
                "give a larger k, or leave as_published out"
            )
        by = f"the lowest LogitVar among the neurons of layer {last} with a rho({size}) of {LEAST_RHO:g} or more"
        found.append(selection(PUBLISHED, [(last, int(n)) for n in indices], by, size, k_from, own_rho))
    return found


def published_size(config: DecoderConfig, k: int | None) -> tuple[int, str]:
    """k for the published rule, and why it has that value. `k`: what the user gave."""
    if k is not None:
        return null_space_size(config, k), "as given"
    own = published_k(config)
    if own is not None:
        return own, "as the paper has it for a model of this shape"
    return (
        scaled_k(config.d_model),
        "as the paper has no model of this shape, and k is 3/128 of the width in all of its models except GPT-2 Small",
    )


def table_of_neurons(found: Sequence[Selection], values: pd.DataFrame) -> pd.DataFrame:
    """The table `Copying.neurons`. `values`: a row per neuron of the layer, with the values that it is set to."""
    parts = []
    for own in found:
        n = own.indices
        names = [neuron_name(*pair) for pair in own.neurons]
        columns = {"k": own.k, "rho": own.rho[n], "logit_var": own.logit_var[n], "w_norm": own.w_norm[n]}
        table = pd.DataFrame({"selection": own.name, "neuron": names, **columns})
        parts.append(table.join(values.loc[n].reset_index(drop=True)))
    return pd.concat(parts, ignore_index=True)

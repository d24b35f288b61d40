"""The neurons of the last layer, or components, that are ablated together, and the random sets beside them.

Letter: n neuron of the last layer, or component.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.selection import LEAST_RHO, candidates, published_k, scaled_k
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import null_space_size, rho, vocabulary_statistics
from jaxconf.measure.chosen_sets import Checked
from jaxconf.measure.named_sets import NamedSet, Population, beside_random
from jaxconf.measure.neuron_sets import check_last_layer, highest_rho
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched, mesh_of

CHOSEN, PUBLISHED = "chosen", "published"
"""The selections: what was named or has the highest ρ, and the neurons by the rule of Tighidet et al. 2025."""


class Selection(NamedTuple):
    """Neurons or components, random sets, and weight statistics of all that they are drawn from."""

    name: str  # CHOSEN or PUBLISHED
    sets: list[NamedSet]  # the selected set, and random sets
    by: str  # how it was chosen
    k: int
    k_from: str  # why k has that value
    rho: np.ndarray  # float64 [n]
    logit_var: np.ndarray  # float32 [n]
    w_norm: np.ndarray  # float32 [n]

    @property
    def own(self) -> NamedSet:
        return self.sets[0]


def selections(
    lm: LanguageModel,
    chosen: Checked | None,
    populations: Mapping[str, Population],
    controls: int,
    k: int | None,
    as_published: bool,
    seed: int,
) -> list[Selection]:
    """The `chosen` set, by default the neurons with the highest ρ; then those of the published rule, if `as_published`.

    Each has `controls` random sets. `populations`: from `jaxconf.measure.chosen_sets.populations`. `k`: size of the
    null space, for ρ; by default as in `jaxconf.analyze`, and for the published rule that of the paper. Raises
    InputError for a bad `k`, as `check_last_layer` does, and if no neuron meets the published rule.
    """
    config, last = lm.config, lm.config.n_layers - 1
    seen, values = readout(config, lm.params), spectrum(config, lm.params)

    @functools.cache
    def weights_of(component: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What a population writes, [n d], and its statistics over the vocabulary, [n] each."""
        own = populations[component].readout(config, seen)
        return fetched((own.w_out, vocabulary_statistics(mesh_of(lm.params), own, jnp.zeros(config.vocab_size))))

    def selection(name: str, of: Checked, by: str, size: int, k_from: str) -> Selection:
        population, (w_out, weights) = populations[of.component], weights_of(of.component)
        statistics = rho(w_out, values, size), weights["logit_var"], weights["w_norm"]
        sets = beside_random(population, of.members, controls, np.random.default_rng([seed, 0]))
        return Selection(name, sets, by, size, k_from, *statistics)

    size, k_from = null_space_size(config, k), "the default" if k is None else "as given"
    by = "name" if chosen else f"the highest rho of layer {last}"
    own = chosen or Checked("neuron", highest_rho(config, rho(weights_of("neuron")[0], values, size)))
    found = [selection(CHOSEN, own, by, size, k_from)]
    if as_published:
        size, k_from = published_size(config, k)
        w_out, weights = weights_of("neuron")
        indices = candidates(weights["logit_var"], rho(w_out, values, size))
        if not len(indices):
            raise InputError(
                f"no neuron of layer {last} has a rho({size}) of {LEAST_RHO:g} or more, as the published rule asks; "
                "give a larger k, or leave as_published out"
            )
        by = f"the lowest LogitVar among the neurons of layer {last} with a rho({size}) of {LEAST_RHO:g} or more"
        neurons = check_last_layer(config, [(last, int(n)) for n in indices], controls)
        found.append(selection(PUBLISHED, Checked("neuron", neurons), by, size, k_from))
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


def table_of_neurons(found: Sequence[Selection], values: Mapping[Population, pd.DataFrame]) -> pd.DataFrame:
    """The table `Copying.neurons`. `values`: a row per neuron of the layer, with the values that it is set to."""
    parts = []
    for own in found:
        n = own.own.indices
        columns = {"k": own.k, "rho": own.rho[n], "logit_var": own.logit_var[n], "w_norm": own.w_norm[n]}
        table = pd.DataFrame({"selection": own.name, "neuron": own.own.names, **columns})
        parts.append(table.join(values[own.own.population].loc[n].reset_index(drop=True)))
    return pd.concat(parts, ignore_index=True)

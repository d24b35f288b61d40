"""Statistics of a layer's neurons that follow from the weights alone. Letters: n neuron, v vocabulary."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.analysis.metrics import PUBLISHED, RHO_AT, TIGHIDET
from jaxconf.analysis.nulls import rho_p_values, robust_z
from jaxconf.analysis.unembedding import Convention, Readout, Spectrum, readout, spectrum
from jaxconf.analysis.weights import chance_rho, null_space_size, null_spaces, rho, vocabulary_statistics, weight_cost
from jaxconf.measure.inputs import checked_counts
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched, mesh_of


def weight_statistics(
    lm: LanguageModel, counts: np.ndarray | None = None, convention: Convention = "paper", k: int | None = None
) -> pd.DataFrame:
    """Statistics of every neuron of the last layer from the weights alone, without running the model: a row per neuron.

    Columns `layer`, `neuron`, and as docs/measures.md defines them `w_norm`, `weight_cost` (weights as stored,
    squared), `logit_var`, `vocab_skew`, `vocab_kurtosis`, `rho`, `rho_at_…`, `rho_chance`, `rho_p`, `rho_z`,
    `null_proxy` (pure numbers); with `counts`, int [v] token counts, also `cos_freq`. `lm` may be loaded with
    `layers="last"`. `convention`: "paper" folds and centres the weights, "raw" takes them as they stand. `k`: size
    of the effective null space (by default that of Stolfo et al. for a model of theirs, or else 1% of the width).
    Source: Stolfo et al. 2024 (arXiv 2406.16254), section 3.1. Raises InputError for counts of another length than
    the vocabulary's and for a `k` out of range.
    """
    config = lm.config
    k = null_space_size(config, k)
    freq = frequency(np.zeros(config.vocab_size) if counts is None else checked_counts(counts, config.vocab_size))
    values = spectrum(config, lm.params, convention)
    columns = weight_columns(config, lm.params, readout(config, lm.params, convention), freq, values, k)
    if counts is None:
        del columns["cos_freq"]
    return pd.DataFrame({"layer": config.n_layers - 1, "neuron": np.arange(config.d_mlp), **columns})


def weight_columns(
    config: DecoderConfig,
    params: Params,
    seen: Readout,
    freq: Frequency,
    values: Spectrum,
    k: int,
    layer: int | None = -1,
) -> dict[str, np.ndarray]:
    """The weight statistics of the rows of a readout, `seen`: column of `jaxconf.analysis.metrics` → values [n].

    `layer`: that whose neurons the rows are; None for other directions, which have no weights of their own.
    """
    columns = fetched(vocabulary_statistics(mesh_of(params), seen, freq.u))
    w_out = fetched(seen.w_out)
    columns |= null_space_columns(config, len(w_out), values, k, lambda size: rho(w_out, values, size))
    columns["weight_cost"] = (
        np.full(len(w_out), np.nan) if layer is None else fetched(weight_cost(config, params, layer))
    )
    return columns


def null_space_columns(
    config: DecoderConfig, count: int, values: Spectrum, k: int, rho_of: Callable[[int], np.ndarray]
) -> dict[str, np.ndarray]:
    """The columns of `count` neurons that follow from ρ, float64 [n]; `rho_of`: the size of a null space → ρ."""
    sizes, found = null_spaces(config), rho_of(k)
    columns = {"rho": found, "rho_chance": np.full(count, chance_rho(k, len(values.values), count)[0])}
    for name in (*RHO_AT, PUBLISHED, TIGHIDET):
        columns[name] = rho_of(sizes[name]) if name in sizes else np.full(count, np.nan)
    return {**columns, "rho_p": rho_p_values(found, k, len(values.values)), "rho_z": robust_z(found)}

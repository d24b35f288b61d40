"""The measurements of a model at one step of its training.

Letters: s window, t position, n neuron, v vocabulary, D singular values.
"""

import math
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.calibration import Predicted, expected_calibration_error
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.metrics import COLUMNS
from jaxconf.analysis.predictions import next_token_predictions
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.data.windows import Windows
from jaxconf.measure.analyze import analyze
from jaxconf.measure.components import check_fit, read_components
from jaxconf.measure.weights import weight_columns
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched, mesh_of, over_data
from jaxconf.runtime.batching import batches, joined

DRAWS = 200  # bootstrap resamples, of which the rules need the ends of intervals
NEURON_COLUMNS = tuple(name for name in COLUMNS if name not in ("layer", "neuron", "rho_chance"))


def measure_weights(config: DecoderConfig, params: Params, counts: np.ndarray, k: int) -> dict[str, Any]:
    """Measure the weights of the last layer, which needs no text but its token counts.

    `counts`: token counts, int [v]. `k`: size of the effective null space. Returns the columns of NEURON_COLUMNS that
    need only weights and counts, [n] each; `rho_chance`, a number; and `singular_values`, float64 [D].
    """
    values = spectrum(config, params)
    columns = weight_columns(config, params, readout(config, params), frequency(counts), values, k)
    return {**columns, "rho_chance": float(columns["rho_chance"][0]), "singular_values": values.values}


def measure_effects(
    lm: LanguageModel,
    tokens: np.ndarray | Windows,
    kept: np.ndarray,
    counts: np.ndarray,
    k: int,
    others: str = "",
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """Measure the weights and effects of the last layer's neurons, and of `others`, if there are some.

    Returns what `measure_weights` gives with all NEURON_COLUMNS, and the rows of `NeuronTable.frame` of the others.
    `tokens`: windows, as for `jaxconf.analyze`. `kept`: which positions count, bool [s t]. `counts` and `k`: as for
    `measure_weights`. `others`: components other than neurons, as for `jaxconf.analyze`.
    """
    components = f"neurons,{others}" if others else "neurons"
    table = analyze(lm, tokens, kept=kept, counts=counts, k=k, components=components, bootstrap_draws=DRAWS)
    neurons = table.neurons
    rest = table.frame[table.frame["component"] != "neuron"].reset_index(drop=True) if others else None
    columns = {name: neurons[name].to_numpy() for name in NEURON_COLUMNS}
    rho_chance = float(neurons["rho_chance"].iloc[0])
    return {**columns, "rho_chance": rho_chance, "singular_values": table.singular_values}, rest


def check_others(config: DecoderConfig, components: str) -> None:
    """Raises InputError for `components` that a track does not take, or that a model of this shape does not have."""
    names = read_components(components)
    if "neurons" in names:
        raise InputError("components names neurons, which are tracked anyway; leave them out")
    check_fit(config, names, [config.n_layers - 1])


def measure_predictions(
    config: DecoderConfig, params: Params, tokens: np.ndarray, kept: np.ndarray
) -> dict[str, float]:
    """Mean `loss` and `entropy` (nats), `accuracy` (0 to 1) and `ece` of the predictions at the kept positions.

    `ece` is the expected calibration error (0 to 1); it is NaN if a prediction is not finite. `tokens`: windows, int
    [s t]. `kept`: which positions count, bool [s t].
    """
    of = jax.tree.map(lambda x: x[kept[:, :-1]], predictions_of(config, params, tokens))
    return {
        "loss": float(of.loss.mean()),
        "entropy": float(of.entropy.mean()),
        "accuracy": float(of.correct.mean(dtype=np.float32)),
        "ece": expected_calibration_error(of.confidence, of.correct) if np.isfinite(of.confidence).all() else math.nan,
    }


def predictions_of(config: DecoderConfig, params: Params, tokens: np.ndarray) -> Predicted:
    """The next-token predictions in windows int [s t], as numpy arrays [s t-1].

    Each device along the mesh's axis `data` runs one window at a time.
    """
    mesh = mesh_of(params)
    parts = [
        fetched(next_token_predictions(config, params, over_data(mesh, tokens[index])))
        for index, _ in batches(len(tokens), mesh.shape["data"])
    ]
    return joined(parts, len(tokens))

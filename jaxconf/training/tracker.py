"""Measure a model while it is trained. Letters: s window, t position, p kept position, n neuron, v vocabulary, D singular values."""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.calibration import expected_calibration_error, predicted
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import null_space_size
from jaxconf.data.corpus import Corpus
from jaxconf.data.windows import digest, kept_positions
from jaxconf.measure.analyze import analyze
from jaxconf.measure.facts import shape_facts
from jaxconf.measure.weights import weight_columns
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched, mesh_of, over_data
from jaxconf.results.neuron_table import COLUMNS, Rules
from jaxconf.runtime.version import __version__
from jaxconf.training import emergence
from jaxconf.training.config import TrackConfig, TrainConfig

NEURON_COLUMNS = tuple(name for name in COLUMNS if name not in ("layer", "neuron", "rho_chance"))


def tracked_steps(steps: int, track: TrackConfig) -> list[int]:
    """The steps at which the weights are measured, ascending: 0 (before the first) and `points` from 1 to the last, even on a log scale."""
    if not track.points:
        return []
    return sorted({0, *np.geomspace(1, steps, track.points).round().astype(int).tolist(), steps})


def effect_steps(steps: int, track: TrackConfig) -> frozenset[int]:
    """Those of the tracked steps at which the effects are measured too."""
    return frozenset(tracked_steps(steps, track)[:: -track.effects_every]) if track.effects_every else frozenset()


def measure_weights(config: DecoderConfig, params: Params, counts: np.ndarray, k: int) -> dict[str, Any]:
    """What the weights alone say of the last layer: the columns of `jaxconf.analysis.metrics.COLUMNS` that need no text, [n] each, the number
    rho_chance, and singular_values, float64 [D]. `counts`: token counts, int [v]."""
    values = spectrum(config, params)
    columns = weight_columns(config, params, readout(config, params), frequency(counts), values, k)
    return {**columns, "rho_chance": float(columns["rho_chance"][0]), "singular_values": values.values}


def measure_effects(lm: LanguageModel, tokens: np.ndarray, kept: np.ndarray, counts: np.ndarray, k: int) -> dict[str, Any]:
    """What `measure_weights` gives, and all other columns of the whole analysis, which takes windows [s t] and the kept positions."""
    table = analyze(lm, tokens, kept=kept, counts=counts, k=k, bootstrap_draws=0)
    columns = {name: table.frame[name].to_numpy() for name in NEURON_COLUMNS}
    return {**columns, "rho_chance": float(table.frame["rho_chance"].iloc[0]), "singular_values": table.singular_values}


def measure_predictions(config: DecoderConfig, params: Params, tokens: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    """Mean loss and entropy (nats), accuracy (0 to 1) and expected calibration error of the kept predictions of windows [s t]."""
    mesh, parts = mesh_of(params), []
    for begin in range(0, len(tokens), mesh.shape["data"]):
        places = np.arange(begin, begin + mesh.shape["data"])
        rows = np.minimum(places, len(tokens) - 1)
        found = fetched(_predictions(config, params, over_data(mesh, tokens[rows])))
        parts.append(np.stack(found)[:, kept[rows, :-1] & (places < len(tokens))[:, None]])
    loss, entropy, confidence, correct = np.concatenate(parts, 1)
    return {
        "loss": float(loss.mean()),
        "entropy": float(entropy.mean()),
        "accuracy": float(correct.mean()),
        "ece": expected_calibration_error(confidence, correct) if np.isfinite(confidence).all() else math.nan,
    }


@functools.partial(jax.jit, static_argnames="config")
def _predictions(config: DecoderConfig, params: Params, tokens: jax.Array) -> tuple[jax.Array, ...]:
    """Loss, entropy, probability of the most likely token, and whether it follows, of the next-token predictions of windows [s t]: [s t-1] each."""
    logits: Any = forward(config, params, tokens[:, :-1]).logits
    of = predicted(jax.nn.log_softmax(logits), tokens[:, 1:])
    return of.loss, of.entropy, of.confidence, of.correct.astype(jnp.float32)


class Tracker:
    """Measures one model at the steps it is called for and adds them to the emergence.parquet of its folder.

    A model whose predictions are not numbers has diverged and is not measured. `seconds` is the time that this took so far.
    """

    def __init__(self, folder: Path, hf: Mapping[str, Any], config: TrainConfig, track: TrackConfig, corpus: Corpus):
        self.seconds = 0.0
        self._folder, self._hf, self._decoder = folder, hf, config_from_hf(hf)
        self._windows = corpus.held_out_windows(track.tokens, config.context)
        self._counts = corpus.counts(config.vocab_size)
        self._k = null_space_size(config.width, track.k)
        self._with_effects = effect_steps(config.steps, track)
        self._facts = {
            "model": str(folder.name),
            **shape_facts(self._decoder),
            "k": self._k,
            "recipe": dataclasses.asdict(config),
            "data_sha256": digest(self._windows),
            "tokens": int(self._windows.size),
            "rules": dataclasses.asdict(Rules()),
            "versions": {"jaxconf": __version__, "jax": jax.__version__},
        }

    def __call__(self, step: int, params: Params, train_loss: float) -> None:
        begun = time.perf_counter()
        lm = LanguageModel(self._decoder, params, self._folder.name, None, self._folder, self._hf)
        kept = kept_positions(self._windows, lm.special_ids)
        if not kept.any():
            raise InputError("no held-out position is left to measure after dropping special tokens; give a longer context or other text")
        predictions = measure_predictions(self._decoder, params, self._windows, kept)
        if all(map(math.isfinite, predictions.values())):
            if step in self._with_effects:
                neurons = measure_effects(lm, self._windows, kept, self._counts, self._k)
            else:
                neurons = {**dict.fromkeys(NEURON_COLUMNS), **measure_weights(self._decoder, params, self._counts, self._k)}
            emergence.append(self._folder, {"step": step, "train_loss": train_loss, **predictions, **neurons}, self._facts)
        self.seconds += time.perf_counter() - begun

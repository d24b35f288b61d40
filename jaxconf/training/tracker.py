"""Track a model while it is trained."""

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxconf.analysis.neuron_sets import Neurons
from jaxconf.analysis.weights import null_space_size
from jaxconf.data.corpus import Corpus
from jaxconf.data.windows import digest, kept_positions
from jaxconf.measure.facts import shape_facts
from jaxconf.measure.inputs import counts_facts, given_counts, with_target
from jaxconf.measure.optimum import Beside, beside_optimum
from jaxconf.models.decoder import Params
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import LanguageModel
from jaxconf.results.rules import KINDS, Rules
from jaxconf.results.run_folder import COMPONENTS, OPTIMUM
from jaxconf.runtime.version import __version__
from jaxconf.training import emergence
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.measurements import (
    NEURON_COLUMNS,
    measure_effects,
    measure_predictions,
    measure_weights,
)

CONTROLS = 20  # random sets beside each set of named neurons


def tracked_steps(steps: int, track: TrackConfig) -> list[int]:
    """The steps at which the weights are measured, ascending.

    These are step 0, which is before the first one, and up to `track.points` steps from 1 to the last, evenly spaced on
    a log scale; places that round to the same step count once.
    """
    if not track.points:
        return []
    return sorted({0, *np.geomspace(1, steps, track.points).round().astype(int).tolist(), steps})


def effect_steps(steps: int, track: TrackConfig) -> frozenset[int]:
    """The tracked steps at which the effects are measured too."""
    return frozenset(tracked_steps(steps, track)[:: -track.effects_every]) if track.effects_every else frozenset()


class Tracker:
    """Measures one model at each step at which it is called, and adds the step to the emergence.parquet in `folder`.

    A model whose loss or predictions are not finite has diverged; nothing is added for it. `counts`: as for
    `jaxconf.train`. `seconds`: the time that all calls have taken so far.
    """

    def __init__(
        self,
        folder: Path,
        hf: Mapping[str, Any],
        config: TrainConfig,
        track: TrackConfig,
        corpus: Corpus,
        counts: np.ndarray | str | Path | None = None,
    ):
        self.seconds = 0.0
        self._folder, self._hf, self._decoder = folder, hf, config_from_hf(hf)
        self._windows, self._world = corpus.held_out_windows(track.tokens, config.context), corpus.world
        self._counts, about_counts = _counts(corpus, config.vocab_size, counts)
        self._k = null_space_size(self._decoder, track.k)
        self._with_effects, self._others = effect_steps(config.steps, track), track.components
        self._facts = {
            "model": folder.name,
            **shape_facts(self._decoder),
            "k": self._k,
            "recipe": dataclasses.asdict(config),
            "data_sha256": digest(self._windows),
            "tokens": int(self._windows.size),
            **corpus.facts,
            **about_counts,
            "rules": dataclasses.asdict(Rules()),
            "versions": {"jaxconf": __version__, "jax": jax.__version__},
        }

    def __call__(self, step: int, params: Params, train_loss: float) -> None:
        begun = time.perf_counter()
        lm = LanguageModel(self._decoder, params, self._folder.name, None, self._folder, self._hf)
        kept = kept_positions(self._windows, lm.special_ids)
        if not kept.any():
            raise InputError(
                "no held-out position is left to measure after dropping special tokens; "
                "give a longer context or other text"
            )
        predictions = measure_predictions(self._decoder, params, self._windows, kept)
        if all(map(math.isfinite, predictions.values())):
            others = None
            if step in self._with_effects:
                neurons, others = measure_effects(lm, self._windows, kept, self._counts, self._k, self._others)
            else:
                weights = measure_weights(self._decoder, params, self._counts, self._k)
                neurons = {**dict.fromkeys(NEURON_COLUMNS), **weights}
            if self._world:
                beside = self._beside(lm, kept, neurons)
                emergence.append_rows(self._folder, OPTIMUM, step, beside.sets)
                neurons["temperature_r2"] = beside.neurons["temperature_r2"].to_numpy()
            if others is not None:
                emergence.append_rows(self._folder, COMPONENTS, step, others)
            row = {"step": step, "train_loss": train_loss, **predictions, **neurons}
            emergence.append(self._folder, row, self._facts)
        self.seconds += time.perf_counter() - begun

    def _beside(self, lm: LanguageModel, kept: np.ndarray, neurons: Mapping[str, Any]) -> Beside:
        """The model beside the optimum, and with the named neurons ablated, if the effects were measured."""
        assert self._world
        layer, sets = lm.config.n_layers - 1, dict[str, Neurons]()
        for kind in KINDS:
            named = neurons[f"is_{kind}_neuron"]
            sets[kind] = [] if named is None else [(layer, int(n)) for n in np.flatnonzero(named)]
        positions = with_target(self._windows, kept)
        return beside_optimum(lm, self._windows, positions, self._world, sets, layer, controls=CONTROLS)


def _counts(
    corpus: Corpus, vocab_size: int, given: np.ndarray | str | Path | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """The given token counts, or else those of the training text, int64 [v]; and the facts about them."""
    if given is not None:
        return given_counts(given, vocab_size)
    counts = corpus.counts(vocab_size)
    return counts, counts_facts(counts, "the training text")

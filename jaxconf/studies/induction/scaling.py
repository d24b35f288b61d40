"""Calibration if the activations of neuron sets are scaled, and the temperature that has the most similar effect.

Letters: b window, t position, c neuron set, p counted position.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.calibration import expected_calibration_error
from jaxconf.analysis.rerun import compiled_besides, compiled_reference
from jaxconf.analysis.set_predictions import Beside
from jaxconf.analysis.temperature import Unchanged, best_temperature
from jaxconf.measure.named_sets import NamedSet
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import joined
from jaxconf.runtime.progress import Progress
from jaxconf.studies.induction.setting import Setting

FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)


def table_of_scaling(setting: Setting, sets: Sequence[NamedSet]) -> pd.DataFrame:
    """The table `Induction.doses`."""
    texts = setting.texts
    counted = {"text": (texts.windows, texts.kept), "repeat": (texts.repeated, texts.repeat)}
    frames = [
        setting.fitted(scaling, data, tokens, np.broadcast_to(where, tokens.shape), sets)
        for data, (tokens, where) in counted.items()
    ]
    return pd.concat(frames, ignore_index=True)


def scaling(
    lm: LanguageModel,
    data: str,
    tokens: np.ndarray,
    counted: np.ndarray,
    sets: Sequence[NamedSet],
    memory: int,
    progress: Progress,
) -> pd.DataFrame:
    """The rows of `Induction.doses` for windows, int32 [b t], at the positions `counted`, bool [b t].

    `data`: the value of the column `data`.
    """
    config, positions = lm.config, np.flatnonzero(counted.any(0))
    runs = SetRuns.of(lm, sets, memory)
    before: list[tuple[Unchanged, Beside]] = []  # [p] each
    after: dict[float, list[Beside]] = {factor: [] for factor in FACTORS if factor != 1}  # [c p] each
    progress(f"scaling, {data}", 0, tokens.size)
    for rows, real in runs.groups(len(tokens), tokens.shape[1], len(positions)):
        where = counted[rows][:, positions] & real[:, None]
        entry, _ = runs.entry(tokens[rows], positions)
        as_it_is, *base = compiled_reference(config, runs.readout, entry)
        before.append(jax.tree.map(lambda x, where=where: x[where], fetched(tuple(base))))
        for factor in after:
            scaled = {
                layer: LayerAblation("linear", jnp.zeros(mask.shape[1]), factor) for layer, mask in runs.sets.items()
            }
            parts = []
            for some, _ in runs.chunks(len(rows), tokens.shape[1]):
                found = compiled_besides(config, lm.params, runs.readout, entry, as_it_is, runs.some(some, scaled))
                parts.append(jax.tree.map(lambda x, where=where: x[:, where], fetched(found)))
            after[factor].append(joined(parts, len(sets)))
        progress(f"scaling, {data}", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    base, unscaled = jax.tree.map(lambda *x: np.concatenate(x), *before)
    found = []
    for factor in FACTORS:
        joint = jax.tree.map(lambda *x: np.concatenate(x, 1), *after[factor]) if factor in after else None
        for c, one in enumerate(sets):
            place = {"data": data, "set": one.name, "kind": one.kind, "factor": factor}
            scaled = unscaled if joint is None else jax.tree.map(lambda x, c=c: x[c], joint)
            found.append({**place, **_measures(factor, base, scaled)})
    return pd.DataFrame(found)


def _measures(factor: float, before: Unchanged, scaled: Beside) -> dict[str, Any]:
    """The measures of one set at one factor, from arrays over the counted positions, [p]."""
    predicted = scaled.predicted
    # A factor of 1 changes nothing, so there is no change to explain.
    temperature, explained = (1.0, math.nan) if factor == 1 else best_temperature(before, scaled.change)
    return {
        "loss": np.mean(predicted.loss, dtype=np.float64),
        "entropy": np.mean(predicted.entropy, dtype=np.float64),
        "ece": expected_calibration_error(np.asarray(predicted.confidence), np.asarray(predicted.correct)),
        "brier": np.mean(predicted.brier, dtype=np.float64),
        "top1": np.mean(predicted.correct),
        "temperature": temperature,
        "explained": explained,
    }

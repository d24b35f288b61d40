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

from jaxconf.analysis.calibration import Predicted, expected_calibration_error
from jaxconf.analysis.neuron_sets import masks_of
from jaxconf.analysis.scaling import scaled, unscaled
from jaxconf.analysis.temperature import Change, Unchanged, best_temperature
from jaxconf.measure.named_sets import NamedSet
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory, joined
from jaxconf.runtime.memory import bytes_of_a_set
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
    config, masks = lm.config, masks_of(lm.config, [one.members for one in sets])
    before: list[Unchanged] = []
    after: dict[float, list[tuple[Predicted, Change]]] = {factor: [] for factor in FACTORS}  # [c p] each
    D, each = lm.mesh.shape["data"], bytes_of_a_set(config, tokens.shape[1])
    progress(f"scaling, {data}", 0, tokens.size)
    for rows, real in batches_in_memory(len(tokens), each, memory, D):
        where = counted[rows] & real[:, None]
        as_it_is, base = unscaled(config, lm.params, lm.over_data(tokens[rows]), tuple(masks))
        before.append(jax.tree.map(lambda x, where=where: x[where], fetched(base)))
        target = lm.over_data(np.roll(tokens[rows], -1, 1))
        for factor in FACTORS:
            parts = []
            for some, _ in batches_in_memory(len(sets), each * len(rows) // D, memory):
                members = {layer: of[some] for layer, of in masks.items()}
                found = scaled(config, lm.params, as_it_is, target, members, jnp.float32(factor))
                parts.append(jax.tree.map(lambda x, where=where: x[:, where], fetched(found)))
            after[factor].append(joined(parts, len(sets)))
        progress(f"scaling, {data}", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    base = jax.tree.map(lambda *x: np.concatenate(x), *before)
    found = []
    for factor, parts in after.items():
        predictions, changed = jax.tree.map(lambda *x: np.concatenate(x, 1), *parts)
        for c, one in enumerate(sets):
            predicted, change = Predicted(*(x[c] for x in predictions)), Change(*(x[c] for x in changed))
            place = {"data": data, "set": one.name, "kind": one.kind, "factor": factor}
            found.append({**place, **_measures(factor, base, predicted, change)})
    return pd.DataFrame(found)


def _measures(factor: float, before: Unchanged, predicted: Predicted, change: Change) -> dict[str, Any]:
    """The measures of one set at one factor, from arrays over the counted positions, [p]."""
    # A factor of 1 changes nothing but rounding, so there is no change to explain.
    temperature, explained = (1.0, math.nan) if factor == 1 else best_temperature(before, change)
    return {
        "loss": np.mean(predicted.loss, dtype=np.float64),
        "entropy": np.mean(predicted.entropy, dtype=np.float64),
        "ece": expected_calibration_error(np.asarray(predicted.confidence), np.asarray(predicted.correct)),
        "brier": np.mean(predicted.brier, dtype=np.float64),
        "top1": np.mean(predicted.correct),
        "temperature": temperature,
        "explained": explained,
    }

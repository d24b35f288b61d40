"""Calibration of the compared models on the same positions.

Letters: s window, t position in it, r resample.
"""

from collections.abc import Mapping

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.calibration import BINS, Calibrated, calibration_change, reliability, window_sums
from jaxconf.analysis.predictions import next_token_predictions
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_set, fitting
from jaxconf.runtime.progress import Progress

Sums = Mapping[str, np.ndarray]
"""`window_sums` of a model's predictions."""


def prediction_sums(
    lm: LanguageModel, tokens: np.ndarray, kept: np.ndarray, memory: int, progress: Progress
) -> dict[str, np.ndarray]:
    """`window_sums` of a model's predictions in all windows, int [s t].

    Only the positions `kept`, bool [s t], count, and never the last position of a window.
    """

    def within(memory: int) -> dict[str, np.ndarray]:
        parts = []
        each = bytes_of_a_set(lm.config, tokens.shape[1])
        progress("predictions", 0, tokens.size)
        for rows, real in batches_in_memory(len(tokens), each, memory, lm.mesh.shape["data"]):
            of = fetched(next_token_predictions(lm.config, lm.params, lm.over_data(tokens[rows])))
            sums = window_sums(of, kept[rows, :-1])
            parts.append({name: x[real] for name, x in sums.items()})
            progress("predictions", (rows[real][-1] + 1) * tokens.shape[1], tokens.size)
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    return fitting(within, memory, progress)


def calibration_table(predictions: Mapping[str, Sums], resampled: np.ndarray) -> pd.DataFrame:
    """The table `Comparison.calibration`.

    `predictions`: name of a model → its sums, the base model's first. `resampled`: the windows of each resample of the
    bootstrap, int [r s].
    """
    base = next(iter(predictions.values()), {})
    rows = [
        {"model": model, "measure": measure, **found._asdict()}
        for model, sums in predictions.items()
        for measure, found in calibration_change(sums, base, resampled).items()
    ]
    return pd.DataFrame(rows, columns=["model", "measure", *Calibrated._fields])


def reliability_table(predictions: Mapping[str, Sums]) -> pd.DataFrame:
    """The table `Comparison.reliability`, without bins that have no position."""
    frames = [
        pd.DataFrame({"model": model, "bin": np.arange(BINS), **reliability(sums)})
        for model, sums in predictions.items()
    ]
    if not frames:
        return pd.DataFrame(columns=["model", "bin", "count", "confidence", "accuracy"])
    every = pd.concat(frames, ignore_index=True)
    return every[every["count"] > 0].reset_index(drop=True)

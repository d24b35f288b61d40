"""Calibration of the compared models on the same positions.

Letters: s window, t position in it, u unit that is drawn again, r resample.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.calibration import BINS, Calibrated, calibration_change, reliability, unit_sums
from jaxconf.analysis.predictions import next_token_predictions
from jaxconf.measure.work import Work
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_set, fitting
from jaxconf.runtime.progress import Progress

Sums = Mapping[str, np.ndarray]
"""`unit_sums` of a model's predictions."""


def prediction_sums(lm: LanguageModel, work: Work, progress: Progress) -> Sums:
    """`unit_sums` of a model's predictions at the kept positions of `work`, whose model need not be `lm`."""
    tokens, count = work.tokens, len(work.unit_counts)

    def within(memory: int) -> Sums:
        totals: Any = None
        each = bytes_of_a_set(lm.config, tokens.shape[1])
        progress("predictions", 0, tokens.size)
        for rows, real in batches_in_memory(len(tokens), each, memory, lm.mesh.shape["data"]):
            of = fetched(next_token_predictions(lm.config, lm.params, lm.over_data(tokens[rows])))
            where = work.kept[rows, :-1] & real[:, None]
            sums = unit_sums(jax.tree.map(lambda x, where=where: x[where], of), work.units[rows, :-1][where], count)
            totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
            progress("predictions", (rows[real][-1] + 1) * tokens.shape[1], tokens.size)
        found: Sums = totals
        return found

    return fitting(within, work.memory, progress)


def calibration_table(predictions: Mapping[str, Sums], resampled: np.ndarray) -> pd.DataFrame:
    """The table `Comparison.calibration`.

    `predictions`: name of a model → its sums, the base model's first. `resampled`: how often each resample of the
    bootstrap takes each unit, [r u].
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

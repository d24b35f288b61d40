"""The measurements of one model's neurons in a comparison, and the differences between two models' neurons.

Letters: n neuron of the last layer, s window, t position in it, d width.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.overlap import (
    Weights,
    candidates,
    change_of_candidates,
    cosine_matrix,
    large,
    norm_ratio,
    one_to_one,
    overlaps,
    sets_from,
)
from jaxconf.data.windows import Windows
from jaxconf.measure.analyze import analyze
from jaxconf.measure.weights import weight_statistics
from jaxconf.models.language_model import LanguageModel
from jaxconf.runtime.progress import Progress

SHARES, LOWEST = (0.1, 0.25, 0.5), (5, 10, 20, 50)
SHARE, CANDIDATES = 0.25, 10  # the thresholds of Du et al.
CONTROLS = 1000  # random sets, with which the changes of the candidates are compared
WEIGHTS = ("w_norm", "logit_var", "ratio", "rho")
EFFECTS = ("ln_mediated", "loss_delta", "loss_abs_delta", "entropy_delta", "entropy_abs_delta", "top1_change")


@dataclasses.dataclass(frozen=True)
class Measuring:
    """The windows and the settings with which every model is measured. The settings are those of `jaxconf.compare`."""

    windows: Windows
    kept: np.ndarray  # bool [s t]
    k: int
    bootstrap_draws: int
    seed: int
    memory: int
    resume_folder: Path | None

    @property
    def tokens(self) -> np.ndarray:
        """int [s t]."""
        return self.windows.tokens


def counts_of_none(lm: LanguageModel) -> np.ndarray:
    """Token counts that are the same for all tokens, int64 [v]: nothing that is compared depends on token frequency."""
    return np.ones(lm.config.vocab_size, np.int64)


def statistics(lm: LanguageModel, name: str, run: bool, how: Measuring, progress: Progress) -> pd.DataFrame:
    """The columns of `Comparison.neurons` that need one model only. Effects are NaN unless `run`.

    With `run` the model is run over the text.
    """
    if run:
        frame = analyze(
            lm,
            how.windows,
            kept=how.kept,
            counts=counts_of_none(lm),
            k=how.k,
            bootstrap_draws=how.bootstrap_draws,
            seed=how.seed,
            memory=how.memory,
            resume_folder=how.resume_folder,
            progress=progress,
        ).frame
    else:
        frame = weight_statistics(lm, k=how.k)
    weights = weights_of(frame)
    frame = frame.assign(model=name, ratio=norm_ratio(*weights), is_candidate=candidates(*weights, SHARE, CANDIDATES))
    measured = [f"{column}{end}" for column in EFFECTS for end in ("", "_lo", "_hi")]
    columns = ["model", "layer", "neuron", *WEIGHTS, "rho_chance", "is_candidate", *measured, "is_entropy_neuron"]
    return frame.reindex(columns=columns)


class Differences(NamedTuple):
    """The rows of one tuned model in the tables of `Comparison`."""

    neurons: pd.DataFrame
    overlaps: pd.DataFrame
    changes: pd.DataFrame


def differences(
    base: pd.DataFrame,
    tuned: pd.DataFrame,
    writes: tuple[np.ndarray, np.ndarray],
    measures: tuple[str, ...],
    rng: np.random.Generator,
) -> Differences:
    """The differences between the neurons of a tuned model and of the base model.

    `base`, `tuned`: their `statistics`. `writes`: their write directions, [n d] each. `measures`: the columns of which
    changes are given.
    """
    cosines = cosine_matrix(*writes)
    match = one_to_one(cosines)
    back = np.argsort(match)
    tuned = tuned.assign(match=back, cosine=cosines[back, np.arange(len(back))], cosine_index=np.diagonal(cosines))
    of_model = {"model": tuned["model"].iloc[0]}
    return Differences(
        tuned,
        pd.DataFrame([of_model | row for row in _overlaps(weights_of(base), weights_of(tuned), match)]),
        pd.DataFrame([of_model | row for row in _changes(base, tuned.iloc[match], measures, rng)]),
    )


def weights_of(frame: pd.DataFrame) -> Weights:
    """The norm and the LogitVar of each neuron, [n] each."""
    return frame["w_norm"].to_numpy(), frame["logit_var"].to_numpy()


def _overlaps(base: Weights, tuned: Weights, match: np.ndarray) -> Iterator[dict[str, Any]]:
    """Rows of `Comparison.overlaps`. `match`: the tuned model's neuron for each neuron of the base model, int [n]."""
    for by, order in (("index", np.arange(len(match))), ("cosine", match)):
        for overlap in overlaps(base, tuned, order, SHARES, LOWEST):
            yield {"by": by, **overlap._asdict()}


def _changes(
    base: pd.DataFrame, matched: pd.DataFrame, measures: tuple[str, ...], rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Rows of `Comparison.changes`. `matched`: the tuned model's neurons in the order of their matches in `base`."""
    chosen = np.flatnonzero(base["is_candidate"])
    random = sets_from(large(base["w_norm"].to_numpy(), SHARE), len(chosen), CONTROLS, rng)
    for name in measures:
        before, after = (frame[name].to_numpy(float) for frame in (base, matched))
        yield {"measure": name, **change_of_candidates(before, after, chosen, random)._asdict()}

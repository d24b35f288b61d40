"""Whether the candidates for entropy neurons of a base model change in models that were trained further from it.

Letters: n neuron of the last layer, s window, t position in it, d width.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.analysis.intervals import resamples
from jaxconf.analysis.nulls import LEAST
from jaxconf.analysis.overlap import chance_cosine
from jaxconf.analysis.unembedding import readout
from jaxconf.data.own_text import OWN, source_for
from jaxconf.data.windows import Windows, digest
from jaxconf.measure.analyze import check_options
from jaxconf.measure.facts import accepted_facts, facts_of
from jaxconf.measure.inputs import Model, Text, check_amounts, refuse_mixture, windows_and_facts
from jaxconf.measure.work import Work, work_on
from jaxconf.models import language_model
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import check_runnable
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.report.run import save_study
from jaxconf.runtime.memory import MEMORY
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing
from jaxconf.studies.comparison.calibration import Sums, calibration_table, prediction_sums, reliability_table
from jaxconf.studies.comparison.figures import figures_of
from jaxconf.studies.comparison.models import Chosen, choose, same_tokens
from jaxconf.studies.comparison.neurons import (
    CANDIDATES,
    CONTROLS,
    EFFECTS,
    SHARE,
    WEIGHTS,
    Differences,
    Measuring,
    counts_of_none,
    differences,
    statistics,
)
from jaxconf.studies.comparison.page import page
from jaxconf.studies.comparison.sentences import paragraphs


@dataclasses.dataclass
class Comparison:
    """The result of `compare`. Losses and entropies are in nats. Neurons are the last layer's.

    neurons: a row per model (the base model first) and neuron. `model` is the model's name. `w_norm`, `logit_var`,
    `ratio` (norm/log LogitVar), `rho`, `rho_chance`, and `is_candidate` (at Du et al.'s thresholds). If the effects
    were measured, EFFECTS with `_lo` and `_hi`, and `is_entropy_neuron`. For a tuned model also `match`, the base
    model's neuron that the neuron is matched with, their `cosine`, and `cosine_index`, the cosine with the base model's
    neuron of the same index.
    overlaps: a row per tuned model, way of matching (`by` "index" or "cosine") and thresholds, with the columns of
    `jaxconf.analysis.overlap.Overlap`.
    changes: a row per tuned model and `measure` of the base model's candidates, with the columns of
    `jaxconf.analysis.overlap.Change`; the random sets have as many neurons with a large norm.
    calibration: a row per model and `measure` (loss, entropy, brier, accuracy, ece) on the same positions, with the
    columns of `jaxconf.analysis.calibration.Calibrated`; the `change` is from the base model. Intervals are over
    documents, or blocks of windows where documents are few, as the facts `units` and `resampled` say.
    reliability: a row per model and bin of confidence with its `count` of positions, mean `confidence` and `accuracy`.
    """

    facts: dict[str, Any]
    neurons: pd.DataFrame
    overlaps: pd.DataFrame
    changes: pd.DataFrame
    calibration: pd.DataFrame
    reliability: pd.DataFrame

    def pairs(self, tuned: str) -> pd.DataFrame:
        """The base model's neurons in their order, each beside the neuron of a tuned model that it is matched with.

        The columns of `neurons` with `_base` and `_tuned`, and `cosine`.
        """
        of = self.neurons.groupby("model", sort=False)
        base, other = of.get_group(self.facts["base"]), of.get_group(tuned)
        base = base.drop(columns=["model", "layer", "match", "cosine", "cosine_index"]).reset_index(drop=True)
        matched = other.set_index("match").loc[base["neuron"]].reset_index(drop=True)
        renamed = matched.drop(columns=["model", "layer", "cosine"]).add_suffix("_tuned")
        return base.add_suffix("_base").join(renamed).assign(cosine=matched["cosine"])

    def save(self, folder: str | Path) -> Path:
        """Write the tables, the facts, the figures and the page into the folder, and give the path of the page."""
        return save_study(self, "comparison", paragraphs(self), figures_of(self), page, folder)


def compare(
    base: Model,
    tuned: Sequence[Model],
    tokens: np.ndarray | Windows | int = 16384,
    *,
    data: str = OWN,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    resume_folder: Path | None = None,
    accept: str | Sequence[str] = (),
    load: Callable[..., LanguageModel] = language_model.load,
    progress: Progress = lambda what, done, total: None,
) -> Comparison:
    """Compare models that were trained further from `base` with it: the last layer's neurons, and the calibration.

    `base`, `tuned`: models, or names that `load` takes. A named model is loaded just before it is measured and freed
    afterwards, so that only the base model and one other are held; all configs are checked before. `tokens`:
    windows, int [s t], by the base model's tokenizer, or how many tokens of the text `data` are read. Effects (mean
    ablation, see `jaxconf.analyze`) and calibration are measured on them, and on the base model's kept positions, for
    each tuned model whose tokenizer gives the same tokens for the same text. Of the others only the weights are
    compared. `k`: size of the null space, for ρ. `memory`: as for `jaxconf.analyze`. `resume_folder`: a folder in which
    finished windows are kept, so that the same call continues an interrupted one. `facts`: are added to those of the
    result. `accept`: as for `jaxconf.load`, for those of the models whose config.json has the attribute.

    Source: Du et al. 2025 (arXiv 2504.02904) for the candidates, their overlap and the ratio; Stolfo et al. 2024 (arXiv
    2406.16254) for ρ and effects. Raises InputError for no tuned model, one of another shape, and as `jaxconf.analyze`,
    `jaxconf.load` and `jaxconf.documents` do.
    """
    check_amounts(1, tokens=tokens)
    own, *others = choose(base, tuned, accept)
    refuse_mixture(own.config, "the comparison of models")
    _, k, _ = check_options(own.config, "last", k, "auto", 1e-4, LEAST, bootstrap_draws, seed)
    lm = own.loaded(load, progress)
    check_runnable(lm.params)
    progress("reading the text", 0, 0)
    data = source_for(data, lm.folder) if isinstance(tokens, int) else data
    windows, of_reading = windows_and_facts(tokens, data, lm, *(other.config for other in others))
    timing = Timing()
    work = work_on(lm, Text(windows, counts_of_none(lm), {}), None, memory, progress)
    how = Measuring(windows, work.kept, k, bootstrap_draws, seed, memory, resume_folder)
    job = _Job(lm, own.name, how, work, load, progress)
    found = [job.beside_base(other, index) for index, other in enumerate(others)]
    names, predictions = [other.name for other in others], job.predictions
    weights_only = [name for name in names if name not in predictions]
    stated = facts_of(
        lm,
        {
            **accepted_facts(own.accept, *(other.accept for other in others)),
            **_facts(own.config, how),
            **work.unit_facts(),
        },
        timing,
        int(work.kept.sum()) * own.config.d_mlp * len(predictions),
        ({"data": data, **of_reading} if isinstance(tokens, int) else {}) | dict(facts or {}),
        named={"base": own.name, "tuned": names, "revisions": job.revisions, "weights_only": weights_only},
    )
    neurons, overlaps, changes = zip(*found, strict=True)
    every = pd.concat([job.statistics_of_base(bool(predictions)), *neurons], ignore_index=True)
    return Comparison(
        stated,
        every.astype({"match": "Int64", "is_entropy_neuron": "boolean"}),
        pd.concat(overlaps, ignore_index=True),
        pd.concat(changes, ignore_index=True),
        calibration_table(predictions, resamples(work.unit_counts, bootstrap_draws, seed)),
        reliability_table(predictions),
    )


def _facts(config: DecoderConfig, how: Measuring) -> dict[str, Any]:
    return {
        "share": SHARE,
        "candidates": CANDIDATES,
        "windows": len(how.tokens),
        "tokens": int(how.tokens.size),
        "positions": int(how.kept.sum()),
        "data_sha256": digest(how.tokens),
        "ablation": "mean",
        "k": how.k,
        "chance_cosine": chance_cosine(config.d_model - (config.final.norm == "layer"), config.d_mlp),
        "controls": CONTROLS,
        "bootstrap": how.bootstrap_draws,
        "seed": how.seed,
    }


class _Job:
    """Measures the models of a comparison. Each measurement of the base model is made when it is first needed."""

    def __init__(
        self,
        base: LanguageModel,
        name: str,
        how: Measuring,
        work: Work,
        load: Callable[..., LanguageModel],
        progress: Progress,
    ) -> None:
        self.base, self.name, self.how, self.work, self.load, self.progress = base, name, how, work, load, progress
        self.revisions = {name: base.revision}
        self.predictions: dict[str, Sums] = {}  # of the models that were run, the base model's first
        self._writes = fetched(readout(base.config, base.params).w_out)
        self._of_base: dict[bool, pd.DataFrame] = {}

    def statistics_of_base(self, run: bool) -> pd.DataFrame:
        """`statistics` of the base model."""
        if run not in self._of_base:
            self._of_base[run] = statistics(self.base, self.name, run, self.how, self._named(self.name))
        return self._of_base[run]

    def beside_base(self, chosen: Chosen, index: int) -> Differences:
        """The differences between a tuned model and the base model.

        The tuned model is freed on return. If it is run over the text, its predictions are added to `predictions`.
        """
        lm, progress = chosen.loaded(self.load, self.progress), self._named(chosen.name)
        self.revisions[chosen.name] = lm.revision
        run = same_tokens(self.base, lm, self.how.tokens)
        before, after = self.statistics_of_base(run), statistics(lm, chosen.name, run, self.how, progress)
        progress("matching neurons", 0, 0)
        writes = self._writes, fetched(readout(lm.config, lm.params).w_out)
        rng = np.random.default_rng([self.how.seed, index])
        found = differences(before, after, writes, WEIGHTS + EFFECTS * run, rng)
        if run:
            if not self.predictions:
                self._predict(self.base, self.name)
            self._predict(lm, chosen.name)
        return found

    def _predict(self, lm: LanguageModel, name: str) -> None:
        self.predictions[name] = prediction_sums(lm, self.work, self._named(name))

    def _named(self, name: str) -> Progress:
        return lambda what, done, total: self.progress(f"{name}: {what}", done, total)

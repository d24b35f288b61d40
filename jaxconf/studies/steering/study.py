"""Steering: which handle on a model's confidence calibrates it best on text that it was not chosen on, at which cost.

Letters: u unit that is drawn again, n direction, d model width.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.analysis.dictionaries import null_directions
from jaxconf.analysis.unembedding import spectrum
from jaxconf.data.own_text import OWN
from jaxconf.data.windows import Windows, digest
from jaxconf.measure.autoencoders import read_directions
from jaxconf.measure.chosen_sets import NEURONS, populations
from jaxconf.measure.facts import facts_of
from jaxconf.measure.inputs import check_amounts, refuse_mixture, text_of
from jaxconf.measure.neuron_sets import Named
from jaxconf.measure.selections import Selection, selected, selections
from jaxconf.measure.work import Work, work_on
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.report.run import save_study
from jaxconf.runtime.memory import MEMORY, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing
from jaxconf.studies.steering.doses import Steered, predictions, probe_of
from jaxconf.studies.steering.figures import FIGURES
from jaxconf.studies.steering.page import page
from jaxconf.studies.steering.sentences import sentences
from jaxconf.studies.steering.tables import PARTS, table_of_best, table_of_doses
from jaxconf.studies.steering.treatments import NULL, PROBE, TEMPERATURE, pushes_of, treatments_of
from jaxconf.studies.steering.written import PROMPT, prompts_of, table_of_text

LEAST = 10  # units, of which half are held out


@dataclasses.dataclass
class Steering:
    """The result of `steer`. Losses and entropies are in nats.

    A `treatment` is the "temperature", a neuron set, a random set (`kind` "random", with the set that it stands
    `beside`) or a direction. A `dose` is what the logits are divided by, what the set's activations are multiplied by,
    or how much of the direction is added, in lengths of the stream.

    doses: a row per treatment, dose and `part` of the text, "chosen on" or "held out". `ece`, `loss`, `entropy`,
    `accuracy` and `brier`.
    best: a row per treatment, at the dose with the least `ece` on the first part. The same measures on the held-out
    part, with `_lo` and `_hi`; `_change` from the unsteered model, with `_change_lo` and `_change_hi`. Intervals are
    from a bootstrap over documents that draws the same documents for all treatments.
    text: a row for the unsteered model and for each treatment that is not random, at its dose of `best`, for text that
    the model writes itself, at its temperature. `entropy`: of the steered model at each written token.
    `loss_as_loaded`: of the same tokens by the model as it was loaded. `repeated`: the share of runs of four tokens
    that occurred before. Without rows if no text was asked for.
    """

    facts: dict[str, Any]
    doses: pd.DataFrame
    best: pd.DataFrame
    text: pd.DataFrame

    def save(self, folder: str | Path) -> Path:
        """Write steer.html, its figures, the tables and the facts into the folder, which is created if needed.

        Returns the path of the page.
        """
        return save_study(self, "steer", sentences(self), FIGURES, page, folder)


def steer(
    lm: LanguageModel,
    tokens: np.ndarray | Windows | int = 16384,
    *,
    data: str = OWN,
    run: str | Path | None = None,
    sets: Sequence[Named] = (),
    components: str = NEURONS,
    directions: str | Path | None = None,
    temperature: float = 0.7,
    prompts: int = 32,
    controls: int = 10,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Steering:
    """How well the temperature, neuron sets and directions of the stream set a model's confidence right.

    The model's logits are divided by `temperature` first: one below 1 makes it too sure of itself, and 1 leaves it as
    it is. Then every treatment is given at every dose. Half of the documents choose the dose of each treatment, by the
    least expected calibration error, and the other half tell how good it is. The directions, which are added to the
    stream that enters the final norm, are that of a linear probe of the entropy, fitted on the first half, and the
    singular direction that the unembedding reads least.

    `directions`: a file of further directions, as `jaxconf.measure.autoencoders.read_directions` reads it; only its
    directions count. `prompts`: how many beginnings of held-out windows the model continues with each treatment; 0 for
    none. `tokens`, `data`, `bootstrap_draws`, `memory`, `progress`: as for `jaxconf.analyze`. `run`, `sets`,
    `components`, `controls`, `k`: what is scaled, neurons or directions and latents, as for
    `jaxconf.measure.selections.selected`; principal components are those of the half that chooses. `facts`: are added
    to those of the result.

    Raises InputError for a mixture of experts, a temperature that is not above 0, neurons that are not in the last
    layer, components that there are not, text with too few documents to be split, and as `jaxconf.analyze` does.
    """
    check_amounts(0, bootstrap_draws=bootstrap_draws, seed=seed, controls=controls, prompts=prompts)
    _check(lm, temperature, prompts)
    timing = Timing()
    named = selected(lm, run, sets, components, controls, k)
    names, own_directions = _given(lm, directions)
    _check_names([*(one.name for one in named), PROBE, NULL, *names])
    text = text_of(lm, tokens, data, np.zeros(lm.config.vocab_size, np.int64), progress)
    work = work_on(lm, text, None, memory, progress)
    held = _held_out(work, seed)
    picked, choosing = [one.of for one in named], work.kept & ~held[work.units]
    of = populations(lm, picked, components, k, work.tokens, choosing, memory, progress)
    chosen = selections(named, of, controls, seed)
    begun = prompts_of(work.tokens, held[work.units], prompts)
    how = (temperature, held, begun, bootstrap_draws, seed)
    measure = functools.partial(_measured, work, chosen, (names, own_directions), *how)
    found = fitting(measure, memory, progress)
    own = {
        "data": text.facts["data"],
        "data_sha256": digest(work.tokens),
        "tokens": int(work.tokens.size),
        "positions": int(work.kept.sum()),
        **work.unit_facts(),
        "model_temperature": temperature,
        "sets": _in_words(chosen),
        "controls": controls,
        "prompts": len(begun),
        "seed": seed,
        "bootstrap": bootstrap_draws,
        **found.facts,
    }
    runs = len(found.doses) // len(PARTS)
    return dataclasses.replace(found, facts=facts_of(lm, own, timing, int(work.kept.sum()) * runs, facts))


def _check(lm: LanguageModel, temperature: float, prompts: int) -> None:
    check_runnable(lm.params)
    refuse_mixture(lm.config, "steering")
    if prompts and lm.config.n_positions <= PROMPT:
        raise InputError(
            f"the model has {lm.config.n_positions} positions, too few to continue text of {PROMPT} tokens; ask for 0 "
            "prompts"
        )
    if not temperature > 0:
        raise InputError(f"temperature is {temperature:g}; give a number above 0, or 1 for the model as it is")


def _held_out(work: Work, seed: int) -> np.ndarray:
    """Which units are held out, bool [u]: a random half of those that have kept positions."""
    own = np.flatnonzero(work.unit_counts)
    if len(own) < LEAST:
        raise InputError(
            f"the text has {len(own)} documents or parts of one, and at least {LEAST} are needed to choose doses on "
            "one half and measure them on the other; give more tokens"
        )
    held = np.zeros(len(work.unit_counts), bool)
    held[np.random.default_rng(seed).permutation(own)[: len(own) // 2]] = True
    return held


def _measured(
    work: Work,
    chosen: Sequence[Selection],
    given: tuple[list[str], np.ndarray],
    temperature: float,
    held: np.ndarray,
    prompts: np.ndarray,
    draws: int,
    seed: int,
    memory: int,
) -> Steering:
    """The result, with the facts of the probe alone. `given`: names of further directions, of length 1 each, [n d]."""
    work = dataclasses.replace(work, memory=memory)
    config, steered = work.lm.config, Steered.of(work, temperature, held)
    probe = probe_of(steered)
    least = np.asarray(null_directions(config, spectrum(config, work.lm.params), 1).w)
    names, further = given
    pushes = probe.length * np.concatenate([probe.direction[None], least, further])
    treatments = treatments_of(chosen, pushes_of(config, [PROBE, NULL, *names], pushes), temperature)
    found = predictions(steered, treatments)
    doses = table_of_doses(found, treatments, held)
    best = table_of_best(found, treatments, doses, held, draws, seed)
    text = pd.DataFrame(columns=["treatment", "dose", "entropy", "loss_as_loaded", "repeated"])
    if len(prompts):
        at = dict(zip(best["treatment"], best["dose"], strict=True))
        how = (temperature, prompts, seed, memory, work.progress)
        text = table_of_text(work.lm, treatments, at, *how)
    return Steering({"probe_r2": probe.r2, "stream_length": probe.length}, doses, best, text)


def _check_names(names: Sequence[str]) -> None:
    """Raises InputError for two treatments with one name; `names`: of all but the temperature."""
    every = [TEMPERATURE, *names]
    if len(set(every)) < len(every):
        raise InputError(f"two treatments are named {max(every, key=every.count)!r}; name the direction otherwise")


def _given(lm: LanguageModel, file: str | Path | None) -> tuple[list[str], np.ndarray]:
    """The names of a file's directions, and the directions at length 1, [n d]; none without a file."""
    if file is None:
        return [], np.zeros((0, lm.config.d_model))
    found, names = read_directions(lm.config, file)
    w = np.asarray(found.w, np.float64)
    given = [f"direction.{n}" for n in range(len(w))] if names is None else list(names)
    return given, w / np.linalg.norm(w, axis=1, keepdims=True)


def _in_words(chosen: Sequence[Selection]) -> dict[str, str]:
    return {own.name: ", ".join(own.own.names) for own in chosen}

"""Influence, carrying and decodability side by side: the study of `jaxconf carry`.

Letters: s window, t position. A set *influences* the entropy if clipping its high activations changes it; it *carries*
the entropy if its activations predict it in other documents, better than those of random sets; the entropy is
*decodable* as far as the stream that enters the final MLP predicts it. Source: Zahrivyi, *Causal but Not Carrier*
(2026).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.analysis.weights import null_space_size
from jaxconf.data.own_text import OWN
from jaxconf.data.windows import Windows
from jaxconf.measure.analyze import analyze
from jaxconf.measure.chosen_sets import NEURONS, check_chosen, populations
from jaxconf.measure.facts import facts_of
from jaxconf.measure.inputs import check_amounts, refuse_mixture
from jaxconf.measure.named_sets import NamedSet, Population, by_population
from jaxconf.measure.neuron_sets import Named
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.report.run import save_study
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.runtime.memory import MEMORY, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing
from jaxconf.studies.carry.carried import COMPONENTS, Predictor, tables_of_carrying
from jaxconf.studies.carry.figures import FIGURES
from jaxconf.studies.carry.influence import table_of_influence
from jaxconf.studies.carry.page import page
from jaxconf.studies.carry.positions import DIRECTION, NORM, STREAM, block_of, entropy_correlations, held, positions
from jaxconf.studies.carry.sentences import sentences
from jaxconf.studies.carry.sets import all_sets, correlated_set, random_beside, ruled_table
from jaxconf.studies.carry.setting import HELD_OUT, Text, read_text


@dataclasses.dataclass
class Carry:
    """The result of `carry`. Entropies and losses are in nats. Neurons are named "layer.index".

    What is said of neurons here is of components where a set names these.

    All tables have a column `data`, the text. `set` is the name of a set, and `kind` what it is: "rule", "given" (named
    by the user), "correlation" (the largest |correlation| with the entropy), or "random". `beside` names the set whose
    random sets it is compared with, which have its size; of a random set, the one that it was drawn for. `gap` is the
    set's number minus the mean of those random sets. `_lo` and `_hi` are the ends of 95% intervals, from a bootstrap
    over documents that draws the same documents for all sets.

    sets: a row per set and neuron, `neuron`.
    influence: a row per set, and per neuron of the sets that are not random (`kind` "neuron"). `entropy_abs_delta`, the
    mean |change of entropy| if high activations are clipped, over the `positions` where one of the set is high; `gap`.
    carrying: a row per split, value that is predicted ("entropy", "loss" or "top1"), and set of features. Beside the
    neuron sets these are "components" (as many first principal components of the stream as the main set has neurons),
    and the stream that enters the final MLP, its "direction" and its "norm". `r2` on the held-out documents, `gap`,
    and the `penalty` that was chosen (NaN for components).
    components: a row per split and `number` of first principal components of the stream. The R² from them of the
    columns `entropy`, `loss` and `top1`.
    """

    facts: dict[str, Any]
    sets: pd.DataFrame
    influence: pd.DataFrame
    carrying: pd.DataFrame
    components: pd.DataFrame

    @property
    def texts(self) -> list[str]:
        """The texts, in the order in which they were given."""
        return list(self.facts["texts"])

    @property
    def noun(self) -> str:
        """What the main set, and the set of the largest correlations, is of."""
        return str(self.facts["nouns"][self.facts["main"]])

    def of(self, text: str) -> "Carry":
        """The same result with the rows of one text only."""
        names = ("sets", "influence", "carrying", "components")
        frames = {name: getattr(self, name) for name in names}
        return dataclasses.replace(self, **{name: frame[frame["data"] == text] for name, frame in frames.items()})

    def save(self, folder: str | Path) -> Path:
        """Write carry.html, its figures, the tables and the facts into the folder, which is created if needed.

        Returns the path of the page.
        """
        return save_study(self, "carry", sentences(self), FIGURES, page, folder)


def carry(
    lm: LanguageModel,
    tokens: np.ndarray | Windows | int = 32768,
    *,
    data: str | Sequence[str] = (),
    effects: int = 4096,
    run: str | Path | None = None,
    sets: Sequence[Named] = (),
    components: str = NEURONS,
    controls: int = 20,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Carry:
    """Whether sets of the last layer's neurons influence the entropy, carry it, and how well it can be decoded at all.

    `tokens`: windows, as `jaxconf.windows` gives them or a plain int [s t], each window of which counts as a document;
    or how many tokens to read of each text of `data`, by default of the one that the model was trained on if its folder
    says so, and else of stdlib. `effects`: on about how many tokens the influence is measured. `run`: the folder of a
    finished analysis of this model, whose entropy neurons by each rule are the sets. `sets`: further sets, (layer,
    index) of each neuron, or the names of directions or latents of one kind, such as "sae.12,sae.99". `components`:
    where these are from, as for `jaxconf.analyze`; principal components are those of the documents of the first text
    that are never held out. Without `run` and `sets`, `jaxconf.analyze` names the sets, on the documents of the first
    text that are never held out. `controls`: how many random sets of as many neurons each set is compared with. `k`:
    size of the null space, for that analysis. `bootstrap_draws`: resamples of the documents behind each interval.
    `memory`: bytes of a device that a batch may take, and of the host for the features of all positions, which are read
    twice if they take more. `facts`: are added to those of the result.

    Source: Zahrivyi, *Causal but Not Carrier* (2026). Raises InputError for a mixture of experts, a run of another
    model, neurons that are not in the last layer, components that there are not, a model of which no rule names a
    neuron, texts that are too short to be split, and as `jaxconf.analyze` does.
    """
    check_amounts(1, tokens=tokens, effects=effects, controls=controls)
    check_amounts(0, bootstrap_draws=bootstrap_draws, seed=seed)
    check_runnable(lm.params)
    refuse_mixture(lm.config, "the study of carrying")
    k = null_space_size(lm.config, k)
    timing = Timing()
    checked = check_chosen(lm.config, sets, components, controls, k)
    table = None if run is None else ruled_table(lm, run)
    progress("reading the text", 0, 0)
    texts = [read_text(lm, tokens, name, seed) for name in ([data] if isinstance(data, str) else data or [OWN])]
    if len({text.name for text in texts}) < len(texts):
        raise InputError(f"the texts are {', '.join(text.name for text in texts)}; give each text once")
    if table is None and not checked:
        table = _analysed(lm, texts[0], k, bootstrap_draws, seed, memory, progress)
    first = texts[0]
    named = first.tokens[first.naming], first.kept[first.naming]
    of = populations(lm, checked, components, k, *named, memory, progress)
    chosen = all_sets(lm, table, checked, of, controls)
    random = random_beside(chosen, controls, seed)
    measure = functools.partial(_measured, lm, chosen, random, effects, bootstrap_draws, seed, progress)
    found = [fitting(functools.partial(measure, text), memory, progress) for text in texts]
    own = {
        **_facts(texts, chosen, run, table),
        "controls": controls,
        "effects": effects,
        "splits": len(HELD_OUT),
        "k": k,
        "seed": seed,
        "bootstrap": bootstrap_draws,
    }
    return Carry(
        facts_of(lm, own, timing, sum(text.facts["positions"] for text in texts), facts), **_joined(texts, found)
    )


def _joined(texts: Sequence[Text], found: Sequence[Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """The tables of all texts."""
    pairs = list(zip(texts, found, strict=True))
    return {
        name: pd.concat([frames[name].assign(data=text.name) for text, frames in pairs], ignore_index=True)
        for name in found[0]
    }


def _analysed(
    lm: LanguageModel, text: Text, k: int, draws: int, seed: int, memory: int, progress: Progress
) -> NeuronTable:
    """The neuron table of the documents that are never held out.

    Token counts are left out: no rule for entropy neurons asks for them.
    """
    own = Windows(text.tokens[text.naming], text.documents[text.naming])
    how: dict[str, Any] = {"k": k, "bootstrap_draws": draws, "seed": seed, "memory": memory, "progress": progress}
    return analyze(lm, own, counts=np.zeros(lm.config.vocab_size, np.int64), **how)


def _measured(
    lm: LanguageModel,
    chosen: Sequence[NamedSet],
    random: Sequence[NamedSet],
    effects: int,
    draws: int,
    seed: int,
    progress: Progress,
    text: Text,
    memory: int,
) -> dict[str, pd.DataFrame]:
    """The tables of one text, without the column `data`."""
    config, main = lm.config, chosen[0]
    every = {main.population: np.arange(main.population.count)}
    naming = positions(lm, text, text.naming, every, memory, progress)
    correlated = correlated_set(entropy_correlations(naming, block_of(main.population)), main)
    named = [*chosen, correlated, *random]
    influence = table_of_influence(lm, text, named, effects, draws, seed, memory, progress)
    members = {
        of: np.unique([index for row in own for index in named[row].indices])
        for of, own in by_population(named).items()
    }
    read = functools.partial(positions, lm, text, np.arange(len(text.tokens)), members, memory, progress)
    features = sum(map(len, members.values())) + 2 * config.d_model + 1
    kept = held(read, int(text.kept.sum()), features, memory)
    predictors = predictors_of(config.d_model, named, members, main)
    carrying, curves = tables_of_carrying(kept, predictors, text.part, draws, seed, progress)
    rows = [{"set": of.name, "kind": of.kind, "beside": of.beside, "neuron": name} for of in named for name in of.names]
    return {"sets": pd.DataFrame(rows), "influence": influence, "carrying": carrying, "components": curves}


def predictors_of(
    width: int, named: Sequence[NamedSet], members: Mapping[Population, np.ndarray], main: NamedSet
) -> list[Predictor]:
    """All sets of features; `members`: those of the block of each population, int, ascending."""
    features = [tuple(np.searchsorted(members[of.population], of.indices).tolist()) for of in named]
    of_sets = [
        Predictor(of.name, of.kind, block_of(of.population), own, of.beside)
        for of, own in zip(named, features, strict=True)
    ]
    of_stream = [Predictor(block, block, block, tuple(range(width)), "") for block in (STREAM, DIRECTION)]
    first = tuple(range(min(len(main.members), width)))
    others = [Predictor(NORM, NORM, NORM, (0,), ""), Predictor(COMPONENTS, COMPONENTS, STREAM, first, main.name)]
    return [*of_sets, *of_stream, *others]


def _facts(
    texts: Sequence[Text], chosen: Sequence[NamedSet], run: str | Path | None, table: NeuronTable | None
) -> dict[str, Any]:
    return {
        "texts": {text.name: text.facts for text in texts},
        "data": ", ".join(text.name for text in texts),
        "sets": {of.name: of.names for of in chosen},
        "main": chosen[0].name,
        "nouns": {of.name: of.population.noun for of in chosen},
        "named_by": "a run" if run else "the training documents of the first text" if table else "the user",
        **({"run": str(run), **_seen(texts[0], Path(run))} if run else {}),
    }


def _seen(text: Text, run: Path) -> dict[str, int]:
    """How many windows from which documents are held out the run has read too, if it has its windows."""
    file = (run if run.is_dir() else run.parent) / "windows.npy"
    if not file.is_file():
        return {}
    read = {row.tobytes() for row in np.load(file).astype(np.int32)}
    others = np.delete(text.tokens, text.naming, axis=0).astype(np.int32)
    return {"run_windows_held_out": sum(row.tobytes() in read for row in others)}

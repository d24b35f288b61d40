"""Which neurons of a model recur in models that were trained apart from it, and of what kind these neurons are.

Letters: s window, t position. The neurons of "the first model" are matched with the neurons of every other model.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.weights import null_space_size
from jaxconf.data.own_text import OWN, source_for
from jaxconf.data.windows import Windows, digest, kept_positions
from jaxconf.measure.facts import accepted_facts, facts_of
from jaxconf.measure.inputs import (
    Model,
    accepted_by,
    check_amounts,
    counts_of,
    loaded,
    prepared,
    refuse_mixture,
    windows_and_facts,
)
from jaxconf.models import language_model
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.report.run import save_study
from jaxconf.runtime.memory import MEMORY
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing
from jaxconf.studies.universal.attention import attention_table
from jaxconf.studies.universal.composition import composition_table
from jaxconf.studies.universal.explanations import explained, explained_by, explanations_table
from jaxconf.studies.universal.families import FamilyRules, examples, families_table
from jaxconf.studies.universal.figures import FIGURES
from jaxconf.studies.universal.matches import Activity, CountedText, match_table
from jaxconf.studies.universal.neurons import Measuring, describe
from jaxconf.studies.universal.page import page
from jaxconf.studies.universal.sentences import sentences


@dataclasses.dataclass
class Universality:
    """The result of `universal`. Models are numbered from 0, which is the first model.

    neurons: a row per neuron of every model, with `model`, `layer`, `neuron` and

    * the weight statistics of `jaxconf.weight_statistics`; `in_out_cosine`, the cosine of what the neuron reads and
      what it writes; and `vocab_kurtosis_chance`, `logit_var_chance` and
      `cos_freq_chance`, the largest size of these among as many random directions as a layer has neurons;
    * `activation_mean`, `_std`, `_skew`, `_kurtosis`, and `position_r2`, the share of the activation's variance that
      lies between positions;
    * `bos_head`, the head in a layer above whose mean attention to BOS the neuron changes most; `bos_change`, that
      change to first order if the activation rises by a standard deviation; `bos_cosine`, the cosine of the neuron's
      write direction with that head's direction; and `bos_cosine_chance`, the 99% quantile of the largest cosine among
      as many random directions as there are pairs of the layer's neurons and heads above it;
    * if the effects were measured, those of `jaxconf.analyze` in the last layer;
    * a column is_…_neuron for each family;
    * for the first model, as means over the other models: `correlation` with the best match; `baseline`, the largest
      correlation with their rotated layers; `excess`, the difference; and `is_universal`;
    * for the first model also, for each feature of the text, such as `unigram`, the share r2_… of the activation's
      variance that the feature explains at held-out positions; and `explained_by`, the feature that explains most.

    matches: the best five matches of each neuron of the first model in each other `model`, by `rank` from 0, with
    `match_layer`, `match_neuron`, `correlation`, the neuron's `baseline` there, and `excess`; a constant neuron has no
    match.
    layers: a row per layer of the first model with its `neurons`, how many are `universal`, and their `share`.
    families: a row per family, with its `neurons` in the first model, how many are `universal`, their `share`,
    `share_of_others` (that of neurons outside the family, in the layers where the family is judged), and `p` of
    Fisher's exact test, two-sided; `excess` and `excess_of_others`, the medians; `recurs`, how often the best match in
    another model is of the same family, and `recurs_of_others`, how often the best match of a neuron outside the family
    is of the family.
    vocabulary: for each family of EXAMPLES, the cosines of the write direction of its neuron with the largest excess
    with each token's unembedding: `family`, `neuron`, `token` (id), `cosine`, and `word` for the extreme tokens.
    explanations: a row per `feature` of the text, and one for "none", with the `neurons` of the first model that it
    explains, how many of them are `universal`, `share_of_universal` and `share_of_others`, their shares among the
    universal neurons and among the others, `p` of Fisher's exact test, and the medians `r2_of_universal` and
    `r2_of_others`.
    attention: neurons of the first model that were set to 0, four candidates of each layer but the last (`kind`), which
    have the largest `bos_change`, and as many random neurons. There is a row for each `head` above: `is_bos_head`, if
    it is the neuron's `bos_head`, and then `bos_change`; its mean `attention` to BOS, the `attention_change` by the
    ablation, and the mean size of that change over positions; `bos_change_ablated`, the attention that the ablation
    takes if the activation is a standard deviation more; `chance`, the largest size of it among the layer's random
    neurons; and `confirmed`.
    composition: for each neuron of the first model, on each `side` ("in": what it reads, "out": what it writes), the
    neuron of the layers below or above with the `cosine` of the largest size: `partner_layer`, `partner_neuron`. Beside
    it `random`, the 99% quantile of the size of the cosine among random pairs of the same two layers, `chance`, the 99%
    quantile of the largest size among as many random directions as there are neurons in the layers of that side, and
    `is_universal`.
    """

    facts: dict[str, Any]
    neurons: pd.DataFrame
    matches: pd.DataFrame
    layers: pd.DataFrame
    families: pd.DataFrame
    vocabulary: pd.DataFrame
    explanations: pd.DataFrame
    attention: pd.DataFrame
    composition: pd.DataFrame

    def save(self, folder: str | Path) -> Path:
        """Write the tables, the facts, the figures and the page into the folder, and give the path of the page."""
        return save_study(self, "universal", sentences(self), FIGURES, page, folder)


def check_number(models: Sequence[Model]) -> None:
    """Raises InputError for fewer than two models."""
    if len(models) < 2:
        raise InputError(
            f"the number of models is {len(models)}; give two models or more, the first of which is compared with the "
            "others"
        )


def universal(
    lms: Sequence[Model],
    tokens: np.ndarray | Windows | int = 65536,
    *,
    data: str = OWN,
    kept: np.ndarray | None = None,
    counts: np.ndarray | str | Path | None = None,
    effects: int = 4096,
    rules: FamilyRules | None = None,
    k: int | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    accept: str | Sequence[str] = (),
    load: Callable[..., LanguageModel] = language_model.load,
    progress: Progress = lambda what, done, total: None,
) -> Universality:
    """Match each neuron of the first model with the neurons of every other model, by the correlation of activations.

    `lms`: models of one vocabulary, or names that `load` takes. `tokens`: windows, as for `jaxconf.analyze`, or how
    many tokens of the text `data` are read. `kept`: bool [s t], the positions that count (by default as in
    `jaxconf.analyze`, with the special tokens of any of the models left out). `counts`: as for `jaxconf.analyze`.
    `effects`: the number of tokens on which the effects of ablating each neuron of the last layers are measured, for
    the rules of entropy and frequency neurons; with 0 they are not measured. `rules`: which neurons are universal, and
    of which families. `k`: size of the null space, for ρ. `seed`: of the rotations and random directions. `memory`:
    bytes that sums and windows may take on a device; with less, the models run over the text more often. `facts`: are
    added to those of the result. `accept`: as for `jaxconf.load`, where a model's config.json has the attribute.

    Source: Gurnee et al. 2024 (arXiv 2401.12181), sections 4 and 5. Raises InputError for fewer than two models, models
    of different vocabularies or meshes, tokens that do not fit them, and as `jaxconf.load` and `jaxconf.documents` do.
    """
    rules = rules or FamilyRules()
    check_number(lms)
    check_amounts(1, tokens=tokens)
    check_amounts(0, effects=effects, seed=seed)
    models = _loaded(lms, accept, load, progress)
    progress("reading the text", 0, 0)
    data = source_for(data, models[0].folder) if isinstance(tokens, int) else data
    windows, of_reading = windows_and_facts(tokens, data, models[0], *(lm.config for lm in models[1:]))
    found, counts_facts = counts_of(models[0], data, counts, progress)
    timing = Timing()
    text, freq, how = _text(models, windows, kept, found), frequency(found), Measuring(effects, k, seed, memory)
    frames, activities = [], []
    for index, lm in enumerate(models):
        frame, means = describe(lm, text, freq, how, _named(progress, index))
        frames.append(rules.apply(frame).assign(model=index))
        activities.append(Activity(lm, means))
    matches = _matches(activities, text, seed, memory, progress)
    first = _with_explanations(_with_matches(frames[0], matches, rules), activities[0], text, rules, memory, progress)
    neurons = pd.concat([first, *frames[1:]], ignore_index=True)
    neurons["is_universal"] = neurons["is_universal"].astype("boolean")
    layers = first.groupby("layer")["is_universal"].agg(neurons="size", universal="sum", share="mean").reset_index()
    return Universality(
        facts=facts_of(
            models[0],
            {**_facts(models[0], text, rules, effects, k, seed), **counts_facts},
            timing,
            int(text.counted.sum()) * len(first),
            ({"data": data, **of_reading} if isinstance(tokens, int) else {}) | dict(facts or {}),
            named=_names(models),
        ),
        neurons=neurons[["model", *neurons.columns.drop("model")]],
        matches=matches,
        layers=layers,
        families=families_table(neurons, matches),
        vocabulary=examples(models[0], first),
        explanations=explanations_table(first),
        attention=attention_table(models[0], text.tokens, first, rules, seed, progress),
        composition=composition_table(models[0], first, seed, progress),
    )


def _text(
    models: Sequence[LanguageModel], windows: Windows, kept: np.ndarray | None, counts: np.ndarray
) -> CountedText:
    """The text that the models run on. Raises InputError unless it fits all of them."""
    if kept is None:
        kept = kept_positions(windows.tokens, frozenset().union(*(lm.special_ids for lm in models)))
    (tokens, counted), *_ = [prepared(lm, windows, kept) for lm in models]
    return CountedText(tokens, counted, windows.documents, counts)


def _loaded(
    lms: Sequence[Model], accept: str | Sequence[str], load: Callable[..., LanguageModel], progress: Progress
) -> list[LanguageModel]:
    """The models, loaded. Raises InputError unless they can be run, have the same vocabulary and lie on one mesh."""
    models: list[LanguageModel] = []
    passed = accepted_by([(model, None) for model in lms], accept)
    for model, names in zip(lms, passed, strict=True):
        progress("loading the models", len(models), len(lms))
        models.append(loaded(model, load, names))
    for lm in models:
        check_runnable(lm.params)
        refuse_mixture(lm.config, "the study of universal neurons")
    first = models[0]
    for other in models[1:]:
        if first.has_tokenizer and other.has_tokenizer:  # vocab_size may be padded differently
            same = first.tokenizer.vocabulary == other.tokenizer.vocabulary
        else:
            same = first.config.vocab_size == other.config.vocab_size
        if not same:
            raise InputError(
                f"the models {first.name} and {other.name} have different vocabularies, of {first.config.vocab_size:,} "
                f"and {other.config.vocab_size:,} tokens; give models with the same tokenizer"
            )
        if dict(first.mesh.shape) != dict(other.mesh.shape):
            raise InputError(f"the models {first.name} and {other.name} lie on different meshes; put them on one mesh")
    return models


def _matches(
    activities: Sequence[Activity], text: CountedText, seed: int, memory: int, progress: Progress
) -> pd.DataFrame:
    """The table `Universality.matches`."""
    first, *others = activities
    key = jax.random.key(seed)
    found = [
        match_table(first, other, text, jax.random.fold_in(key, index), memory, _named(progress, index)).assign(
            model=index
        )
        for index, other in enumerate(others, 1)
    ]
    every = pd.concat(found, ignore_index=True)
    return every[["model", *every.columns.drop("model")]]


def _with_matches(frame: pd.DataFrame, matches: pd.DataFrame, rules: FamilyRules) -> pd.DataFrame:
    """The first model's neurons, with means over their best matches in the other models."""
    best = matches[matches["rank"] == 0].groupby(["layer", "neuron"])[["correlation", "baseline", "excess"]].mean()
    joined = frame.join(best, on=["layer", "neuron"])
    return joined.assign(is_universal=joined["excess"] >= rules.min_excess)


def _with_explanations(
    frame: pd.DataFrame, first: Activity, text: CountedText, rules: FamilyRules, memory: int, progress: Progress
) -> pd.DataFrame:
    """The first model's neurons, with how much each feature of the text explains."""
    columns = explained(first, text, memory, progress)
    columns["explained_by"] = explained_by(columns, rules.min_explained)
    return frame.assign(**{name: x.ravel() for name, x in columns.items()})


def _names(models: Sequence[LanguageModel]) -> dict[str, Any]:
    return {
        "model": models[0].name,
        "revision": models[0].revision,
        "models": [lm.name for lm in models],
        "revisions": [lm.revision for lm in models],
        **accepted_facts(*(lm.accepted for lm in models)),
        **({"base_models": [lm.base and lm.base.name for lm in models]} if any(lm.base for lm in models) else {}),
    }


def _facts(
    first: LanguageModel, text: CountedText, rules: FamilyRules, effects: int, k: int | None, seed: int
) -> dict[str, Any]:
    positions = int(text.counted.sum())
    return {
        "data_sha256": digest(text.tokens),
        "windows": len(text.tokens),
        "tokens": int(text.tokens.size),
        "positions": positions,
        "effects": effects,
        **dataclasses.asdict(rules),
        "position_r2_chance": (int(text.counted.any(0).sum()) - 1) / max(1, positions - 1),
        "k": null_space_size(first.config, k),
        "seed": seed,
    }


def _named(progress: Progress, index: int) -> Progress:
    return lambda what, done, total: progress(f"model {index + 1}: {what}", done, total)

"""The models that are compared: their names, and whether they have the same shape and the same tokens.

Letters: s window, t position.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxconf.measure.inputs import Model, accepted_by, config_of, loaded
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel, local_folder
from jaxconf.report.style import short
from jaxconf.results.words import titled
from jaxconf.runtime.progress import Progress

if TYPE_CHECKING:
    from jaxconf.studies.comparison.study import Comparison


class Chosen(NamedTuple):
    """A model that is compared. It may still have to be loaded."""

    name: str  # unique in the comparison
    config: DecoderConfig
    model: Model
    accept: tuple[str, ...]

    def loaded(self, load: Callable[..., LanguageModel], progress: Progress) -> LanguageModel:
        progress(f"{self.name}: loading", 0, 0)
        return loaded(self.model, load, self.accept)


def choose(base: Model, tuned: Sequence[Model], accept: str | Sequence[str] = ()) -> list[Chosen]:
    """The models that are compared, the base model first. Only configs are read, because loading can take minutes.

    Raises InputError if there is no tuned model, for a model that is named twice, for a tuned model of another shape,
    and for a name of no model.
    """
    if not tuned:
        raise InputError(
            "no model to compare with is given; give at least one that was trained further from the base model"
        )
    _check_named_once([str(model) for model in (base, *tuned) if not isinstance(model, LanguageModel)])
    passed = accepted_by([(model, None) for model in (base, *tuned)], accept)
    chosen = [
        Chosen(name, config_of(model, accept=names), model, names)
        for (name, model), names in zip(_with_names([base, *tuned]), passed, strict=True)
    ]
    for other in chosen[1:]:
        _check_same_shape(chosen[0].config, other.config, other.name)
    return chosen


def same_tokens(base: LanguageModel, tuned: LanguageModel, tokens: np.ndarray) -> bool:
    """Whether the tuned model's tokenizer splits the text of the base model's windows, int [s t], into the same tokens.

    Every id in the windows must also name the same token. Two models without a tokenizer have the same tokens if their
    vocabularies have the same size.
    """
    if tokens.max() >= tuned.config.vocab_size or base.has_tokenizer != tuned.has_tokenizer:
        return False
    if not base.has_tokenizer:
        return base.config.vocab_size == tuned.config.vocab_size
    if any(base.tokenizer.token(i) != tuned.tokenizer.token(i) for i in np.unique(tokens)):
        return False
    special = list(base.end_ids | tuned.end_ids)
    texts = [base.tokenizer.decode(row[~np.isin(row, special)]) for row in tokens]
    both = zip(base.tokenizer.encode_batch(texts), tuned.tokenizer.encode_batch(texts), strict=True)
    return all(np.array_equal(of_base, of_tuned) for of_base, of_tuned in both)


def name_of(found: "Comparison", model: str, most: int = 36) -> str:
    """The name of a compared model in titles and sentences, of at most so many characters.

    It is without the path of its folder, unless another model of the comparison has the same name.
    """

    def named(model: str) -> str:
        return titled(model, found.facts.get("revisions", {}).get(model, ""))

    alike = [named(other) for other in (found.facts["base"], *found.facts["tuned"])].count(named(model)) > 1
    return short(model if alike else named(model), most)


def _with_names(models: Sequence[Model]) -> Iterator[tuple[str, Model]]:
    """Each model with its name. A name that an earlier model has gets a number, such as "gpt2 (2)"."""
    taken: set[str] = set()
    for model in models:
        own = model.name if isinstance(model, LanguageModel) else str(model)
        numbered = (f"{own} ({number})" for number in itertools.count(2))
        name = next(name for name in itertools.chain([own], numbered) if name not in taken)
        taken.add(name)
        yield name, model


def _check_named_once(names: Sequence[str]) -> None:
    """Raises InputError for two names of one local folder, and for a hub id that is given twice."""
    folders = [(local_folder(name), name) for name in names]
    places = [folder.resolve() if folder.is_dir() else name for folder, name in folders]
    for place, name in zip(places, names, strict=True):
        if places.count(place) > 1:
            raise InputError(f"the model {name} is named more than once; give different models to compare")


def _check_same_shape(base: DecoderConfig, tuned: DecoderConfig, name: str) -> None:
    shapes = [
        f"{config.n_layers} layer{'s' * (config.n_layers > 1)} of {config.d_mlp:,} neurons at width {config.d_model:,}"
        for config in (tuned, base)
    ]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"the model {name} has {shapes[0]} and the base model {shapes[1]}; give a model that was trained "
            "further from the base model and has its shape"
        )

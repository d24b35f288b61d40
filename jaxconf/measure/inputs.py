"""What a measurement is given: models, and the windows of tokens that they run on. Letters: s window, t position."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxconf.data.documents import documents
from jaxconf.data.windows import windows
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import LanguageModel, find, read_config

WINDOW = 256  # tokens, where the model's context is not shorter

Model = LanguageModel | str | Path
"""A model, or a name that `jaxconf.load` takes."""


def loaded(model: Model, load: Callable[[str], LanguageModel]) -> LanguageModel:
    """The model, which `load` loads if it is given by its name."""
    return model if isinstance(model, LanguageModel) else load(str(model))


def config_of(model: Model, revision: str | None = None) -> DecoderConfig:
    """The config of a model, whose weights are not loaded for it. Raises InputError as `jaxconf.load` does."""
    if isinstance(model, LanguageModel):
        return model.config
    return config_from_hf(read_config(find(model, revision, weights=False)[0]))


def windows_of(tokens: np.ndarray | int, data: str, lm: LanguageModel, *others: DecoderConfig) -> np.ndarray:
    """The windows int32 [s t] that `tokens` is, or that many tokens of the text `data`.

    Text is read with the model's tokenizer, in windows of 256 tokens, or of the shortest context of the model and the
    others. `data`: as for `jaxconf.documents`. Raises InputError for a number below 1, and as `jaxconf.documents` and
    `jaxconf.windows` do.
    """
    check_amounts(1, tokens=tokens)
    if not isinstance(tokens, int):
        return np.asarray(tokens, np.int32)
    length = min(WINDOW, *(config.n_positions for config in (lm.config, *others)))
    return windows(documents(data), lm.tokenizer, tokens, length)


def check_amounts(least: int, **amounts: np.ndarray | int) -> None:
    """Raises InputError for an argument that is a number below `least`; arrays are given in place of numbers."""
    for name, amount in amounts.items():
        if isinstance(amount, int) and amount < least:
            raise InputError(f"{name} is {amount}; give at least {least}")

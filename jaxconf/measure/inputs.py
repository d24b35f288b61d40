"""The inputs of a measurement: models, and the text that they run on. Letters: s window, t position, v vocabulary."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.data.documents import documents
from jaxconf.data.token_counts import COUNTED, count_tokens, first_documents, read_counts
from jaxconf.data.windows import kept_positions, windows
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import check_tokens
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import LanguageModel, find, read_config
from jaxconf.runtime.progress import Progress

WINDOW = 256  # tokens of a window, unless the model's context is shorter

Model = LanguageModel | str | Path
"""A model, or a name that `jaxconf.load` takes."""


def loaded(model: Model, load: Callable[[str], LanguageModel]) -> LanguageModel:
    """The model, which `load` loads if it is given by its name."""
    return model if isinstance(model, LanguageModel) else load(str(model))


def config_of(model: Model, revision: str | None = None) -> DecoderConfig:
    """The config of a model; its weights are not loaded. Raises InputError as `jaxconf.load` does."""
    if isinstance(model, LanguageModel):
        return model.config
    return config_from_hf(read_config(find(model, revision, weights=False)[0]))


def windows_of(tokens: np.ndarray | int, data: str, lm: LanguageModel, *others: DecoderConfig) -> np.ndarray:
    """Windows, int32 [s t]: `tokens` itself if it is an array, else so many tokens of the text `data`.

    Text is encoded with the tokenizer of `lm`, in windows of 256 tokens, or of the shortest context of `lm` and the
    `others` if that is less. `data`: as for `jaxconf.documents`. Raises InputError for a number below 1, and as
    `jaxconf.documents` and `jaxconf.windows` do.
    """
    check_amounts(1, tokens=tokens)
    if not isinstance(tokens, int):
        return np.asarray(tokens, np.int32)
    length = min(WINDOW, *(config.n_positions for config in (lm.config, *others)))
    return windows(documents(data), lm.tokenizer, tokens, length)


def check_amounts(least: int, **amounts: np.ndarray | int) -> None:
    """Raises InputError for an amount below `least`; an amount that is an array is not checked."""
    for name, amount in amounts.items():
        if not isinstance(amount, np.ndarray) and amount < least:
            raise InputError(f"{name} is {amount}; give at least {least}")


class Text(NamedTuple):
    """The text of an analysis."""

    tokens: np.ndarray  # windows, int32 [s t]
    counts: np.ndarray | None  # token counts, int64 [v]; None stands for those of the windows
    facts: dict[str, str]  # `data` and `counts`: where the tokens and the counts are from


def text_of(
    lm: LanguageModel,
    tokens: np.ndarray | int,
    data: str,
    counts: np.ndarray | str | Path | None,
    progress: Progress,
) -> Text:
    """The text that `jaxconf.analyze` is given or reads.

    `tokens`: windows, or how many tokens of `data` are read. `counts`: token counts or a file of them; by default those
    of the windows that are given, or those of the first 40 million characters of `data`.
    """
    is_read = isinstance(tokens, int)
    if is_read:
        progress("reading the text", 0, 0)
    read = windows_of(tokens, data, lm)
    if isinstance(counts, str | Path):
        found, origin = read_counts(counts, lm.config.vocab_size), str(counts)
    elif counts is not None:
        found, origin = counts, "given"
    elif is_read:
        progress("token counts", 0, 0)
        first = first_documents(documents(data))
        found = count_tokens(first, lm.tokenizer, lm.config.vocab_size, lambda done: progress("token counts", done, 0))
        origin = f"{data}, its first {COUNTED:,} characters at most"
    else:
        found, origin = None, "the analysed windows"
    return Text(read, found, {"data": data if is_read else "tokens", "counts": origin})


def prepared(
    lm: LanguageModel, tokens: np.ndarray, kept: np.ndarray | None, counts: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Frequency]:
    """The windows, the kept positions that have a next token, the token counts and the frequencies, all checked.

    `tokens`: int [s t]. `kept`: bool [s t], by default those of `jaxconf.kept_positions`. `counts`: int [v], by default
    those of the windows without BOS and EOS. Raises InputError as `jaxconf.analyze` does.
    """
    tokens = np.asarray(tokens, np.int32)
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise InputError(f"tokens have shape {list(tokens.shape)}; give windows of token ids as [windows, length]")
    check_tokens(lm.config, tokens)
    kept = with_target(tokens, kept_positions(tokens, lm.special_ids) if kept is None else np.asarray(kept, bool))
    counts = _counts_of(lm, tokens) if counts is None else checked_counts(lm.config, counts)
    return tokens, kept, counts, frequency(counts)


def with_target(tokens: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The kept positions that have a next token in the window, bool [s t].

    Raises InputError if `kept` has another shape than `tokens`, or if no position is left.
    """
    if kept.shape != tokens.shape:
        raise InputError(
            f"kept has shape {list(kept.shape)} and tokens {list(tokens.shape)}; give a bool for each token"
        )
    kept = kept & (np.arange(tokens.shape[1]) < tokens.shape[1] - 1)
    if not kept.any():
        raise InputError(
            "no position is left to measure after dropping special tokens; give longer windows or other text"
        )
    return kept


def _counts_of(lm: LanguageModel, tokens: np.ndarray) -> np.ndarray:
    counts = np.bincount(tokens.ravel(), minlength=lm.config.vocab_size)
    counts[[i for i in lm.end_ids if i < len(counts)]] = 0
    return counts


def checked_counts(config: DecoderConfig, counts: np.ndarray) -> np.ndarray:
    """The token counts as an array. Raises InputError unless there is one for each token of the vocabulary."""
    counts = np.asarray(counts)
    if counts.shape != (config.vocab_size,):
        raise InputError(
            f"counts have shape {list(counts.shape)}; give one count for each of the model's {config.vocab_size} tokens"
        )
    return counts


def in_words(lm: LanguageModel, positions: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns `token` and `target` as text, if the model has a tokenizer."""
    if not lm.has_tokenizer:
        return positions
    ids = set(positions["token"]) | set(positions["target"])
    words = {token: lm.tokenizer.token(token) for token in ids}
    return positions.assign(token=positions["token"].map(words), target=positions["target"].map(words))

"""The inputs of a measurement: models, and the text that they run on. Letters: s window, t position, v vocabulary."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.frequency import split_half_cosine
from jaxconf.data.documents import documents
from jaxconf.data.own_text import source_for
from jaxconf.data.token_counts import COUNTED, counts_of_source, read_counts
from jaxconf.data.windows import Windows, kept_positions, windows
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import check_tokens
from jaxconf.models.errors import InputError
from jaxconf.models.families import accepted, config_from_hf
from jaxconf.models.language_model import LanguageModel, find, read_config
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.models.tokenizer_files import has_tokenizer
from jaxconf.runtime.progress import Progress

WINDOW = 256  # tokens of a window, unless the model's context is shorter
FIRST = f"its first {COUNTED:,} characters at most"  # of a text whose tokens are counted
TOKENS = ("token", "target", "top", "top_ablated", "top_ablated_ln_frozen")  # columns that hold ids of tokens

Model = LanguageModel | str | Path
"""A model, or a name that `jaxconf.load` takes."""


def loaded(model: Model, load: Callable[..., LanguageModel], accept: Sequence[str] = ()) -> LanguageModel:
    """The model, which `load` loads if it is given by its name; `accept` is passed to it, if there is any."""
    if isinstance(model, LanguageModel):
        return model
    return load(str(model), accept=accept) if accept else load(str(model))


def config_of(model: Model, revision: str | None = None, accept: str | Sequence[str] = ()) -> DecoderConfig:
    """The config of a model; its weights are not loaded. Raises InputError as `jaxconf.load` does."""
    if isinstance(model, LanguageModel):
        return model.config
    return config_from_hf(read_config(find(model, revision, weights=False)[0]), accept)


def accepted_by(models: Sequence[tuple[Model, str | None]], accept: str | Sequence[str]) -> list[tuple[str, ...]]:
    """What each of several models, given with its revision, is to `accept`; as `jaxconf.models.families.accepted`.

    A model that is loaded already accepts nothing more.
    """
    if not accept:
        return [()] * len(models)
    named = [(model, revision) for model, revision in models if not isinstance(model, LanguageModel)]
    configs = [read_config(find(model, revision, weights=False)[0]) for model, revision in named]
    passed = iter(accepted(configs, accept))
    return [() if isinstance(model, LanguageModel) else next(passed) for model, _ in models]


def refuse_mixture(config: DecoderConfig, what: str) -> None:
    """Raises InputError for a mixture of experts, which `what`, such as "the study of induction", does not take."""
    if config.experts:
        raise InputError(
            f"the model is a mixture of experts, which {what} does not take; measure it with `jaxconf analyze`"
        )


def windows_of(tokens: np.ndarray | Windows | int, data: str, lm: LanguageModel, *others: DecoderConfig) -> Windows:
    """Windows: `tokens` itself if they are windows, else so many tokens of the text `data`.

    Each window of a plain array, int [s t], counts as a document.

    Text is encoded with the tokenizer of `lm`. `data`: as for `jaxconf.data.own_text.source_for`. Raises InputError as
    that function, `window_length`, `jaxconf.documents` and `jaxconf.windows` do.
    """
    return windows_and_facts(tokens, data, lm, *others)[0]


def windows_and_facts(
    tokens: np.ndarray | Windows | int, data: str, lm: LanguageModel, *others: DecoderConfig
) -> tuple[Windows, dict[str, Any]]:
    """`windows_of`, and the `facts` of `jaxconf.documents`, which are empty where no text is read."""
    if isinstance(tokens, Windows):
        return tokens, {}
    if not isinstance(tokens, int):
        tokens = np.asarray(tokens, np.int32)
        return Windows(tokens, np.indices(tokens.shape, np.int32)[0]), {}
    length, text = window_length(tokens, lm.config, *others), documents(source_for(data, lm.folder))
    return windows(text, lm.tokenizer, tokens, length), text.facts


def window_length(tokens: int, *configs: DecoderConfig) -> int:
    """The length of the windows that text is read in: 256 tokens, or the shortest context if that is less.

    Raises InputError if so many `tokens` do not fill one window.
    """
    check_amounts(1, tokens=tokens)
    length = min(WINDOW, *(config.n_positions for config in configs))
    if tokens < length:
        raise InputError(f"tokens is {tokens}, but one window has {length}; give at least {length}")
    return length


def tokens_counted(folder: Path) -> int:
    """How many tokens the tokenizer in a model's folder has, each of which token counts must have; 0 without one."""
    return Tokenizer.from_folder(folder).vocab_size if has_tokenizer(folder) else 0


def check_amounts(least: int, **amounts: np.ndarray | Windows | int) -> None:
    """Raises InputError for an amount below `least`; arrays and windows are not checked."""
    for name, amount in amounts.items():
        if not isinstance(amount, np.ndarray | Windows) and amount < least:
            raise InputError(f"{name} is {amount}; give at least {least}")


class Text(NamedTuple):
    """The text of an analysis."""

    windows: Windows
    counts: np.ndarray  # token counts, int64 [v]
    facts: dict[str, Any]
    """`data` and `counts`: where the tokens and the counts are from; how they were read; how far to trust the counts"""


def text_of(
    lm: LanguageModel,
    tokens: np.ndarray | Windows | int,
    data: str,
    counts: np.ndarray | str | Path | None,
    progress: Progress,
    kept_counts: Path | None = None,
) -> Text:
    """The text that `jaxconf.analyze` is given or reads.

    `tokens`: windows, or how many tokens of `data` are read. `counts`: token counts or a file of them; by default those
    of the first 40 million characters of `data`, never those of the windows, which are far too few. `kept_counts`: as
    `keep` for `counts_of_source`. Raises InputError if there are no counts and no tokenizer to count with.
    """
    is_read = isinstance(tokens, int)
    if is_read or counts is None:
        data = source_for(data, lm.folder)
    if is_read:
        progress("reading the text", 0, 0)
    read, of_reading = windows_and_facts(tokens, data, lm)
    found, facts = counts_of(lm, data, counts, progress, kept_counts)
    return Text(read, found, {"data": data if is_read else "tokens", **of_reading, **facts})


def counts_of(
    lm: LanguageModel,
    data: str,
    counts: np.ndarray | str | Path | None,
    progress: Progress,
    kept_counts: Path | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Token counts, int [v], for the arguments of `text_of`; and the facts about them, as `counts_facts`."""
    if counts is not None:
        return given_counts(counts, lm.config.vocab_size, tokens_counted(lm.folder))
    if not lm.has_tokenizer:
        raise InputError("the model has no tokenizer to count the tokens of a text with; give counts")
    progress("token counts", 0, 0)
    data = source_for(data, lm.folder)

    def count(done: int) -> None:
        progress("token counts", done, 0)

    found = counts_of_source(data, lm.tokenizer, lm.config.vocab_size, count, kept_counts)
    return found, counts_facts(found, f"{data}, {FIRST}")


def given_counts(counts: np.ndarray | str | Path, vocab_size: int, least: int = 0) -> tuple[np.ndarray, dict[str, Any]]:
    """Token counts that a user gives, as an array int [v] or as a file; and the facts about them, as `counts_facts`.

    `least`: as for `read_counts`. Raises InputError for counts that do not fit the vocabulary.
    """
    if isinstance(counts, str | Path):
        found, origin = read_counts(counts, vocab_size, least), str(counts)
    else:
        found, origin = checked_counts(counts, vocab_size), "given"
    return found, counts_facts(found, origin)


def counts_facts(counts: np.ndarray, origin: str) -> dict[str, Any]:
    """The facts about token counts, int [v], JSON-able.

    They say where the counts are from, and how far the token-frequency direction that they give can be trusted.
    """
    return {
        "counts": origin,
        "counts_tokens": int(counts.sum()),
        "counts_types": int(np.count_nonzero(counts)),
        "counts_smoothing": "add-one",
        "counts_cosine": split_half_cosine(counts),
        "counts_sha256": hashlib.sha256(counts.astype("<i8").tobytes()).hexdigest(),
    }


def prepared(lm: LanguageModel, windows: Windows, kept: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The windows, int32 [s t], and the kept positions that have a next token, bool [s t], both checked.

    `kept`: by default those of `jaxconf.kept_positions`. Raises InputError as `jaxconf.analyze` does.
    """
    tokens = np.asarray(windows.tokens, np.int32)
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise InputError(f"tokens have shape {list(tokens.shape)}; give windows of token ids as [windows, length]")
    check_tokens(lm.config, tokens)
    kept = with_target(tokens, kept_positions(tokens, lm.special_ids) if kept is None else np.asarray(kept, bool))
    if windows.documents.shape != tokens.shape:
        raise InputError(
            f"documents have shape {list(windows.documents.shape)} and tokens {list(tokens.shape)}; give the document "
            "of each token"
        )
    return tokens, kept


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


def checked_counts(counts: np.ndarray, vocab_size: int) -> np.ndarray:
    """The token counts as an array. Raises InputError unless there is one for each token of the vocabulary."""
    counts = np.asarray(counts)
    if counts.shape != (vocab_size,):
        raise InputError(
            f"counts have shape {list(counts.shape)}; give one count for each of the model's {vocab_size} tokens"
        )
    return counts


def in_words(lm: LanguageModel, positions: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns of tokens (TOKENS) as text, if the model has a tokenizer."""
    if not lm.has_tokenizer:
        return positions
    columns = positions[[name for name in TOKENS if name in positions]]
    words = {token: lm.tokenizer.token(token) for token in np.unique(columns)}
    return positions.assign(**{name: column.map(words) for name, column in columns.items()})

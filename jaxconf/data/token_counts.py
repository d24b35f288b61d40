"""How often each token occurs in a text. Letters: V tokens of the model's vocabulary."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxconf.data.windows import Piece, batches_of_pieces
from jaxconf.models.errors import InputError, first_line
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.runtime.hosts import shared_work

COUNTED = 40_000_000  # where no token counts are given, they are counted over this many characters of the text


def count_tokens(
    documents: Iterable[str], tokenizer: Tokenizer, vocab_size: int, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """How often each token occurs in a text that is encoded without special tokens, int64 [V].

    `progress` is called with the number of tokens counted so far. Raises InputError if a token's id is not below
    `vocab_size`.
    """
    counts = np.zeros(vocab_size, np.int64)
    total = 0

    def encoded(batch: list[Piece]) -> np.ndarray:
        return np.concatenate(tokenizer.encode_batch([text for text, _ in batch]))

    for ids in shared_work(batches_of_pieces(documents), encoded):
        if ids.max(initial=-1) >= vocab_size:
            raise InputError(
                f"the tokenizer gives the id {ids.max()}, outside the vocabulary of {vocab_size}; use the model's own "
                "tokenizer"
            )
        counts += np.bincount(ids, minlength=vocab_size)
        total += len(ids)
        if progress:
            progress(total)
    return counts


def first_documents(documents: Iterable[str], characters: int = COUNTED) -> Iterator[str]:
    """The first documents, until they have `characters` characters in all; the last one is cut off at that limit."""
    for text in documents:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return


def read_counts(path: str | Path, vocab_size: int, least: int = 0) -> np.ndarray:
    """Token counts from a .npy file (one-dimensional, integers >= 0), int64 [V]; tokens beyond its end count as 0.

    `least`: how many counts the file must have at least, which is how many tokens the tokenizer has; a model's
    vocabulary may be larger, for padding. Raises InputError if the file is anything else, or counts a token whose id is
    not below `vocab_size`.
    """
    try:
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"the file {path} cannot be read ({first_line(error)}); give token counts saved with numpy.save"
        ) from error
    if not isinstance(counts, np.ndarray) or counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer):
        raise InputError(f"the file {path} holds no one-dimensional array of integers; give one count per token id")
    if (counts < 0).any():
        raise InputError(
            f"the file {path} holds a negative count, of token {np.argmax(counts < 0)}; give counts of 0 or more"
        )
    beyond = np.flatnonzero(counts[vocab_size:])
    if len(beyond):
        raise InputError(
            f"the file {path} counts the token {vocab_size + beyond[0]}, outside the vocabulary of {vocab_size}; give "
            "counts made with the model's own tokenizer"
        )
    if len(counts) < min(least, vocab_size):
        raise InputError(
            f"the file {path} has {len(counts):,} counts, fewer than the {least:,} tokens of the model's tokenizer; "
            "give one count for each token, as `jaxconf unigram` does"
        )
    return np.pad(counts[:vocab_size].astype(np.int64), (0, max(0, vocab_size - len(counts))))

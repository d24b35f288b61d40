"""Windows of token ids: text is encoded and cut into windows, and statistics are taken at their kept positions.

Letters: S windows of `length` tokens each. Documents are streamed: memory grows with the tokens that are asked for, not
with the text.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jaxconf.models.errors import InputError
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.runtime.hosts import shared_work

BATCH_CHARACTERS = 2**20
PIECE_CHARACTERS = 2**18

Piece = tuple[str, bool]
"""A piece of a document, and whether it is the last piece of that document."""


class Windows(NamedTuple):
    """Windows of token ids, and the document that each of their positions is from."""

    tokens: np.ndarray  # int32 [S length]
    documents: np.ndarray  # int32 [S length]: counted from 0; a BOS is of the document of the token behind it


def windows(documents: Iterable[str], tokenizer: Tokenizer, n_tokens: int, length: int = 256) -> Windows:
    """The first `n_tokens` tokens of a text in S windows, S at most max(1, n_tokens // length).

    An EOS ends each document and a BOS begins each window, where the tokenizer has them; both count as tokens. An
    incomplete last window is dropped, and no more documents are read than needed. A document of more than 2**18
    characters is cut before spaces into pieces that are encoded separately. Tokens next to a cut may therefore differ
    from those of the whole document.

    Raises InputError for a length below 2, and if the text does not fill one window.
    """
    if length < 2:
        raise InputError(f"length is {length}; give at least 2")
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    body = length - len(bos)
    wanted = max(1, n_tokens // length) * body

    stream, of = [np.array([], np.int32)], [np.array([], np.int32)]
    found = ended = 0
    pieces = _pieces(documents)

    def batches() -> Iterator[list[Piece]]:
        # Few tokens are shorter than one character. So a batch of one character for each missing token hardly ever
        # holds more tokens than are missing, and no document is read needlessly.
        while found < wanted and (batch := _batch(pieces, min(wanted - found, BATCH_CHARACTERS))):
            yield batch

    for counted in shared_work(batches(), functools.partial(_counted_pieces, tokenizer=tokenizer)):
        ids, ends = np.split(counted[1:], [len(counted) - 1 - counted[0]])
        stream.append(ids)
        of.append(ended + np.searchsorted(ends, np.arange(len(ids)), side="right").astype(np.int32))
        found, ended = found + len(ids), ended + len(ends)

    n_windows = min(found, wanted) // body
    if n_windows == 0:
        raise InputError(f"the text gives {found + len(bos)} tokens, fewer than one window of {length}; give more text")
    text, sources = (np.concatenate(x)[: n_windows * body].reshape(n_windows, body) for x in (stream, of))
    return Windows(
        np.hstack([np.full((n_windows, len(bos)), bos, np.int32), text]),
        np.hstack([np.repeat(sources[:, :1], len(bos), 1), sources]),
    )


def kept_positions(windows: np.ndarray, special_ids: Iterable[int]) -> np.ndarray:
    """The kept positions, over which statistics are taken, bool [S, length], of integer windows [S, length].

    Not kept are positions 0 to 2 and the last position of each window, tokens in `special_ids`, and tokens just before
    one of those.
    """
    special = np.isin(windows, list(special_ids))
    kept = ~(special | np.roll(special, -1, axis=1))
    kept[:, :3] = kept[:, -1:] = False
    return kept


def digest(windows: np.ndarray) -> str:
    """The SHA-256 of integer windows [S, length], in hexadecimal digits; the same on every machine."""
    return hashlib.sha256(str(windows.shape).encode() + windows.astype("<i4").tobytes()).hexdigest()


def encode(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """All tokens of a text, in int32 arrays of one axis, each of about a million characters of text.

    An EOS ends each document, where the tokenizer has one.
    """
    yield from shared_work(batches_of_pieces(documents), functools.partial(_encode_pieces, tokenizer=tokenizer))


def batches_of_pieces(documents: Iterable[str]) -> Iterator[list[Piece]]:
    """The documents, cut into pieces of bounded size, in batches of pieces that the tokenizer encodes together."""
    pieces = _pieces(documents)
    return iter(lambda: _batch(pieces, BATCH_CHARACTERS), [])


def _pieces(documents: Iterable[str]) -> Iterator[Piece]:
    """The documents, cut into pieces of at most PIECE_CHARACTERS.

    A tokenizer needs over a hundred bytes of memory for each character, so it cannot encode a long document whole.
    """
    for text in documents:
        start = 0
        while len(text) - start > PIECE_CHARACTERS:
            # Byte-level tokenizers split text before the space that leads a word, so no token spans such a cut.
            cut = text.rfind(" ", start + 1, start + PIECE_CHARACTERS)
            cut = start + PIECE_CHARACTERS if cut == -1 else cut
            yield text[start:cut], False
            start = cut
        yield text[start:], True


def _batch(pieces: Iterator[Piece], characters: int) -> list[Piece]:
    """The next pieces, until they have `characters` characters in all; empty when no pieces are left.

    The end of each piece counts as one character more.
    """
    batch = []
    for piece in pieces:
        batch.append(piece)
        characters -= len(piece[0]) + 1
        if characters <= 0:
            break
    return batch


def _encode_pieces(batch: list[Piece], tokenizer: Tokenizer) -> np.ndarray:
    return np.concatenate(_encoded(batch, tokenizer))


def _counted_pieces(batch: list[Piece], tokenizer: Tokenizer) -> np.ndarray:
    """In one array: how many documents end in the batch, its tokens, and behind which of them each document ends."""
    encoded = _encoded(batch, tokenizer)
    behind = np.cumsum([len(ids) for ids in encoded])
    ends = behind[[ends_document for _, ends_document in batch]]
    return np.concatenate([[len(ends)], *encoded, ends]).astype(np.int32)


def _encoded(batch: list[Piece], tokenizer: Tokenizer) -> list[np.ndarray]:
    """The tokens of each piece; an EOS ends each document, where the tokenizer has one."""
    eos = np.array([] if tokenizer.eos_id is None else [tokenizer.eos_id], np.int32)
    encoded = zip(tokenizer.encode_batch([text for text, _ in batch]), batch, strict=True)
    return [np.append(ids, eos).astype(np.int32) if ends_document else ids for ids, (_, ends_document) in encoded]

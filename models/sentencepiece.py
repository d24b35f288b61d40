"""Reads SentencePiece's tokenizer.model as a tokenizer of the `tokenizers` library.

transformers is not used for this: it reads the file differently for each family, and for some families loses the space
that SentencePiece puts before a text.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from jaxconf.models.errors import InputError

# Numbers of the file format: a kind of model, and the kinds of pieces.
BPE = 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
WIDTHS = {1: 8, 5: 4}  # the bytes of the kinds of values that have a fixed width
SPACE = "▁"
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2 ** 64


def read_sentencepiece(path: Path, add_prefix_space: bool | None = None) -> tokenizers.Tokenizer:
    """A tokenizer with SentencePiece's ids.

    As in transformers, it also recognizes <unk> and control pieces such as <s> in text.
    `add_prefix_space`: whether a space is put before a text; None: as the file says. Raises InputError for a file in
    tiktoken's format and for a model that is not plain BPE, and some other exception for a broken file.
    """
    data = path.read_bytes()
    if re.match(rb"[A-Za-z0-9+/]+=* \d+\n", data):
        raise InputError(
            f"{path} is in tiktoken's format, not SentencePiece's; save it as tokenizer.json with transformers"
        )
    parts = _fields(data)
    if not {1, 2, 3} <= parts.keys():
        raise ValueError("parts of it are missing")
    training, normalizing = _fields(parts[2][-1]), _fields(parts[3][-1])
    texts, kinds, scores = _pieces(parts[1])
    spaces_end_words = _last(training, 24, False)
    if _last(training, 3, 0) != BPE or spaces_end_words or UNUSED in kinds:
        raise InputError(
            f"{path} holds another kind of SentencePiece model than plain BPE; "
            "save it as tokenizer.json with transformers"
        )
    byte_fallback = bool(_last(training, 35, False))
    problem = _problem(texts, kinds, scores, byte_fallback)
    if problem:
        raise InputError(f"{path} {problem}, unlike any SentencePiece model; save or download it again")

    normal = np.flatnonzero(np.array(kinds) == NORMAL)
    best_first = normal[np.argsort(-scores[normal], kind="stable")]
    symbols = [text for text, kind in zip(texts, kinds, strict=True) if kind == USER_DEFINED]
    model = models.BPE(
        {text: i for i, text in enumerate(texts)},
        _merges([texts[i] for i in best_first], best_first),
        unk_token=texts[kinds.index(UNKNOWN)],
        fuse_unk=True,
        byte_fallback=byte_fallback,
        # User-defined symbols have no merges, so a chunk of text that is a piece must be taken whole. As a side effect,
        # the text "<0x0A>" between two symbols becomes the byte's piece.
        ignore_merges=bool(symbols),
    )
    tokenizer = tokenizers.Tokenizer(model)
    if symbols:
        longest_first = sorted(symbols, key=len, reverse=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")
    if add_prefix_space is None:
        add_prefix_space = bool(_last(normalizing, 3, True))
    tokenizer.normalizer = _normalizer(_last(normalizing, 2, b""), bool(_last(normalizing, 4, True)), add_prefix_space)
    last = [decoders.Strip(" ", 1, 0)] if add_prefix_space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *last]
    )
    found = [text for text, kind in zip(texts, kinds, strict=True) if kind in (UNKNOWN, CONTROL)]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in found])
    return tokenizer


def _normalizer(character_map: bytes, remove_extra_spaces: bool, add_prefix_space: bool) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(character_map)] if character_map else []
    if remove_extra_spaces:
        steps += [normalizers.Replace(Regex(rf"\A +|[ {SPACE}]+\z"), ""), normalizers.Replace(Regex(" +"), " ")]
    if add_prefix_space:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _pieces(messages: list[bytes]) -> tuple[list[str], list[int], np.ndarray]:
    """The texts, the kinds and the scores (float32 [P]) of the pieces."""
    texts, kinds, scores = [], [], []
    for message in messages:
        piece = _fields(message)
        texts.append(piece[1][-1].decode())
        kinds.append(_last(piece, 3, NORMAL))
        scores.append(_last(piece, 2, bytes(4)))
    return texts, kinds, np.frombuffer(b"".join(scores), "<f4")


def _problem(texts: list[str], kinds: list[int], scores: np.ndarray, byte_fallback: bool) -> str | None:
    """What is wrong with the pieces, if anything is; SentencePiece refuses the same."""
    if kinds.count(UNKNOWN) != 1:
        return "has several unknown pieces" if UNKNOWN in kinds else "has no unknown piece"
    if not all(texts):
        return "has an empty piece"
    if len(set(texts)) < len(texts):
        return "has a piece twice"
    if byte_fallback and not {f"<0x{byte:02X}>" for byte in range(256)} <= set(texts):
        return "lacks the pieces of some bytes"
    if not np.isfinite(scores).all():
        return "has a score that is not a number"
    return None


def _merges(texts: list[str], ids: np.ndarray) -> list[tuple[str, str]]:
    """BPE merges that do what SentencePiece does: it merges any two neighbours that form a piece, the best piece first.

    `texts`: the pieces, best first. `ids`: theirs, int [P]. Of two ways to form a piece, the one whose left part has
    the lower id comes first. A part is looked up by its hash: a polynomial in `BASE` of its characters, modulo 2 ** 64,
    from sums over all pieces laid end to end. What two texts with one hash would add is left out at the end.
    """
    lengths = np.array([len(text) for text in texts], int)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    characters = np.frombuffer("".join(texts).encode("utf-32-le"), "<u4").astype(np.uint64)
    powers = np.cumprod(np.full(len(characters) + 1, BASE, np.uint64))
    inverses = np.cumprod(np.full(len(characters) + 1, pow(BASE, -1, 2**64), np.uint64))
    sums = np.append(np.uint64(0), np.cumsum((characters + np.uint64(1)) * powers[:-1], dtype=np.uint64))

    def hashes(first: np.ndarray, last: np.ndarray) -> np.ndarray:
        return (sums[last] - sums[first]) * inverses[first]

    known = hashes(starts, ends)
    by_hash = np.argsort(known)
    known = known[by_hash]

    def find(wanted: np.ndarray) -> np.ndarray:
        """The pieces that have these hashes, or -1."""
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[at] == wanted, by_hash[at], -1)

    whole = np.repeat(np.arange(len(texts)), np.maximum(lengths - 1, 0))
    inside = np.ones(len(characters), bool)
    inside[starts] = False
    cuts = np.flatnonzero(inside)
    left = find(hashes(starts[whole], cuts))
    whole, cuts, left = whole[left >= 0], cuts[left >= 0], left[left >= 0]
    right = find(hashes(cuts, ends[whole]))
    whole, left, right = whole[right >= 0], left[right >= 0], right[right >= 0]
    order = np.lexsort((ids[right], ids[left], whole))
    found = zip(left[order].tolist(), right[order].tolist(), whole[order].tolist(), strict=True)
    return [(texts[a], texts[b]) for a, b, both in found if texts[a] + texts[b] == texts[both]]


def _last(fields: dict[int, list[Any]], number: int, default: Any) -> Any:
    """The value of a field, or the last one if the protobuf message has several; `default` if it has none."""
    return fields[number][-1] if number in fields else default


def _fields(message: bytes) -> dict[int, list[Any]]:
    """A protobuf message's fields: number → values, integers or bytes. Raises ValueError for a broken message."""
    fields: dict[int, list[Any]] = {}
    at, end = 0, len(message)
    while at < end:
        key = message[at]
        at += 1
        if key > 127:
            key, at = _integer(message, at - 1)
        kind = key & 7
        value: int | bytes
        if kind in WIDTHS:
            value = message[at : at + WIDTHS[kind]]
            at += WIDTHS[kind]
        elif kind == 2 and at < end and message[at] < 128:  # the most frequent one, for speed
            size = message[at]
            value = message[at + 1 : at + 1 + size]
            at += 1 + size
        elif kind == 2:
            size, at = _integer(message, at)
            value = message[at : at + size]
            at += size
        elif kind == 0:
            value, at = _integer(message, at)
        else:
            raise ValueError("it is not a protobuf message")
        number = key >> 3
        if number in fields:
            fields[number].append(value)
        else:
            fields[number] = [value]
    if at > end:
        raise ValueError("it ends too early")
    return fields


def _integer(message: bytes, at: int) -> tuple[int, int]:
    """The integer that begins at a place of a message, and the place behind it."""
    value = shift = 0
    for place in range(at, len(message)):
        byte = message[place]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place + 1
        shift += 7
    raise ValueError("it ends too early")

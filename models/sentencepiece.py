"""Reads SentencePiece's tokenizer.model as a tokenizer of the `tokenizers` library.

transformers is not used for this: it reads the file differently for each family, and for some families loses the space
that SentencePiece puts before a text.
"""

import re
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from jaxconf.models.errors import InputError

# Numbers of the file format: a kind of model, and the kinds of pieces.
BPE = 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
SPACE = "▁"


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
    pieces = [_fields(piece) for piece in parts[1]]
    training, normalizing = _fields(parts[2][-1]), _fields(parts[3][-1])
    kinds = [_last(piece, 3, NORMAL) for piece in pieces]
    spaces_end_words = _last(training, 24, False)
    if _last(training, 3, 0) != BPE or spaces_end_words or UNUSED in kinds:
        raise InputError(
            f"{path} holds another kind of SentencePiece model than plain BPE; "
            "save it as tokenizer.json with transformers"
        )

    texts = [piece[1][-1].decode() for piece in pieces]
    scores = {
        i: struct.unpack("<f", _last(pieces[i], 2, bytes(4)))[0] for i, kind in enumerate(kinds) if kind == NORMAL
    }
    symbols = [text for text, kind in zip(texts, kinds, strict=True) if kind == USER_DEFINED]
    model = models.BPE(
        {text: i for i, text in enumerate(texts)},
        _merges({texts[i]: i for i in sorted(scores, key=scores.__getitem__, reverse=True)}),
        unk_token=texts[kinds.index(UNKNOWN)],
        fuse_unk=True,
        byte_fallback=bool(_last(training, 35, False)),
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


def _merges(ids: dict[str, int]) -> list[tuple[str, str]]:
    """BPE merges that do what SentencePiece does: it merges any two neighbours that form a piece, the best piece first.

    `ids`: the pieces, best first, with their ids.
    """
    merges = []
    for text in ids:
        splits = ((text[:i], text[i:]) for i in range(1, len(text)))
        known = [(left, right) for left, right in splits if left in ids and right in ids]
        merges += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return merges


def _last(fields: dict[int, list[Any]], number: int, default: Any) -> Any:
    """The value of a field, or the last one if the protobuf message has several; `default` if it has none."""
    return fields[number][-1] if number in fields else default


def _fields(message: bytes) -> dict[int, list[Any]]:
    """A protobuf message's fields: number → values, integers or bytes. Raises ValueError for a broken message."""
    fields: dict[int, list[Any]] = defaultdict(list)
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        if at > len(message):
            raise ValueError("it ends too early")
        return message[at - size : at]

    def integer() -> int:
        value = shift = 0
        while True:
            [byte] = take(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = integer()
        match key & 7:
            case 0:
                value: int | bytes = integer()
            case 1:
                value = take(8)
            case 2:
                value = take(integer())
            case 5:
                value = take(4)
            case _:
                raise ValueError("it is not a protobuf message")
        fields[key >> 3].append(value)
    return fields

"""The tokenizer that lies beside a model: text to ids and back, and which ids begin and end a document."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

from jaxconf.models.errors import InputError, first_line
from jaxconf.models.tokenizer_files import read_tokenizer
from jaxconf.models.tokenizer_names import check_special, named_ids, read_json, special_tokens


class Tokenizer:
    """A `tokenizers.Tokenizer` that adds no special tokens, does not truncate and does not pad.

    Attributes:
        bos_id: the id that begins a text, or None.
        eos_ids: the ids that end a text, possibly none.
        eos_id: the first of `eos_ids`, which is put after each document, or None.
        newline_id: the id of "\\n" if that is exactly one token, or None.
        unknown_id: the id that stands for what the vocabulary lacks, or None.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, bos_id: int | None, eos_ids: Sequence[int]) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.bos_id = bos_id
        self.eos_ids = tuple(eos_ids)
        self.eos_id = self.eos_ids[0] if self.eos_ids else None
        newline = self.encode("\n")
        self.newline_id = newline[0] if len(newline) == 1 else None
        unknown = getattr(tokenizer.model, "unk_token", None)
        self.unknown_id = None if unknown is None else tokenizer.token_to_id(unknown)

    @classmethod
    def from_folder(cls, folder: str | Path, vocab_size: int | None = None) -> "Tokenizer":
        """From tokenizer.json, from tokenizer.model (SentencePiece), or from vocab.json and merges.txt (GPT-2).

        Token ids are those of transformers 5, apart from what `jaxconf.models.tokenizer_classes` and
        `jaxconf.models.sentencepiece` say. BOS and EOS are named by special_tokens_map.json, else by
        tokenizer_config.json, else by config.json. `vocab_size`: the size of the model's vocabulary, if the tokenizer
        is for a model. Raises InputError if there is no tokenizer, if one of these files is broken or of a kind that is
        not converted, or if BOS or EOS is outside the model's vocabulary.
        """
        folder = Path(folder)
        tokenizer = read_tokenizer(folder)
        special = {}
        for kind in ("bos", "eos"):
            ids, path = _special_ids(kind, tokenizer, folder)
            if vocab_size is not None:
                check_special(ids, kind, path, vocab_size)
            special[kind] = ids
        return cls(tokenizer, special["bos"][0] if special["bos"] else None, special["eos"])

    @functools.cached_property
    def vocab_size(self) -> int:
        """The highest id that has a token, plus one; a model's vocabulary may be larger, for padding."""
        return max(self.vocabulary.values(), default=-1) + 1

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token by its name, special ones included, and its id."""
        return self._tokenizer.get_vocab()

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without special tokens, so that `[tokenizer.bos_id, *ids]` is what a model reads."""
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, int32 [T] each, without special tokens; uses all cores.

        Raises InputError for text that the tokenizer has no tokens for.
        """
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # the library raises nothing narrower
            raise InputError(
                f"the tokenizer cannot encode the text ({first_line(error)}); give text that it was made for"
            ) from error
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids` ([T] integers), special tokens included."""
        return self._tokenizer.decode(np.asarray(ids, np.int64).tolist(), skip_special_tokens=False)

    @property
    def splits_special_tokens(self) -> bool:
        """Whether special tokens that stand in a text are split like any other text."""
        return self._tokenizer.encode_special_tokens

    def to_json(self) -> str:
        """The content of a tokenizer.json that holds this tokenizer."""
        return self._tokenizer.to_str()

    def token(self, token_id: int) -> str:
        """The text of one token, with its leading space, for a reader.

        A token that is only part of a character is given by its name in the vocabulary, an unused id as `<id>`.
        """
        name = self._tokenizer.id_to_token(int(token_id))
        if name is None:
            return f"<{token_id}>"
        # Some decoders drop the space that begins a text, so the token is decoded after a copy of itself.
        text = self.decode([token_id, token_id]).removeprefix(self.decode([token_id]))
        return name if "\ufffd" in text else text


def _special_ids(kind: str, tokenizer: tokenizers.Tokenizer, folder: Path) -> tuple[tuple[int, ...], Path]:
    """The "bos" or "eos" ids, and the file that names them. A null there means none, as for Qwen's BOS."""
    named = special_tokens(folder).get(f"{kind}_token")
    if named is None:
        path = folder / "config.json"
        return named_ids(read_json(path), f"{kind}_token_id", path), path
    token_id = None if named.text is None else tokenizer.token_to_id(named.text)
    return () if token_id is None else (token_id,), named.path

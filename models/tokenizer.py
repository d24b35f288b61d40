"""The tokenizer that lies beside a model: text to ids and back, and which ids begin and end a document."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

from jaxconf.models.errors import InputError, first_line
from jaxconf.models.tokenizer_files import NAMES, content, read_json, read_tokenizer


class Tokenizer:
    """A `tokenizers.Tokenizer` that adds no special tokens, does not truncate and does not pad.

    Attributes:
        bos_id: the id that begins a text, or None.
        eos_ids: the ids that end a text, possibly none.
        eos_id: the first of `eos_ids`, which is put after each document, or None.
        newline_id: the id of "\\n" if that is exactly one token, or None.
        unknown_id: the id that stands for what the vocabulary lacks, or None.
        vocab_size: the highest id that has a token, plus one; a model's vocabulary may be larger, for padding.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, bos_id: int | None, eos_ids: Sequence[int]) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.bos_id = bos_id
        self.eos_ids = tuple(eos_ids)
        self.eos_id = self.eos_ids[0] if self.eos_ids else None
        self.vocab_size: int = max(tokenizer.get_vocab().values(), default=-1) + 1
        newline = self.encode("\n")
        self.newline_id = int(newline[0]) if len(newline) == 1 else None
        unknown = getattr(tokenizer.model, "unk_token", None)
        self.unknown_id = None if unknown is None else tokenizer.token_to_id(unknown)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Tokenizer":
        """From tokenizer.json, from tokenizer.model (SentencePiece), or from vocab.json and merges.txt (GPT-2).

        BOS and EOS are named by tokenizer_config.json, else by special_tokens_map.json, else by config.json. Raises
        InputError if there is no tokenizer, or if one of these files is broken or of a kind that is not converted.
        """
        folder = Path(folder)
        tokenizer = read_tokenizer(folder)
        bos_ids = _special_ids("bos", tokenizer, folder)
        return cls(tokenizer, bos_ids[0] if bos_ids else None, _special_ids("eos", tokenizer, folder))

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token by its name, special ones included, and its id."""
        return self._tokenizer.get_vocab()

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text`, int32 [T], without special tokens."""
        return self.encode_batch([text])[0]

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

    def to_json(self) -> str:
        """The content of a tokenizer.json that holds this tokenizer."""
        return self._tokenizer.to_str(pretty=True)

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


def _special_ids(kind: str, tokenizer: tokenizers.Tokenizer, folder: Path) -> tuple[int, ...]:
    """The "bos" or "eos" ids, from the first file that has the key. A null there means none, as for Qwen's BOS."""
    for path in (folder / name for name in NAMES):
        named = read_json(path)
        if f"{kind}_token" in named:
            text = content(named[f"{kind}_token"])
            if text is None:
                return ()
            token_id = tokenizer.token_to_id(text) if isinstance(text, str) else None
            if token_id is None:
                raise InputError(
                    f"{path} has the {kind}_token {text!r}, which the tokenizer lacks; save or download both again"
                )
            return (token_id,)

    path = folder / "config.json"
    value = read_json(path).get(f"{kind}_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(i, int) for i in ids):
        raise InputError(f"{path} has the {kind}_token_id {value!r}; make it an integer, a list of integers or null")
    return tuple(ids)

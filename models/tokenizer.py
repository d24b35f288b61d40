"""The tokenizer that lies beside a model: text to ids and back, and which ids begin and end a document."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from jaxconf.models.errors import InputError


class Tokenizer:
    """A `tokenizers.Tokenizer` that adds, cuts and pads nothing of its own accord.

    Attributes:
        bos_id: the id that begins a text, or None.
        eos_ids: the ids that end a text, possibly none.
        eos_id: the first of `eos_ids`, which joins documents, or None.
        newline_id: the id of "\\n" if that is exactly one token, or None.
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

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Tokenizer":
        """Reads tokenizer.json; tokenizer_config.json names BOS and EOS, and config.json where that one is silent.

        Raises InputError if there is no tokenizer.json, or if one of the three files is broken.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(
                f"There is no tokenizer.json in {folder}: pass token ids, "
                f'or save the model\'s tokenizer with transformers, as in tokenizer.save_pretrained("{folder}").'
            )
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{path} is not a tokenizer that can be read ({error}); save or download it again.") from error
        bos_ids = _special_ids("bos", tokenizer, folder)
        return cls(tokenizer, bos_ids[0] if bos_ids else None, _special_ids("eos", tokenizer, folder))

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text`, int32 [T], without special tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, int32 [T] each, without special tokens; uses all cores."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids` ([T] integers), special tokens included."""
        return self._tokenizer.decode(np.asarray(ids, np.int64).tolist(), skip_special_tokens=False)

    def token(self, token_id: int) -> str:
        """One token as a reader would show it: with its leading space; part of a character by its name; `<id>` if unused."""
        name = self._tokenizer.id_to_token(int(token_id))
        if name is None:
            return f"<{token_id}>"
        # Some decoders drop the space that begins a text, so the token is read off behind a copy of itself.
        text = self.decode([token_id, token_id]).removeprefix(self.decode([token_id]))
        return name if "\ufffd" in text else text


def _special_ids(kind: str, tokenizer: tokenizers.Tokenizer, folder: Path) -> tuple[int, ...]:
    """The "bos" or "eos" ids. A null in tokenizer_config.json is an answer (Qwen has no BOS), a missing key is not."""
    path = folder / "tokenizer_config.json"
    named = _read_json(path)
    if f"{kind}_token" in named:
        token = named[f"{kind}_token"]
        content = token.get("content") if isinstance(token, dict) else token
        if content is None:
            return ()
        token_id = tokenizer.token_to_id(content) if isinstance(content, str) else None
        if token_id is None:
            raise InputError(f"{path} has the {kind}_token {content!r}, which tokenizer.json lacks; save or download both again.")
        return (token_id,)

    path = folder / "config.json"
    value = _read_json(path).get(f"{kind}_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(i, int) for i in ids):
        raise InputError(f"{path} has the {kind}_token_id {value!r}; make it an integer, a list of integers or null.")
    return tuple(ids)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not JSON that can be read ({error}); save or download it again.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object; save or download it again.")
    return value

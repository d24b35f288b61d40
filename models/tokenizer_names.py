"""The small JSON files of a tokenizer, which name its special and added tokens."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from jaxconf.models.errors import InputError

NAMES = ("tokenizer_config.json", "special_tokens_map.json")  # they name special tokens
# Special tokens that the vocabulary lacks get ids in this order.
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Token = str | dict[str, Any]
"""A token as a file gives it: its text, or that text under "content" with the token's properties."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file. Raises InputError if it holds anything else."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON that can be read ({error}); save or download it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object; save or download it again")
    return value


@dataclass(frozen=True)
class Named:
    """A token, and the file that names it. The token is None where the file says that there is none."""

    token: Token | None
    path: Path

    @property
    def text(self) -> str | None:
        return None if self.token is None else _text(self.token)


def special_tokens(folder: Path) -> dict[str, Named]:
    """The special tokens by their kinds ("bos_token"), in the order in which transformers gives ids to new ones.

    special_tokens_map.json has precedence over tokenizer_config.json, but is passed over if that has
    added_tokens_decoder, as in transformers 4 and 5. Raises InputError for a token that is not as transformers saves
    it.
    """
    found: dict[str, Named] = {}
    for path in _files(folder):
        for kind, value in read_json(path).items():
            if kind in SPECIAL or (kind.endswith("_token") and isinstance(value, str | dict)):
                found[kind] = Named(_token(value, kind, path), path)
    return {
        kind: found[kind] for kind in [*(k for k in SPECIAL if k in found), *(k for k in found if k not in SPECIAL)]
    }


def more_special_tokens(folder: Path) -> list[Named]:
    """The special tokens that have no kind: extra_special_tokens, or by its older name additional_special_tokens.

    Raises InputError for a token that is not as transformers saves it.
    """
    found: list[tuple[str, Any, Path]] = []
    for path in _files(folder):
        content = read_json(path)
        for kind in (EXTRA, ADDITIONAL):
            # In transformers a list under either name stands for any under the older one.
            if content.get(kind) and not (kind == ADDITIONAL and any(isinstance(each, list) for _, each, _ in found)):
                found.append((kind, content[kind], path))
    return [named for kind, tokens, path in found for named in _listed(tokens, kind, path)]


EXTRA, ADDITIONAL = "extra_special_tokens", "additional_special_tokens"


def add_tokens(
    tokenizer: tokenizers.Tokenizer, folder: Path, defaults: Mapping[str, str], normalized: bool | None = None
) -> None:
    """Add the tokens that the small files name, with the ids that transformers gives them.

    `defaults`: the special tokens where no file names them, by their kinds. `normalized`: whether tokens are looked for
    in the normalized text; None: as the files say. Raises InputError if a file gives a token an id that it cannot have.
    """
    kinds = special_tokens(folder)
    named = [*kinds.values(), *more_special_tokens(folder)]
    special: list[Token] = [text for kind, text in defaults.items() if kind not in kinds]
    special += [each.token for each in named if each.token is not None]
    texts = {_text(token) for token in special}
    path, numbered = _numbered(folder)
    added = {i: _added_token(token, _text(token) in texts, normalized) for i, token in numbered.items()}
    tokenizer.add_tokens(list(added.values()))
    for i, token in added.items():
        if tokenizer.token_to_id(token.content) != i:
            raise InputError(
                f"{path} gives the added token {token.content!r} the id {i}, for which the vocabulary beside it has no "
                "place; save the tokenizer again with the version of transformers that added the token"
            )
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_tokens([_added_token(token, True, normalized) for token in special if _text(token) not in known])


def named_ids(config: Mapping[str, Any], name: str, path: Path) -> tuple[int, ...]:
    """The token ids that config.json has under a name: an integer, a list of integers, or null, which is none.

    `config`: the content of the file `path`. Raises InputError for anything else.
    """
    value = config.get(name)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise InputError(f"{path} has the {name} {value!r}; make it an integer, a list of integers or null")
    return tuple(ids)


def check_special(ids: Iterable[int], kind: str, path: Path, vocab_size: int) -> None:
    """Raises InputError if a BOS or EOS id (`kind`: "bos" or "eos") that a file names is not below `vocab_size`."""
    beyond = [i for i in ids if i >= vocab_size]
    if beyond:
        raise InputError(
            f"the {kind.upper()} token that {path} names has the id {beyond[0]}, outside the model's vocabulary of "
            f"{vocab_size:,} tokens; name a token there that the model has, or null"
        )


def _files(folder: Path) -> list[Path]:
    """The files that name special tokens; the later one has precedence."""
    paths = [folder / name for name in NAMES]
    return paths[:1] if "added_tokens_decoder" in read_json(paths[0]) else paths


def _numbered(folder: Path) -> tuple[Path, dict[int, Token]]:
    """The added tokens that have ids, in the order of the ids, and the file that they are from."""
    path = folder / NAMES[0]
    decoder = read_json(path).get("added_tokens_decoder")
    if decoder is None:
        path = folder / "added_tokens.json"
        decoder = {str(i): token for token, i in read_json(path).items()}
    problem = f"the added tokens of {path} are not as transformers saves them; save or download it again"
    if not isinstance(decoder, dict) or not all(re.fullmatch("[0-9]{1,9}", i) for i in decoder):
        raise InputError(problem)
    found = {int(i): _token(token, "added token", path) for i, token in decoder.items()}
    numbered = {i: token for i, token in sorted(found.items()) if token}
    if len(numbered) < len(decoder):
        raise InputError(problem)
    return path, numbered


def _listed(value: Any, kind: str, path: Path) -> list[Named]:
    values = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(values, list):
        raise InputError(f"{path} has the {kind} {value!r}; make it a list of tokens")
    return [Named(_token(each, kind, path), path) for each in values]


def _token(value: Any, kind: str, path: Path) -> Token | None:
    """A token as a file gives it; None where it says null or gives an empty text, of which both mean none."""
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str | None):
        raise InputError(f"{path} has the {kind} {value!r}; make it a string or null")
    properties = value if isinstance(value, dict) else {}
    wrong = [name for name in PROPERTIES if not isinstance(properties.get(name, False), bool)]
    if wrong:
        raise InputError(
            f"{path} has the {kind} {text!r} with the {wrong[0]} {properties[wrong[0]]!r}; make it true or false"
        )
    return value if text else None


PROPERTIES = ("lstrip", "normalized", "rstrip", "single_word", "special")


def _text(token: Token) -> str:
    return token["content"] if isinstance(token, dict) else token


def _added_token(token: Token, special: bool, normalized: bool | None) -> AddedToken:
    """`special`: whether it is one even if its properties do not say so."""
    properties = {k: token[k] for k in PROPERTIES if k in token} if isinstance(token, dict) else {}
    properties["special"] = special or properties.get("special", False)
    if normalized is not None:
        properties["normalized"] = normalized
    return AddedToken(_text(token), **properties)

"""Reads the tokenizer files of a model folder, of each kind, as a tokenizer of the `tokenizers` library."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from jaxconf.models.errors import InputError
from jaxconf.models.sentencepiece import read_sentencepiece

NAMES = ("tokenizer_config.json", "special_tokens_map.json")  # they name special tokens; the first one has precedence
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json", *NAMES)

# The tokenizers that split text as GPT-2's does, by their class or, where a folder names none, by the model_type.
LIKE_GPT2 = (
    "GPT2Tokenizer GPT2TokenizerFast CodeGenTokenizer CodeGenTokenizerFast gpt2 gpt_neo gptj opt phi starcoder2".split()
)
GPT2_TOKENS = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
# Special tokens that the vocabulary lacks get ids in this order.
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has a tokenizer file; the file may still be broken."""
    return any((folder / name).is_file() for name in READERS)


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder: tokenizer.json, else tokenizer.model converted, else vocab.json and merges.txt.

    Raises InputError if there is none of them, or if one is broken or of a kind that is not converted.
    """
    for name, read in READERS.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            return read(path)
        except InputError:
            raise
        except Exception as error:  # the library raises nothing narrower
            raise InputError(
                f"{path} is not a tokenizer that can be read ({error}); save or download it again"
            ) from error
    raise InputError(
        f"no tokenizer in {folder} (it lacks tokenizer.json, tokenizer.model and merges.txt); pass token ids from "
        f'Python, or save the model\'s tokenizer with transformers, as in tokenizer.save_pretrained("{folder}")'
    )


def content(token: Any) -> Any:
    """The text of a special token, which a file gives as a string, or as a dict with its properties, or as null."""
    return token.get("content") if isinstance(token, dict) else token


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file. Raises InputError if it holds anything else."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not JSON that can be read ({error}); save or download it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object; save or download it again")
    return value


def _read_json_tokenizer(path: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(path))


def _read_model(path: Path) -> tokenizers.Tokenizer:
    tokenizer = read_sentencepiece(path, read_json(path.with_name("tokenizer_config.json")).get("add_prefix_space"))
    _add_tokens(tokenizer, path.parent, {})
    return tokenizer


def _read_merges(path: Path) -> tokenizers.Tokenizer:
    folder = path.parent
    named, config = read_json(folder / "tokenizer_config.json"), read_json(folder / "config.json")
    kind = named.get("tokenizer_class") or config.get("tokenizer_class") or config.get("model_type", "gpt2")
    if kind not in LIKE_GPT2:
        raise InputError(
            f"{path} belongs to {kind}, which may split text in another way than GPT-2; "
            "save a tokenizer.json with transformers"
        )
    tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(path.with_name("vocab.json")), str(path)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=named.get("add_prefix_space") or False)
    tokenizer.decoder = decoders.ByteLevel()
    _add_tokens(tokenizer, folder, GPT2_TOKENS)
    return tokenizer


READERS = {"tokenizer.json": _read_json_tokenizer, "tokenizer.model": _read_model, "merges.txt": _read_merges}


def _add_tokens(tokenizer: tokenizers.Tokenizer, folder: Path, defaults: Mapping[str, str]) -> None:
    """Add the tokens that are not in the vocabulary's own file, with the ids that transformers gives them.

    `defaults`: the special tokens where no file names them, by their kinds ("bos_token").
    """
    config, special_tokens_map = (read_json(folder / name) for name in NAMES)
    names = {**defaults, **special_tokens_map, **config}
    more = names.get("extra_special_tokens") or names.get("additional_special_tokens") or []
    named = [*map(names.get, SPECIAL), *(more.values() if isinstance(more, dict) else more)]
    special = [token for token in named if content(token)]
    added = config.get("added_tokens_decoder")
    if added is None:
        added = {i: token for token, i in read_json(folder / "added_tokens.json").items()}
    try:
        by_id = {int(i): _added_token(added[i], special) for i in sorted(added, key=int)}
        placed = {token.content for token in by_id.values()}
        others = [_added_token(token, special) for token in special if content(token) not in placed]
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"the added tokens of {folder} are not as transformers saves them ({error}); save or download them again"
        ) from error
    tokenizer.add_tokens(list(by_id.values()))
    for i, token in by_id.items():
        if tokenizer.token_to_id(token.content) != i:
            raise InputError(
                f"{folder} gives the added token {token.content!r} the id {i}, for which its vocabulary has no place; "
                "save a tokenizer.json with transformers"
            )
    tokenizer.add_tokens(others)


def _added_token(token: str | dict[str, Any], special: list[str | dict[str, Any]]) -> AddedToken:
    properties = token if isinstance(token, dict) else {}
    flags = {name: properties[name] for name in ("lstrip", "rstrip", "single_word") if name in properties}
    is_special = properties.get("special", False) or content(token) in map(content, special)
    return AddedToken(content(token), normalized=False, special=is_special, **flags)

"""Reads the tokenizer files of a model folder, of each kind, as a tokenizer of the `tokenizers` library."""

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from jaxconf.models.errors import InputError, first_line
from jaxconf.models.sentencepiece import read_sentencepiece
from jaxconf.models.tokenizer_classes import flag, follow_class
from jaxconf.models.tokenizer_names import NAMES, add_tokens, read_json

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json", *NAMES)

# The tokenizers that split text as GPT-2's does, by their class or, where a folder names none, by the model_type.
LIKE_GPT2 = (
    "GPT2Tokenizer GPT2TokenizerFast CodeGenTokenizer CodeGenTokenizerFast gpt2 gpt_neo gptj opt phi starcoder2".split()
)
GPT2_TOKENS = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")


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
            tokenizer = read(path)
        except InputError:
            raise
        except Exception as error:  # the library raises nothing narrower
            raise InputError(
                f"{path} is not a tokenizer that can be read ({first_line(error)}); save or download it again"
            ) from error
        tokenizer.encode_special_tokens = bool(flag(folder, "split_special_tokens"))
        return tokenizer
    raise InputError(
        f"no tokenizer in {folder} (it lacks tokenizer.json, tokenizer.model and merges.txt); pass token ids from "
        f'Python, or save the model\'s tokenizer with transformers, as in tokenizer.save_pretrained("{folder}")'
    )


def _read_json_tokenizer(path: Path) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    _check_content(tokenizer, path)
    follow_class(tokenizer, path)
    add_tokens(tokenizer, path.parent, {})
    return tokenizer


def _check_content(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
    """Raises InputError for what the library takes without a word: ids that contradict each other, and chance."""
    content = json.loads(path.read_text("utf-8"))
    vocabulary = content["model"].get("vocab")
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    problem = None
    if len(set(ids)) < len(ids):
        problem = "gives several tokens the same id"
    for token in content.get("added_tokens") or []:
        if tokenizer.token_to_id(token["content"]) != token["id"]:
            problem = f"gives the added token {token['content']!r} an id that is another token's or leaves a gap"
    if problem:
        raise InputError(f"{path} {problem}; save or download it again")
    if getattr(tokenizer.model, "dropout", None):
        raise InputError(f"{path} has a dropout, which splits the same text differently each time; make it null")


def _read_model(path: Path) -> tokenizers.Tokenizer:
    tokenizer = read_sentencepiece(path, flag(path.parent, "add_prefix_space"))
    add_tokens(tokenizer, path.parent, {}, normalized=False)
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
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(flag(folder, "add_prefix_space")))
    tokenizer.decoder = decoders.ByteLevel()
    add_tokens(tokenizer, folder, GPT2_TOKENS)
    return tokenizer


READERS = {"tokenizer.json": _read_json_tokenizer, "tokenizer.model": _read_model, "merges.txt": _read_merges}

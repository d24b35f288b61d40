"""Tokenizer files and config.json spoilt at random: refused in one sentence, or read with the ids that they had."""

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import pytest
import tokenizers
from refusals import check_sentence
from test_tokenizer_files import save_gpt2, save_model
from tokenizers import pre_tokenizers

from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import load, read_config
from jaxconf.models.tokenizer import Tokenizer

TEXTS = ["the thing <a> 12 é\n", "", "  ▁th<b>"]
VALUES: list[Any] = [None, True, -1, 2**40, 1.5, "", "x", [], ["x", 3], {}, {"content": 3}, [[]], "\ud800"]


def json_tokenizer(folder: Path) -> Path:
    save_gpt2(folder)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(f"{folder}/vocab.json", f"{folder}/merges.txt"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<a>"])
    tokenizer.save(f"{folder}/tokenizer.json")
    return folder


def spoil_json(path: Path, draw: random.Random) -> None:
    """Replace, remove or repeat a value somewhere in a JSON file, or cut the file, or change one of its bytes."""
    if draw.random() < 0.25:
        spoil_bytes(path, draw)
        return
    content = json.loads(path.read_text("utf-8"))
    at = content
    while True:
        key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if not (isinstance(at[key], dict | list) and at[key]) or draw.random() < 0.2:
            break
        at = at[key]
    match draw.randrange(4):
        case 0:
            del at[key]
        case 1 if isinstance(at, dict):
            at[str(draw.choice(["more", "x_token", "add_prefix_space"]))] = copy.deepcopy(at[key])
        case _:
            at[key] = draw.choice(VALUES)
    path.write_text(json.dumps(content), "utf-8")


def spoil_bytes(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    if draw.random() < 0.3:
        content = content[:place]
    else:
        content[place] = draw.randrange(256)
    path.write_bytes(content)


NAMES = {
    "bos_token": "<a>",
    "eos_token": {"content": "<b>", "lstrip": False, "normalized": False, "special": True},
    "tokenizer_class": "GPT2Tokenizer",
    "add_prefix_space": False,
    "additional_special_tokens": ["<c>", {"content": "<d>"}],
    "added_tokens_decoder": {"260": {"content": "<a>", "special": True}, "261": {"content": "<b>", "special": True}},
}
SPOILT: dict[str, tuple[Callable[[Path], Path], Callable[[Path, random.Random], None]]] = {
    "tokenizer.json": (json_tokenizer, spoil_json),
    "tokenizer_config.json": (json_tokenizer, spoil_json),
    "tokenizer.model": (save_model, spoil_bytes),
}


@pytest.mark.parametrize("file", SPOILT)
@pytest.mark.parametrize("seed", range(20))
def test_a_spoilt_tokenizer_is_refused_in_a_sentence_or_read(file: str, seed: int, tmp_path: Path) -> None:
    make, spoil = SPOILT[file]
    folder = make(tmp_path)
    if file != "tokenizer.model":
        (folder / "tokenizer_config.json").write_text(json.dumps(NAMES))
    intact = Tokenizer.from_folder(folder)
    spoil(folder / file, random.Random(seed))
    try:
        tokenizer = Tokenizer.from_folder(folder)
        found = [tokenizer.encode(text) for text in TEXTS]
        names = [tokenizer.token(i) for ids in found for i in ids]
    except InputError as error:
        check_sentence(str(error))
        return
    assert len(names) == sum(map(len, found))
    if file == "tokenizer_config.json":  # no token of tokenizer.json loses its id
        assert dict(sorted(tokenizer.vocabulary.items(), key=lambda pair: pair[1])[:261]).keys() == {
            text for text, i in intact.vocabulary.items() if i < 261
        }


@pytest.mark.parametrize("seed", range(20))
def test_a_spoilt_config_is_refused_in_a_sentence_or_read(
    seed: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = tmp_path_factory.getbasetemp() / "of_config"
    if not whole.exists():
        cases.build("gpt2", whole)
    shutil.copyfile(whole / "config.json", tmp_path / "config.json")
    spoil_json(tmp_path / "config.json", random.Random(seed))
    (tmp_path / "model.safetensors").symlink_to(whole / "model.safetensors")
    try:
        config_from_hf(read_config(tmp_path))
        lm = load(tmp_path)
        assert lm.bos_id is None or 0 <= lm.bos_id < lm.config.vocab_size
        assert all(i >= 0 for i in lm.end_ids)
    except InputError as error:
        check_sentence(str(error))

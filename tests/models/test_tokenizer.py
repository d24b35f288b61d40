"""The tokenizer: special ids from every file that may name them, nothing added to a text, readable tokens, clear
errors.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from jaxconf.models.errors import InputError
from jaxconf.models.tokenizer import Tokenizer

SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared material is not here")

CHARACTERS = sorted(pre_tokenizers.ByteLevel.alphabet())  # 256, ids 0 to 255
MERGES = [("t", "h"), ("Ġ", "th"), ("Ċ", "Ċ")]  # ids 256 to 258
BOS, EOS, END = 259, 260, 261


def byte_level() -> tokenizers.Tokenizer:
    """A small GPT-2-like tokenizer that would add BOS, cut and pad if it were let."""
    vocab = {token: i for i, token in enumerate(CHARACTERS + ["".join(merge) for merge in MERGES])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<bos>", "<eos>", "<end>"])
    around = [("<bos>", BOS), ("<eos>", EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=around)
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=8)
    return tokenizer


def save(folder: Path, tokenizer_config: object = None, config: object = None) -> Path:
    byte_level().save(str(folder / "tokenizer.json"))
    for name, value in (("tokenizer_config.json", tokenizer_config), ("config.json", config)):
        if value is not None:
            (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


@pytest.mark.parametrize(
    ("tokenizer_config", "config", "bos", "eos"),
    [
        (None, None, None, ()),
        ({"bos_token": "<bos>", "eos_token": {"content": "<eos>", "special": True}}, None, BOS, (EOS,)),
        ({"model_max_length": 8}, {"bos_token_id": BOS, "eos_token_id": EOS}, BOS, (EOS,)),
        (None, {"bos_token_id": None, "eos_token_id": [END, EOS]}, None, (END, EOS)),
        (None, {"bos_token_id": 999}, 999, ()),
        ({"eos_token": "<end>"}, {"bos_token_id": BOS, "eos_token_id": [EOS, BOS]}, BOS, (END,)),
        ({"bos_token": None, "eos_token": {"content": None}}, {"bos_token_id": BOS, "eos_token_id": EOS}, None, ()),
        ({"bos_token": "", "eos_token": {"content": ""}}, {"bos_token_id": BOS, "eos_token_id": EOS}, None, ()),
        ({"bos_token": "<new>"}, {"bos_token_id": BOS, "eos_token_id": EOS}, 262, (EOS,)),
    ],
)
def test_special_ids(
    tmp_path: Path, tokenizer_config: object, config: object, bos: int | None, eos: tuple[int, ...]
) -> None:
    tokenizer = Tokenizer.from_folder(save(tmp_path, tokenizer_config, config))
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.eos_id) == (bos, eos, eos[0] if eos else None)


def test_folder_may_be_a_string(tmp_path: Path) -> None:
    assert Tokenizer.from_folder(str(save(tmp_path))).vocab_size == 262


def test_encode_neither_adds_nor_cuts_nor_pads() -> None:
    tokenizer = Tokenizer(byte_level(), BOS, [EOS])
    ids = tokenizer.encode("the thing that thinks")
    assert len(ids) > 8
    assert not {BOS, EOS} & set(ids)
    assert ids[:3] == [256, CHARACTERS.index("e"), 257]
    assert tokenizer.encode("e") == [CHARACTERS.index("e")]
    assert tokenizer.encode("") == []
    assert all(type(i) is int for i in ids)
    assert [BOS] + tokenizer.encode("e") == [BOS, CHARACTERS.index("e")]  # noqa: RUF005


@given(st.lists(st.text()))
def test_batches_equal_single_texts_and_decode_back(texts: list[str]) -> None:
    tokenizer = Tokenizer(byte_level(), BOS, [EOS])
    batch = tokenizer.encode_batch(texts)
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in texts]
    assert [tokenizer.decode(ids) for ids in batch] == texts


def test_decode_shows_special_tokens() -> None:
    assert Tokenizer(byte_level(), BOS, [EOS]).decode(np.array([BOS, 256, EOS])) == "<bos>th<eos>"


def test_newline_id() -> None:
    assert Tokenizer(byte_level(), None, []).newline_id == CHARACTERS.index("Ċ")
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token=None))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    assert Tokenizer(words, None, []).newline_id is None


def test_token_is_readable() -> None:
    tokenizer = Tokenizer(byte_level(), BOS, [EOS])
    tokens = {257: " th", 258: "\n\n", CHARACTERS.index("Ġ"): " ", BOS: "<bos>", 300: "<300>"}
    assert {i: tokenizer.token(i) for i in tokens} == tokens
    first_byte_of_two = tokenizer.encode("é")[0]
    assert tokenizer.token(first_byte_of_two) == "Ã"
    assert tokenizer.token(np.int32(256)) == "th"  # type: ignore[arg-type]


def test_vocab_size_counts_from_the_highest_id() -> None:
    gap = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    assert Tokenizer(gap, None, []).vocab_size == 8


def check_error(folder: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        Tokenizer.from_folder(folder)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert not message.endswith(".")


def test_missing_tokenizer(tmp_path: Path) -> None:
    check_error(
        tmp_path,
        f"no tokenizer in {tmp_path}",
        "tokenizer.json",
        "tokenizer.model",
        "merges.txt",
        "pass token ids",
        f'save_pretrained("{tmp_path}")',
    )
    check_error(tmp_path / "nowhere", "no tokenizer")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}', "\ufffd"])
def test_broken_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    check_error(tmp_path, "tokenizer.json", "not a tokenizer")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda content: content["model"]["vocab"].update(th=3), "several tokens the same id"),
        (lambda content: content["added_tokens"][0].update(id=300), "'<bos>'"),
        (lambda content: content["model"].update(dropout=0.1), "dropout"),
    ],
)
def test_what_the_library_takes_without_a_word(tmp_path: Path, spoil: Callable[[dict], object], says: str) -> None:
    path = save(tmp_path) / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    spoil(content)
    path.write_text(json.dumps(content), "utf-8")
    check_error(tmp_path, "tokenizer.json", says)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize(
    ("content", "says"), [(b"{", "not JSON"), (b"[]", "JSON object"), (b'{"a": "\xff"}', "not JSON")]
)
def test_broken_configs(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    save(tmp_path)
    (tmp_path / name).write_bytes(content)
    check_error(tmp_path, name, says)


def test_special_tokens_that_are_none(tmp_path: Path) -> None:
    for token in (["<s>"], {"content": 3}, {"content": "<s>", "lstrip": "no"}):
        check_error(save(tmp_path, {"bos_token": token}), "tokenizer_config.json", "bos_token")
    check_error(save(tmp_path, {"eos_token": 3}), "tokenizer_config.json", "eos_token 3")
    check_error(save(tmp_path, {}, {"eos_token_id": "2"}), "config.json", "eos_token_id '2'", "integer")
    for value in ([1, None], True, -1, 1.0, {}):
        check_error(save(tmp_path, {}, {"bos_token_id": value}), "config.json", "bos_token_id")


@pytest.mark.parametrize("files", [({"eos_token": "<end>"}, {}), ({}, {"eos_token_id": [3, END]})])
def test_special_tokens_beyond_the_models_vocabulary(tmp_path: Path, files: tuple[object, object]) -> None:
    folder = save(tmp_path, *files)
    with pytest.raises(InputError, match=rf"EOS token that .*config.json names has the id {END}, .* {END} tokens"):
        Tokenizer.from_folder(folder, END)
    assert Tokenizer.from_folder(folder, END + 1).eos_ids[-1] == END


@needs_shared
def test_gpt2() -> None:
    tokenizer = Tokenizer.from_folder(SHARED / "tokenizers" / "gpt2")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.newline_id, tokenizer.vocab_size) == (None, None, 198, 50257)
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert (tokenizer.token(995), tokenizer.token(198), tokenizer.token(50256)) == (" world", "\n", "<|endoftext|>")


@needs_shared
def test_pythia() -> None:
    tokenizer = Tokenizer.from_folder(SHARED / "tokenizers" / "pythia")
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.newline_id, tokenizer.vocab_size) == (0, (0,), 187, 50278)
    assert tokenizer.token(50254) == " " * 24
    assert tokenizer.token(50300) == "<50300>"


@needs_shared
def test_llama() -> None:
    tokenizer = Tokenizer.from_folder(SHARED / "models" / "stories260K")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.newline_id, tokenizer.vocab_size) == (1, 2, None, 512)
    text = "One day, a girl found 3 naïve 🐈.\n"
    ids = tokenizer.encode(text)
    assert 1 not in ids
    assert tokenizer.decode(ids) == text
    # Each token keeps its space, which the decoder drops at the start of a text; the tokens add up to the prefixed
    # text.
    assert tokenizer.token(tokenizer.encode("the")[0]) == " the"
    names = [tokenizer.token(i) for i in tokenizer.encode("One day, a girl.\n")]
    assert "".join(names) == " One day, a girl.\n"
    assert tokenizer.token(tokenizer.encode("🐈")[-1]).startswith("<0x")


@needs_shared
@pytest.mark.parametrize("name", ["tokenizers/gpt2", "tokenizers/pythia", "models/stories260K"])
def test_every_token_has_a_name(name: str) -> None:
    tokenizer = Tokenizer.from_folder(SHARED / name)
    assert all(tokenizer.token(i) for i in range(0, tokenizer.vocab_size, 7))

"""Tokenizers without tokenizer.json: GPT-2's vocab.json and merges.txt, SentencePiece's tokenizer.model, and a sentence
for any other.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import cases
import pytest
import tokenizers
from hub import hub
from hypothesis import given
from hypothesis import strategies as st
from refusals import check_error
from tokenizers import pre_tokenizers

from jaxconf.models.language_model import find, load
from jaxconf.models.tokenizer import Tokenizer

END = "<|endoftext|>"
CHARACTERS = sorted(pre_tokenizers.ByteLevel.alphabet())  # 256, ids 0 to 255
MERGES = ["t h", "Ġ th", "Ċ Ċ"]  # ids 256 to 258
VOCAB = {token: i for i, token in enumerate([*CHARACTERS, "th", "Ġth", "ĊĊ", END])}

TEXTS = [
    "",
    " ",
    "Hello world, it's 3.14 o'clock — they'll've been there!",
    "   three before,  two between, four after    ",
    "tabs\t\tand\r\nlines\n\n\n  \n\tdef f(x):\n        return 12345 + x\n",
    "naïve Ελληνικά 漢字かな 한국어 🐈‍⬛ e\u0301 \u200b\u00a0\u3000\x00\x7f\ufffd",
    f"one{END}two {END}{END}\n <|endoftext| > <|ENDOFTEXT|>",
]
PIECES = st.sampled_from(
    [" ", "  ", "\n", "\n\n", "\t", "'s", "12", "the", " and", END, "é", "🐈", "_", "..."]
) | st.text(max_size=6)


def save(folder: Path, **files: object) -> Path:
    """Writes `files`, name without .json → value."""
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def save_gpt2(folder: Path, **files: object) -> Path:
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), "utf-8")
    return save(folder, vocab=VOCAB, **files)


def characters(text: str) -> list[int]:
    """The ids of text that is not merged."""
    return [CHARACTERS.index(character.replace(" ", "Ġ")) for character in text]


def ids(folder: Path, text: str) -> list[int]:
    return Tokenizer.from_folder(folder).encode(text)


def check_refused(folder: Path, *parts: str) -> None:
    check_error(lambda: Tokenizer.from_folder(folder), *parts)


# GPT-2's vocab.json and merges.txt


@pytest.fixture(scope="module")
def gpt2(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer]:
    """GPT-2's tokenizer as tokenizer.json has it, and made of its vocabulary and merges."""
    whole, folder = shared / "tokenizers" / "gpt2", tmp_path_factory.mktemp("gpt2")
    model = json.loads((whole / "tokenizer.json").read_text("utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"]), ""]), "utf-8")
    return Tokenizer.from_folder(whole), Tokenizer.from_folder(folder)


def test_gpt2_has_the_ids_of_its_tokenizer_json(gpt2: tuple[Tokenizer, Tokenizer], shared: Path) -> None:
    whole, made = gpt2
    texts = [*TEXTS, (shared / "data" / "wikitext2-test.txt").read_text("utf-8")[:200_000]]
    for text, expected, found in zip(texts, whole.encode_batch(texts), made.encode_batch(texts), strict=True):
        assert found.tolist() == expected.tolist()
        assert made.decode(found) == text
    assert (made.vocab_size, made.newline_id) == (50257, 198)
    assert made.encode(END) == [50256]
    assert [made.token(i) for i in range(50257)] == [whole.token(i) for i in range(50257)]


@given(st.lists(PIECES, max_size=12).map("".join))
def test_gpt2_has_the_ids_of_its_tokenizer_json_for_any_text(gpt2: tuple[Tokenizer, Tokenizer], text: str) -> None:
    whole, made = gpt2
    found = made.encode(text)
    assert found == whole.encode(text)
    assert made.decode(found) == text


def test_vocab_and_merges(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(save_gpt2(tmp_path))
    text = f"the th{END}\n\n"
    found = tokenizer.encode(text)
    assert found == [256, *characters("e"), 257, 259, 258]
    assert tokenizer.decode(found) == text
    assert (tokenizer.vocab_size, tokenizer.newline_id) == (260, CHARACTERS.index("Ċ"))


def test_a_space_before_the_text(tmp_path: Path) -> None:
    assert ids(save_gpt2(tmp_path, tokenizer_config={"add_prefix_space": True}), "th") == [257]
    assert ids(save_gpt2(tmp_path, tokenizer_config={"add_prefix_space": False}), "th") == [256]


@pytest.mark.parametrize(
    ("files", "bos", "eos"),
    [
        ({}, None, None),
        ({"config": {"bos_token_id": 3, "eos_token_id": 4}}, 3, 4),
        (
            {"special_tokens_map": {"bos_token": {"content": END}, "eos_token": "th"}, "config": {"bos_token_id": 3}},
            259,
            256,
        ),
        (
            {"special_tokens_map": {"bos_token": END, "eos_token": END}, "tokenizer_config": {"eos_token": "th"}},
            259,
            259,
        ),
        (
            {
                "special_tokens_map": {"bos_token": END},
                "tokenizer_config": {"bos_token": None},
                "config": {"eos_token_id": 4},
            },
            259,
            4,
        ),
        (
            {"special_tokens_map": {"bos_token": "<s>", "pad_token": "<p>"}, "tokenizer_config": {"eos_token": "</s>"}},
            260,
            261,
        ),
    ],
)
def test_bos_and_eos(tmp_path: Path, files: dict[str, object], bos: int | None, eos: int | None) -> None:
    tokenizer = Tokenizer.from_folder(save_gpt2(tmp_path, **files))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (bos, eos)


ADDED = {"<a>": 261, "<b>": 260, "<c>": 262}


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": ADDED},
        {"added_tokens": ADDED, "tokenizer_config": {"pad_token": "<c>"}},
        {
            "tokenizer_config": {
                "added_tokens_decoder": {i: {"content": text, "special": False} for text, i in ADDED.items()}
            }
        },
        {
            "added_tokens": {"<b>": 260},
            "special_tokens_map": {"additional_special_tokens": ["<a>", {"content": "<c>"}]},
        },
        {
            "special_tokens_map": {"unk_token": "<b>"},
            "tokenizer_config": {
                "unk_token": "<other>",
                "extra_special_tokens": {"image_token": "<a>", "other_token": "<c>"},
            },
        },
    ],
)
def test_added_tokens(tmp_path: Path, files: dict[str, object]) -> None:
    tokenizer = Tokenizer.from_folder(save_gpt2(tmp_path, **files))
    assert tokenizer.encode(f"<a>th<b> <c>{END}") == [261, 256, 260, *characters(" "), 262, 259]
    assert tokenizer.vocab_size == 263


def test_added_tokens_may_take_the_space_before_them(tmp_path: Path) -> None:
    decoder = {"260": {"content": "<a>", "lstrip": True}, "261": {"content": "<b>", "lstrip": False}}
    save_gpt2(tmp_path, tokenizer_config={"added_tokens_decoder": decoder, "mask_token": "<a>"})
    assert ids(tmp_path, "th <a> <b>") == [256, 260, *characters(" "), 261]


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer"])
def test_tokenizers_that_split_as_gpt2s(tmp_path: Path, name: str) -> None:
    save_gpt2(
        tmp_path, tokenizer_config={"tokenizer_class": name}, config={"model_type": "llama", "tokenizer_class": "Other"}
    )
    assert ids(tmp_path, "th") == [256]


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"tokenizer_class": "Qwen2Tokenizer"}, "config": {"model_type": "gpt2"}},
        {"config": {"tokenizer_class": "Qwen2Tokenizer", "model_type": "gpt2"}},
        {"config": {"model_type": "Qwen2"}},
    ],
)
def test_tokenizers_that_split_otherwise(tmp_path: Path, files: dict[str, object]) -> None:
    check_refused(save_gpt2(tmp_path, **files), "merges.txt", "Qwen2", "tokenizer.json")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "vocab.json").unlink(), "merges.txt"),
        (lambda f: (f / "vocab.json").write_text("{"), "merges.txt"),
        (lambda f: (f / "vocab.json").write_text('{"a": 0}'), "merges.txt"),
        (lambda f: (f / "merges.txt").write_text("#version: 0.2\nth\n"), "merges.txt"),
        (lambda f: (f / "merges.txt").write_bytes(b"\xff\xfe"), "merges.txt"),
        (lambda f: (f / "added_tokens.json").write_text("[]"), "added_tokens.json"),
        (lambda f: save(f, added_tokens={"<a>": "first"}), "added tokens"),
        (lambda f: save(f, tokenizer_config={"added_tokens_decoder": {"260": {"special": True}}}), "added token"),
        (lambda f: save(f, added_tokens={"<a>": 300}), "'<a>'"),
        (lambda f: save(f, added_tokens={"th": 260}), "'th'"),
        (lambda f: (f / "special_tokens_map.json").write_text("{"), "special_tokens_map.json"),
    ],
)
def test_broken_vocab_and_merges(tmp_path: Path, spoil: Callable[[Path], object], says: str) -> None:
    spoil(save_gpt2(tmp_path))
    check_refused(tmp_path, says)


# SentencePiece's tokenizer.model

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # kinds of pieces
BPE = 2


def field(number: int, value: int | float | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + _varint(value >> 7) if value > 127 else bytes([value])


LETTERS = "▁abcdefgh"  # ids 259 to 267
BASE = [
    ("<unk>", UNKNOWN),
    ("<s>", CONTROL),
    ("</s>", CONTROL),
    *((f"<0x{i:02X}>", BYTE) for i in range(256)),
    *((c, NORMAL) for c in LETTERS),
]
A, B, C = 260, 261, 262
SPACE = 259


WITH_BYTES = field(3, BPE) + field(35, 1)
SPACES_KEPT = field(4, 0)
NO_PREFIX = field(3, 0)


def save_model(
    folder: Path, *more: tuple[str, int, float], training: bytes = WITH_BYTES, normalizing: bytes = SPACES_KEPT
) -> Path:
    """A tokenizer.model of bytes, letters and `more` pieces (text, kind, score) with ids from 268 on."""
    pieces = [*((text, kind, 0.0 if kind != NORMAL else -1e6 - i) for i, (text, kind) in enumerate(BASE)), *more]
    message = b"".join(
        field(1, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, kind, score in pieces
    )
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(message + field(2, training) + field(3, normalizing))
    return folder


def test_sentencepiece(tmp_path: Path) -> None:
    """The piece of the higher score is merged first, wherever it stands; what is in no piece is taken by its bytes."""
    folder = save_model(
        tmp_path, ("ab", NORMAL, -2.0), ("bc", NORMAL, -1.0), ("▁a", NORMAL, -3.0), ("▁ab", NORMAL, -4.0)
    )
    tokenizer = Tokenizer.from_folder(folder)
    expected = {
        "": [],
        "abc": [270, 269],
        "ab": [271],
        "cab": [SPACE, C, 268],
        " a": [SPACE, 270],
        "c  c": [SPACE, C, SPACE, SPACE, C],
        "é\n": [SPACE, 3 + 0xC3, 3 + 0xA9, 3 + 0x0A],
        "<s>": [1],
        "<unk>": [0],
        "a</s>": [270, 2],
        "<0x41>": [SPACE, *(3 + byte for byte in b"<0x41>")],
    }
    assert {text: tokenizer.encode(text) for text in expected} == expected
    assert [tokenizer.decode(i) for i in expected.values()] == list(expected)
    assert (tokenizer.vocab_size, tokenizer.newline_id) == (272, None)


def test_sentencepiece_takes_its_symbols_first(tmp_path: Path) -> None:
    """The longest of them, from the left, with nothing put between them and the text, and nothing merged across their
    borders.
    """
    symbols = [
        ("a.b", USER_DEFINED, 0.0),
        ("a.", USER_DEFINED, 0.0),
        ("▁▁", USER_DEFINED, 0.0),
        ("\n", USER_DEFINED, 0.0),
    ]
    folder = save_model(tmp_path, *symbols, ("ca", NORMAL, -1.0), ("▁c", NORMAL, -2.0), ("▁a", NORMAL, -3.0))
    text = "ca.bca.c   c\nc axb"
    expected = [273, 268, C, 269, C, 270, 273, 271, C, 274, 3 + ord("x"), B]
    assert ids(folder, text) == expected
    assert Tokenizer.from_folder(folder).decode(expected) == text


@pytest.mark.parametrize(
    ("normalizing", "tokenizer_config", "expected"),
    [
        (SPACES_KEPT, {}, [SPACE, SPACE, A, SPACE, SPACE, B, SPACE]),
        (SPACES_KEPT + NO_PREFIX + field(3, 1), {}, [SPACE, SPACE, A, SPACE, SPACE, B, SPACE]),
        (SPACES_KEPT + NO_PREFIX, {}, [SPACE, A, SPACE, SPACE, B, SPACE]),
        (SPACES_KEPT + NO_PREFIX, {"add_prefix_space": True}, [SPACE, SPACE, A, SPACE, SPACE, B, SPACE]),
        (SPACES_KEPT, {"add_prefix_space": False}, [SPACE, A, SPACE, SPACE, B, SPACE]),
        (b"", {}, [SPACE, A, SPACE, B]),
        (NO_PREFIX, {}, [A, SPACE, B]),
    ],
)
def test_spaces(tmp_path: Path, normalizing: bytes, tokenizer_config: dict[str, object], expected: list[int]) -> None:
    save(save_model(tmp_path, normalizing=normalizing), tokenizer_config=tokenizer_config)
    assert ids(tmp_path, " a  b ") == expected


def test_text_that_is_the_name_of_a_byte(tmp_path: Path) -> None:
    assert ids(save_model(tmp_path, normalizing=NO_PREFIX), "<0x41>") == [3 + byte for byte in b"<0x41>"]


def test_sentencepiece_without_bytes(tmp_path: Path) -> None:
    folder = save_model(tmp_path, training=field(3, BPE))
    assert ids(folder, "aéxb") == [SPACE, A, 0, B]


def test_sentencepiece_with_added_tokens(tmp_path: Path) -> None:
    files = {
        "added_tokens": {"[PAD]": 268},
        "special_tokens_map": {"bos_token": "<s>"},
        "tokenizer_config": {"eos_token": "<end>"},
    }
    tokenizer = Tokenizer.from_folder(save(save_model(tmp_path), **files))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, 269, 270)
    assert tokenizer.encode("a[PAD]<end>") == [SPACE, A, 268, 269]


@given(text=st.text() | st.text("ab \n"))
def test_sentencepiece_decodes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "decodes_back"
    if not folder.exists():
        save_model(folder, ("ab", NORMAL, -1.0), ("▁▁", NORMAL, -2.0), ("\n\n", USER_DEFINED, 0.0))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")


UNSUPPORTED = {
    "unigram": field(3, 1),
    "the default, which is unigram": b"",
    "characters": field(3, 4),
    "spaces that end words": field(3, BPE) + field(24, 1),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_other_kinds_of_sentencepiece(tmp_path: Path, kind: str) -> None:
    check_refused(save_model(tmp_path, training=UNSUPPORTED[kind]), "tokenizer.model", "BPE", "tokenizer.json")


def test_unused_pieces(tmp_path: Path) -> None:
    check_refused(save_model(tmp_path, ("ab", UNUSED, -1.0)), "tokenizer.model", "BPE", "tokenizer.json")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ((("<unk2>", UNKNOWN, 0.0),), "several unknown pieces"),
        ((("", NORMAL, 0.0),), "an empty piece"),
        ((("a", NORMAL, 0.0),), "a piece twice"),
        ((("ab", NORMAL, float("nan")),), "a score"),
    ],
)
def test_what_sentencepiece_refuses(tmp_path: Path, more: tuple, says: str) -> None:
    check_refused(save_model(tmp_path, *more), "tokenizer.model", says)


@pytest.mark.parametrize(("piece", "says"), [("<unk>", "has no unknown piece"), ("<0x41>", "lacks the pieces of some")])
def test_a_model_without_its_unknown_piece_or_a_byte(tmp_path: Path, piece: str, says: str) -> None:
    file = save_model(tmp_path) / "tokenizer.model"
    old = next(p for p in BASE if p[0] == piece)
    gone = field(1, field(1, old[0].encode()) + field(2, 0.0) + field(3, old[1]))
    assert gone in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(gone, b""))
    check_refused(tmp_path, "tokenizer.model", says)


def test_a_file_of_tiktokens(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\nIw== 2\nJA== 3\n")
    check_refused(tmp_path, "tokenizer.model", "tiktoken", "tokenizer.json")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\xff" * 40, b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 131\n"]
)
def test_broken_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    check_refused(tmp_path, "tokenizer.model", "not a tokenizer", "again")


def test_model_without_its_training(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(field(1, field(1, b"a")))
    check_refused(tmp_path, "tokenizer.model", "missing")


def test_truncated_model(tmp_path: Path) -> None:
    file = save_model(tmp_path) / "tokenizer.model"
    whole = file.read_bytes()
    for size in [*range(0, len(whole), 501), *range(len(whole) - 8, len(whole))]:
        file.write_bytes(whole[:size])
        check_refused(tmp_path, "tokenizer.model", "not a tokenizer", "again")


# Which of them counts, and where they are fetched


def test_tokenizer_json_goes_first(tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 7}, unk_token="a"))
    save_gpt2(save_model(tmp_path))
    assert ids(tmp_path, "a") == [SPACE, A]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert ids(tmp_path, "a") == [7]
    for name in ("tokenizer.json", "tokenizer.model"):
        (tmp_path / name).unlink()
    assert ids(tmp_path, "a") == characters("a")


@pytest.mark.parametrize("make", [save_gpt2, save_model])
def test_tokenizers_from_the_hub(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    repo = cases.build("gpt2", tmp_path / "model")
    assert not load(repo).has_tokenizer
    added, end = (260, "!") if make is save_gpt2 else (268, "</s>")
    save(make(repo), added_tokens={"<a>": added}, special_tokens_map={"eos_token": end})
    local = load(repo)
    assert local.has_tokenizer
    with hub({"models/owner/name": {"main": repo}}, tmp_path / "cache"):
        lm = load("owner/name")
        assert lm.has_tokenizer
        assert lm.tokenizer.encode("the <a>") == local.tokenizer.encode("the <a>") == ids(repo, "the <a>")
        assert lm.tokenizer.eos_id in lm.end_ids
    with hub({"models/owner/name": {"main": repo}}, tmp_path / "other"):
        folder, _ = find("owner/name", weights=False)
        assert Tokenizer.from_folder(folder).eos_id == local.tokenizer.eos_id

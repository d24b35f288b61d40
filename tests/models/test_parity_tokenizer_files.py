"""Folders with tokenizer.json and the small files beside it: token ids against transformers (`make parity`)."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from jaxconf.models.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

END = "<|endoftext|>"
TEXTS = [
    "",
    " ",
    "the thing, it's 3.14 o'clock — they'll've been there!",
    "   three before,  two between    ",
    "tabs\t\tand\r\nlines\n\n\n  \n\tdef f(x):\n        return 12345 + x\n",
    "naïve Ελληνικά 漢字かな 한국어 🐈‍⬛ e\u0301 \u200b\u00a0\u3000\x00\x7f\ufffd",
    f"one{END}two {END}{END}\n <|endoftext| > <|ENDOFTEXT|>",
    "<x>a <x> b<y>c<z> <q>the<s>the</s> the",
    "▁the ▁ ▁▁x <0x41> <unk>",
    "Thethe 007 <|padding|> [PAD] thing<x>",
]
SPECIAL = {"special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
PLAIN = {"special": False, "normalized": True, "lstrip": True, "rstrip": False, "single_word": False}


def bytes_json(normalizer: Any = None, digits: bool = False, space: bool = False) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=space)
    parts = [pre_tokenizers.Digits(individual_digits=True), level]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts) if digits else level
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=270,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the thing that thinks 12 345 there <x> "] * 9, trainer)
    return tokenizer


def pieces_json(kind: str) -> tokenizers.Tokenizer:
    """A BPE of pieces with bytes, as Llama's (`kind`: "prepend", "metaspace") or Gemma's, or a Unigram model."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *"▁thengi0123xabc.", "th", "the", "▁the"]
    if kind == "unigram":
        model: Any = models.Unigram([(name, -float(i)) for i, name in enumerate(names)], 0, True)
    else:
        merges = [("t", "h"), ("th", "e"), ("▁", "the")]
        vocab = {name: i for i, name in enumerate(names)}
        model = models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    spaces = normalizers.Replace(" ", "▁")
    if kind == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    elif kind == "gemma":
        tokenizer.normalizer = spaces
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", split=False)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names[:3]])
    return tokenizer


DECODER = {"added_tokens_decoder": {"270": {"content": "<x>", **SPECIAL}, "271": {"content": "<y>", **PLAIN}}}
FOLDERS: dict[str, tuple[tokenizers.Tokenizer, dict[str, Any]]] = {}
for name in ("GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer", "PreTrainedTokenizerFast"):
    for space in (True, False, None):
        config = {"tokenizer_class": name} | ({} if space is None else {"add_prefix_space": space})
        FOLDERS[f"{name} {space}"] = (bytes_json(), {"tokenizer_config": config, "config": {"model_type": "gpt2"}})
of_gpt2 = {"tokenizer_config": {"tokenizer_class": "GPT2Tokenizer"}}
FOLDERS |= {
    "a space in the file only": (bytes_json(space=True), of_gpt2 | {"config": {"model_type": "gpt_neo"}}),
    "a space, by the model type": (
        bytes_json(),
        {"tokenizer_config": {"add_prefix_space": True}, "config": {"model_type": "gpt2"}},
    ),
    "a space, no model type": (bytes_json(), {"tokenizer_config": {"add_prefix_space": True}}),
    "a space, mistral": (
        bytes_json(),
        {
            "tokenizer_config": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
            "config": {"model_type": "mistral"},
        },
    ),
    "neox": (
        bytes_json(normalizers.NFC()),
        {
            "tokenizer_config": {
                "tokenizer_class": "GPTNeoXTokenizer",
                "add_prefix_space": True,
                "pad_token": "[PAD]",
                **DECODER,
            },
            "config": {"model_type": "gpt_neox"},
        },
    ),
    "cohere": (
        bytes_json(normalizers.NFC(), digits=True),
        {
            "tokenizer_config": {"tokenizer_class": "CohereTokenizer", "add_prefix_space": True},
            "config": {"model_type": "cohere"},
        },
    ),
    "digits of a model type of the file": (bytes_json(digits=True), of_gpt2 | {"config": {"model_type": "granite"}}),
    "by id": (bytes_json(), {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast", **DECODER}}),
    "extra list": (
        bytes_json(),
        {
            "tokenizer_config": {
                "extra_special_tokens": ["<x>", "the"],
                "additional_special_tokens": ["<y>"],
                "z_token": "<z>",
                "eos_token": "<s>",
            }
        },
    ),
    "extra dict": (
        bytes_json(),
        {
            "tokenizer_config": {
                "extra_special_tokens": {"a_token": "<x>"},
                "additional_special_tokens": ["<y>"],
                "bos_token": "",
            }
        },
    ),
    "older files": (
        bytes_json(),
        {
            "tokenizer_config": {"eos_token": "<z>", "additional_special_tokens": ["<z>"]},
            "special_tokens_map": {
                "eos_token": {"content": "<x>", "lstrip": True},
                "additional_special_tokens": ["<q>"],
            },
            "added_tokens": {"<y>": 270},
        },
    ),
    "older files passed over": (
        bytes_json(),
        {
            "tokenizer_config": {"eos_token": "<x>", **DECODER},
            "special_tokens_map": {"eos_token": "<z>"},
            "added_tokens": {"<q>": 270},
        },
    ),
    "other properties": (
        bytes_json(),
        {
            "tokenizer_config": {
                "added_tokens_decoder": {"0": {"content": END, **SPECIAL, "lstrip": True, "rstrip": True}}
            }
        },
    ),
    "special tokens split": (bytes_json(), {"tokenizer_config": {"split_special_tokens": True}}),
    "unigram": (pieces_json("unigram"), {"tokenizer_config": {"extra_special_tokens": ["<x>"]}}),
    "gemma": (
        pieces_json("gemma"),
        {
            "tokenizer_config": {"tokenizer_class": "GemmaTokenizer", "eos_token": "</s>"},
            "config": {"model_type": "gemma2"},
        },
    ),
}
for kind in ("prepend", "metaspace"):
    for more in ({}, {"add_prefix_space": False}, {"legacy": True}, {"add_prefix_space": True, "legacy": False}):
        config = {"tokenizer_class": "LlamaTokenizer", **more}
        FOLDERS[f"llama {kind} {more}"] = (
            pieces_json(kind),
            {"tokenizer_config": config, "config": {"model_type": "llama"}},
        )


def save(folder: Path, tokenizer: tokenizers.Tokenizer, files: dict[str, Any]) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    for file, value in files.items():
        (folder / f"{file}.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_are_those_of_transformers(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save(tmp_path, *FOLDERS[name])
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.from_folder(folder)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
    assert not [record for record in caplog.records if record.name.startswith("jaxconf")]
    if "tokenizer_config" in FOLDERS[name][1] and "eos_token" in FOLDERS[name][1]["tokenizer_config"]:
        assert ours.eos_id == theirs.eos_token_id


@pytest.mark.parametrize(
    ("tokenizer", "name", "model_type"),
    [
        (bytes_json(digits=True), "GPT2Tokenizer", "llama"),  # as SmolLM2's and StarCoder2's
        (bytes_json(digits=True), "GPT2Tokenizer", "starcoder2"),
        (bytes_json(normalizers.NFKC()), "GPTNeoXTokenizer", "gpt_neox"),
        (pieces_json("unigram"), "GemmaTokenizer", "gemma"),
        (bytes_json(), "RobertaTokenizer", "gpt2"),
    ],
)
def test_where_versions_differ_the_file_is_followed_and_a_sentence_says_so(
    tokenizer: tokenizers.Tokenizer, name: str, model_type: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"tokenizer_config": {"tokenizer_class": name}, "config": {"model_type": model_type}}
    with caplog.at_level(logging.WARNING):
        ours = Tokenizer.from_folder(save(tmp_path, tokenizer, files))
    [record] = [record for record in caplog.records if record.name.startswith("jaxconf")]
    assert all(word in record.getMessage() for word in ("tokenizer.json", "transformers 5", name))
    assert [ours.encode(text) for text in TEXTS] == [
        tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS
    ]

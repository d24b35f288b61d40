"""What a tokenizer's class changes in the tokenizer that tokenizer.json holds.

tokenizer_config.json names a class of transformers. For most classes transformers takes tokenizer.json as it is. For
those in `CLASSES`, transformers 5 takes the vocabulary and the merges from tokenizer.json, and builds the normalizer
and the pre-tokenizer itself. Where that differs from tokenizer.json only in the space before a text, transformers 5 is
followed. (transformers 4 does the same for classes of bytes, and for LlamaTokenizer it takes the file, so it differs in
text that begins with a space or stands behind a special token.) Where it differs in more, tokenizer.json is followed,
as transformers 4 does, because the model was trained with it, and a warning says so.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, pre_tokenizers

from jaxconf.models.errors import InputError
from jaxconf.models.tokenizer_names import read_json

AS_THE_FILE = "PreTrainedTokenizer TokenizersBackend BloomTokenizer".split()
# The class that transformers 5 has for a model type. It counts where the folder names no class, and AS_THE_FILE before
# any that the folder names.
OF_MODEL_TYPE = {
    **dict.fromkeys("codegen gpt2 gpt_neo gptj opt phi starcoder2".split(), "GPT2Tokenizer"),
    **dict.fromkeys("gpt_neox mpt olmo olmoe".split(), "GPTNeoXTokenizer"),
    **dict.fromkeys("cohere cohere2".split(), "CohereTokenizer"),
    **dict.fromkeys("gemma gemma2 gemma3 gemma3_text".split(), "GemmaTokenizer"),
    **dict.fromkeys("qwen2 qwen2_moe qwen3 qwen3_moe".split(), "Qwen2Tokenizer"),
    **dict.fromkeys(
        "glm glm4 gpt_bigcode granite granitemoe ministral ministral3 mistral mistral3 mixtral nemotron olmo2 olmo3 "
        "persimmon phi3 stablelm".split(),
        "TokenizersBackend",
    ),
}
SPACE = "▁"


@dataclass(frozen=True)
class Form:
    """What a class builds.

    `alike`: pairs of a normalizer and a pre-tokenizer, in the words of tokenizer.json, that give the ids of the class's
    own, apart from the space before a text. `byte_fallback`: whether characters without a token become tokens of bytes.
    """

    alike: tuple[tuple[Any, Any], ...]
    byte_fallback: bool = False


def _replace(content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": " "}, "content": content}


def _sequence(kind: str, *parts: Any) -> dict[str, Any]:
    return {"type": "Sequence", kind: list(parts)}


BYTES = {"type": "ByteLevel", "use_regex": True}
NFC = {"type": "NFC"}
GPT2 = Form(((None, BYTES),))
CLASSES = {
    "GPT2Tokenizer": GPT2,
    "CodeGenTokenizer": GPT2,
    "GPTNeoXTokenizer": Form(((NFC, BYTES),)),
    "CohereTokenizer": Form(((NFC, _sequence("pretokenizers", {"type": "Digits", "individual_digits": True}, BYTES)),)),
    "Qwen2Tokenizer": Form(
        (
            (
                NFC,
                _sequence(
                    "pretokenizers",
                    {
                        "type": "Split",
                        "pattern": {"Regex": "1ff7f410"},
                        "behavior": "Isolated",
                        "invert": False,
                    },
                    {"type": "ByteLevel", "use_regex": False},
                ),
            ),
        )
    ),
    "LlamaTokenizer": Form(
        (
            (None, {"type": "Metaspace", "replacement": SPACE, "split": False}),
            (_sequence("normalizers", {"type": "Prepend", "prepend": SPACE}, _replace(SPACE)), None),
            (_sequence("normalizers", _replace(SPACE)), None),
            (_replace(SPACE), None),
        ),
        byte_fallback=True,
    ),
    "GemmaTokenizer": Form(
        (
            (_replace(SPACE), None),
            (
                _replace(SPACE),
                {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
            ),
        ),
        byte_fallback=True,
    ),
}


def class_of(folder: Path) -> str:
    """The class that transformers 5 takes for a folder, by its tokenizer_config.json and config.json.

    Without the ending "Fast", which means nothing there. Raises InputError for a class that is not named by a string.
    """
    named, config = read_json(folder / "tokenizer_config.json"), read_json(folder / "config.json")
    declared = named.get("tokenizer_class") or config.get("tokenizer_class")
    if not isinstance(declared, str | None):
        raise InputError(f"{folder} has the tokenizer_class {declared!r}; make it the name of a class, or null")
    model_type = config.get("model_type")
    registered = OF_MODEL_TYPE.get(model_type) if isinstance(model_type, str) else None
    if registered in AS_THE_FILE or not declared or model_type == "qwen2":  # many a qwen2 names a wrong class
        return registered or AS_THE_FILE[0]
    return declared.removesuffix("Fast")


def follow_class(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
    """Change a tokenizer that was read from `path`, a tokenizer.json, as its class does; see above.

    Raises InputError where the files beside it hold values of another kind than they must.
    """
    name, space = class_of(path.parent), flag(path.parent, "add_prefix_space")
    states = _state(tokenizer.normalizer), _state(tokenizer.pre_tokenizer)
    alike = _without_space(states[0]), _without_space(states[1])
    # transformers makes the same exception: many a tokenizer of bytes is called Llama's.
    if name in AS_THE_FILE or (name == "LlamaTokenizer" and "ByteLevel" in json.dumps(states)):
        return
    form = CLASSES.get(name)
    if form is None or alike not in form.alike or not _model_is_plain(tokenizer.model, form):
        logging.getLogger(__name__).warning(
            "jaxconf: %s is followed as it is, as transformers 4 does; transformers 5 may give other ids, because it "
            "builds the class %s without the file's own rules for splitting text",
            path,
            name,
        )
    elif name == "LlamaTokenizer":
        _put_space_before_words(tokenizer, space is not False, legacy=bool(flag(path.parent, "legacy")))
    elif states[1] != alike[1] and "ByteLevel" in json.dumps(states[1]):
        tokenizer.pre_tokenizer = _with_space(states[1], bool(space))


def flag(folder: Path, name: str) -> bool | None:
    """What tokenizer_config.json has under a name: true, false or null. Raises InputError for anything else."""
    path = folder / "tokenizer_config.json"
    value = read_json(path).get(name)
    if not isinstance(value, bool | None):
        raise InputError(f"{path} has the {name} {value!r}; make it true, false or null")
    return value


def _state(part: Any) -> Any:
    """A normalizer or a pre-tokenizer in the words of tokenizer.json."""
    return None if part is None else json.loads(part.__getstate__())


def _without_space(state: Any) -> Any:
    """A state without what says whether a space is put before a text, and without what has no say in ids.

    Of a regular expression it has the beginning of its SHA-256.
    """
    if isinstance(state, list):
        return [_without_space(each) for each in state]
    if not isinstance(state, dict):
        return state
    kept = {k: _without_space(v) for k, v in state.items() if k not in SPACE_KEYS}
    if "Regex" in kept:
        kept["Regex"] = hashlib.sha256(kept["Regex"].encode()).hexdigest()[:8]
    return kept


SPACE_KEYS = ("add_prefix_space", "prepend_scheme", "trim_offsets")


def _model_is_plain(model: Any, form: Form) -> bool:
    """Whether a model merges as the class's own does."""
    return (
        isinstance(model, tokenizers.models.BPE)
        and not (model.ignore_merges or model.continuing_subword_prefix or model.end_of_word_suffix)
        and model.byte_fallback == form.byte_fallback
    )


def _put_space_before_words(tokenizer: tokenizers.Tokenizer, space: bool, legacy: bool) -> None:
    """As LlamaTokenizer does; `legacy`: before each part of a text that stands behind a special token too."""
    tokenizer.normalizer = None
    scheme = "never" if not space else "always" if legacy else "first"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split=False)
    last = [decoders.Strip(" ", 1, 0)] if space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *last]
    )


def _with_space(state: dict[str, Any], space: bool) -> Any:
    """The byte-level pre-tokenizer of a state, which puts a space before a text or does not."""
    parts = state.get("pretokenizers", [state])
    for part in parts:
        if "add_prefix_space" in part:
            part["add_prefix_space"] = space
    made = pre_tokenizers.ByteLevel() if parts == [state] else pre_tokenizers.Sequence([])
    made.__setstate__(json.dumps(state).encode())
    return made

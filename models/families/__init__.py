"""The families, one file each, found by the `model_type` of a model's config.json.

A family's file defines:

* `config(attributes) -> DecoderConfig`,
* `leaves(config) -> tuple[Leaf, ...]`, the leaf table,
* `PREFIX`, which the names of its tensors may begin with, or several such, of which the first is written,
* `IGNORED`, in families with stored tensors that are neither parameters nor buffers: a pattern for their names,
* `FUSED`, in families with experts: the stored tensors that hold all experts (`jaxconf.models.tensor_files.by_expert`).
"""

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from jaxconf.models.attributes import TEXT_MODEL, Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError, UnknownAttributes
from jaxconf.models.families import (
    bloom,
    codegen,
    cohere,
    cohere2,
    exaone4,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gemma3_vision,
    glm4,
    gpt2,
    gpt_bigcode,
    gpt_neo,
    gpt_neox,
    gpt_oss,
    gptj,
    granite,
    helium,
    llama,
    ministral3,
    mistral,
    mistral3,
    mixtral,
    mpt,
    nemotron,
    olmo,
    olmo2,
    olmo3,
    olmoe,
    opt,
    persimmon,
    phi,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    seed_oss,
    smollm3,
    stablelm,
    starcoder2,
    xglm,
)
from jaxconf.models.leaves import Leaf

FAMILIES: dict[str, ModuleType] = {
    "bloom": bloom,
    "codegen": codegen,
    "cohere": cohere,
    "cohere2": cohere2,
    "exaone4": exaone4,
    "falcon": falcon,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3_vision,
    "gemma3_text": gemma3,
    "glm4": glm4,
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neo": gpt_neo,
    "gpt_neox": gpt_neox,
    "gpt_oss": gpt_oss,
    "gptj": gptj,
    "granite": granite,
    "helium": helium,
    "llama": llama,
    "ministral3": ministral3,
    "mistral": mistral,
    "mistral3": mistral3,
    "mixtral": mixtral,
    "mpt": mpt,
    "nemotron": nemotron,
    "olmo": olmo,
    "olmo2": olmo2,
    "olmo3": olmo3,
    "olmoe": olmoe,
    "opt": opt,
    "persimmon": persimmon,
    "phi": phi,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen2_moe": qwen2_moe,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "seed_oss": seed_oss,
    "smollm3": smollm3,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
    "xglm": xglm,
}

ALIASES = {"stablelm_epoch": "stablelm"}  # the model_type of a family before transformers had it


def family(model_type: str) -> ModuleType:
    """The module of a family. Raises InputError for an unknown model_type."""
    if model_type not in FAMILIES:
        raise InputError(
            f"model_type {model_type!r} is not supported, only {', '.join(FAMILIES)}; "
            "use a model of one of these families"
        )
    return FAMILIES[model_type]


def config_from_hf(values: Mapping[str, Any], accept: str | Sequence[str] = ()) -> DecoderConfig:
    """The decoder that a Hugging Face config, as a dict, describes.

    `accept`: attributes whose meaning is not known here and which are passed over, as for `accepted`. Raises
    InputError, naming the attribute, for what is not understood, and as `accepted` does.
    """
    config, unknown = _read(values)
    [passed] = accepted([values], accept)
    if left := unknown - {*passed}:
        entries, names = dict(_entries(values)), sorted(left)
        them = "it" if len(names) == 1 else "them"
        raise InputError(
            f"config.json sets {' and '.join(f'{name!r} to {_short(entries[name])}' for name in names)}, which jaxconf "
            f"does not know in a {values['model_type']} model; if you know that the model's outputs do not depend on "
            f"{them}, take {them} with --accept {','.join(names)} (in Python accept={names!r})"
        )
    _check_sizes(config)
    return config


def accepted(configs: Sequence[Mapping[str, Any]], accept: str | Sequence[str]) -> list[tuple[str, ...]]:
    """Of the attributes in `accept`, those whose meaning is not known in each of the configs.

    `accept`: names of attributes, of which one text may hold several with commas between them. An attribute within
    another, such as one of the rotary settings, is named rope_scaling.NAME. Raises InputError for an attribute that no
    config has, and for one that no config needs accepting for, because it is read or is known not to matter.
    """
    texts = [accept] if isinstance(accept, str) else accept
    names = tuple(dict.fromkeys(name for text in texts for name in text.split(",") if name))
    if not names:
        return [()] * len(configs)
    unknown = [_read(values)[1] for values in configs]
    which = "config.json" if len(configs) == 1 else f"none of {len(configs)} config.json"
    for name in names:
        if not any(name in of_one for of_one in unknown):
            if any(name in dict(_entries(values)) for values in configs):
                needs = "does not need" if len(configs) == 1 else "needs"
                raise InputError(
                    f"{which} {needs} {name!r} to be accepted, because jaxconf reads it or knows that it changes no "
                    "output; leave it out of accept"
                )
            lacks = "has no" if len(configs) == 1 else "has the"
            raise InputError(
                f"{which} {lacks} attribute {name!r}, which accept names; correct the name or leave it out"
            )
    return [tuple(name for name in names if name in of_one) for of_one in unknown]


def _read(values: Mapping[str, Any]) -> tuple[DecoderConfig, set[str]]:
    """The decoder, as its family reads it, and the attributes whose meaning is not known, named as for `accepted`."""
    if not isinstance(values.get("model_type"), str):
        raise InputError("config.json has no model_type; complete it from the model's original config.json")
    unknown: set[str] = set()
    while True:
        try:
            return _read_known(_without(values, unknown)), unknown
        except UnknownAttributes as error:
            found = {name for name, _ in _entries(values) if _is_one_of(name, error.names, error.within)}
            if found <= unknown:  # the family itself gives the rotary settings a value that they do not take
                raise
            unknown |= found


def _is_one_of(entry: str, names: Collection[str], within: str) -> bool:
    """Whether an entry, as `_entries` names it, is one of these attributes of config.json or of a part of it."""
    before = {"config.json": "", TEXT_MODEL: r"text_config\."}.get(within, r"(text_config\.)?rope_\w+\.(.*\.)?")
    return re.fullmatch(before + f"({'|'.join(map(re.escape, names))})", entry) is not None


def _read_known(values: Mapping[str, Any]) -> DecoderConfig:
    model_type = ALIASES.get(values["model_type"], values["model_type"])
    text = values.get("text_config")
    if model_type not in FAMILIES and isinstance(text, Mapping) and text.get("model_type") in [*FAMILIES]:
        raise InputError(
            f"model_type {model_type!r} is not supported, but the {text['model_type']!r} in its text_config is; "
            "save its text model on its own, with text_config as config.json, and load that"
        )
    attributes = Attributes(values)
    try:
        config = family(model_type).config(attributes)
    except InputError:
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise InputError(
            f"config.json holds a value of the wrong kind ({error}); correct it from the model's original config.json"
        ) from error
    if not config.windows:
        attributes.without_windows()
    attributes.finish()
    return config


def _entries(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """The attributes with their values, and those within them, each named by the way to it: rope_scaling.factor."""
    for name, value in values.items():
        yield f"{within}{name}", value
        if isinstance(value, Mapping):
            yield from _entries(value, f"{within}{name}.")


def _without(values: Mapping[str, Any], names: Collection[str], within: str = "") -> dict[str, Any]:
    """The attributes without those of these names."""
    return {
        name: _without(value, names, f"{within}{name}.") if isinstance(value, Mapping) else value
        for name, value in values.items()
        if f"{within}{name}" not in names
    }


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _check_sizes(config: DecoderConfig) -> None:
    """Raises InputError for values that no decoder can have."""
    for field, kind in typing.get_type_hints(DecoderConfig).items():
        if not _fits(getattr(config, field), kind):
            raise InputError(
                f"config.json makes {field} {getattr(config, field)!r}, which is not possible; "
                "correct it from the model's original config.json"
            )
    for axis, size in config.axis_sizes().items():
        if size < 1:
            raise InputError(
                f"config.json gives the size {size!r} to the axis {axis!r}; "
                "correct it from the model's original config.json"
            )
    for rotary in filter(None, (config.rotary, config.local_rotary)):
        turned = 2 * len(rotary.frequencies)
        if not 2 <= turned <= config.d_head:
            raise InputError(
                f"config.json rotates {turned} of the {config.d_head} entries of a head, which is not possible; "
                "correct it from the model's original config.json"
            )
    if min(config.windows, default=1) < 1:
        raise InputError(f"config.json gives a window of {min(config.windows)} positions; give 1 or more")
    if config.n_heads % config.n_kv_heads:
        raise InputError(
            f"config.json gives {config.n_heads} heads, which do not divide among {config.n_kv_heads} key/value heads; "
            "correct one of the two"
        )


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotation's type. Numbers must be finite, and a bool does not count as a number."""
    args = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return all(_fits(entry, args[0]) for entry in value)
    if typing.get_origin(kind) is typing.Literal:
        return value in args
    if args:
        return any(_fits(value, arg) for arg in args)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind)


@functools.cache
def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    """The leaf table of this decoder."""
    return family(config.model_type).leaves(config)


def prefixes(config: DecoderConfig) -> tuple[str, ...]:
    """What the names of the tensors may begin with."""
    prefix = family(config.model_type).PREFIX
    return (prefix,) if isinstance(prefix, str) else prefix


def unprefixed(config: DecoderConfig, name: str) -> str:
    """A tensor's name as the leaf table has it, without what it may begin with."""
    return name.removeprefix(next(filter(name.startswith, prefixes(config)), ""))


def unembedding(config: DecoderConfig) -> str:
    """The tensor of the unembedding, which in a tied checkpoint is a copy of the embedding, if it is there."""
    untied = leaves(dataclasses.replace(config, tied=False))
    return next(leaf.source for leaf in untied if leaf.path == "unembed/w")

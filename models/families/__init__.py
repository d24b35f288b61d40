"""The families, one file each, found by the `model_type` of a model's config.json.

A family's file defines:

* `config(attributes) -> DecoderConfig`,
* `leaves(config) -> tuple[Leaf, ...]`, the leaf table,
* `PREFIX`, which the names of its tensors may begin with,
* `IGNORED`, a pattern for the names of stored tensors that are not parameters,
* `FUSED`, in families with experts: the stored tensors that hold all experts (`jaxconf.models.tensor_files.by_expert`).
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import (
    bloom,
    cohere,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    gpt_bigcode,
    gpt_neo,
    gpt_neox,
    gpt_oss,
    gptj,
    granite,
    llama,
    mistral,
    mixtral,
    olmo,
    olmo2,
    olmoe,
    opt,
    phi,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    smollm3,
    stablelm,
    starcoder2,
)
from jaxconf.models.leaves import Leaf

FAMILIES: dict[str, ModuleType] = {
    "bloom": bloom,
    "cohere": cohere,
    "falcon": falcon,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3,
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neo": gpt_neo,
    "gpt_neox": gpt_neox,
    "gpt_oss": gpt_oss,
    "gptj": gptj,
    "granite": granite,
    "llama": llama,
    "mistral": mistral,
    "mixtral": mixtral,
    "olmo": olmo,
    "olmo2": olmo2,
    "olmoe": olmoe,
    "opt": opt,
    "phi": phi,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen2_moe": qwen2_moe,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "smollm3": smollm3,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
}


def family(model_type: str) -> ModuleType:
    """The module of a family. Raises InputError for an unknown model_type."""
    if model_type not in FAMILIES:
        raise InputError(
            f"model_type {model_type!r} is not supported, only {', '.join(FAMILIES)}; "
            "use a model of one of these families"
        )
    return FAMILIES[model_type]


def config_from_hf(values: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a Hugging Face config, as a dict, describes.

    Raises InputError, naming the attribute, for what is not understood.
    """
    if not isinstance(values.get("model_type"), str):
        raise InputError("config.json has no model_type; complete it from the model's original config.json")
    attributes = Attributes(values)
    try:
        config = family(values["model_type"]).config(attributes)
    except InputError:
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise InputError(
            f"config.json holds a value of the wrong kind ({error}); correct it from the model's original config.json"
        ) from error
    attributes.finish()
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
    return config


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


def unembedding(config: DecoderConfig) -> str:
    """The tensor of the unembedding, which in a tied checkpoint is a copy of the embedding, if it is there."""
    untied = leaves(dataclasses.replace(config, tied=False))
    return next(leaf.source for leaf in untied if leaf.path == "unembed/w")

"""The config.json of a model that is to be trained."""

import json
from typing import Any

from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.training.config import TrainConfig

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "llama": "LlamaForCausalLM",
    "opt": "OPTForCausalLM",
    "stablelm": "StableLmForCausalLM",
}


def hf_config(config: TrainConfig, begin: int | None = 0, end: int | None = 0) -> dict[str, Any]:
    """The config.json of the model; `begin` and `end` are the ids of the tokens that begin and end a text.

    Raises InputError for an attribute that is not NAME=VALUE.
    """
    common = {
        "architectures": [ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "bos_token_id": begin,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
    if config.model_type == "gpt2":
        shape: dict[str, Any] = {
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_inner": config.neurons,
            "n_positions": config.context,
        }
    else:
        shape = {
            "hidden_size": config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "ffn_dim" if config.model_type == "opt" else "intermediate_size": config.neurons,
            "max_position_embeddings": config.context,
        }
    families: dict[str, dict[str, Any]] = {
        "gpt2": {},
        "gpt_neox": {"rotary_pct": 1.0, "use_parallel_residual": False},
        "llama": {"num_key_value_heads": config.heads, "rms_norm_eps": 1e-5},
        "opt": {
            "word_embed_proj_dim": config.width,
            "do_layer_norm_before": True,
            "activation_function": "gelu",  # as in gpt_neox, so that the two compare
            "pad_token_id": None,  # transformers does not train the embedding of the default, 1, which text can have
        },
        "stablelm": {"num_key_value_heads": config.heads, "partial_rotary_factor": 1.0},
    }
    return {**common, **shape, **families[config.model_type], **dict(map(_attribute, config.attributes))}


def decoder_config(config: TrainConfig) -> DecoderConfig:
    """The config of the decoder that is trained.

    Raises InputError as `hf_config` does, and for attributes that the family does not support.
    """
    return config_from_hf(hf_config(config))


def _attribute(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"the attribute {text!r} has no value; give NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value

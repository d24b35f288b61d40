"""Tiny random models of each family that between them exercise every switch of the config mappings.

    config, params = decoder("llama-mqa")
    lm = jaxconf.load(build("llama-mqa", tmp_path))

Their weights are drawn in the order of the leaf table, with norm gains and biases off their defaults. `references/{case}.npz` holds
what transformers makes of them (tests/test_parity.py records and checks it).
"""

import functools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxconf.models.checkpoint import save_params
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.leaves import Leaf, nest

REFERENCES = Path(__file__).parent / "references"
LENGTH = 72  # tokens of a prompt

_GPT2 = {"model_type": "gpt2", "vocab_size": 67, "n_positions": 80, "n_embd": 32, "n_layer": 2, "n_head": 4}
_NEOX = {
    "model_type": "gpt_neox",
    "vocab_size": 67,
    "max_position_embeddings": 80,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 56,
}
_LLAMA = {
    "model_type": "llama",
    "vocab_size": 67,
    "max_position_embeddings": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}

_STABLELM = {
    "model_type": "stablelm",
    "vocab_size": 67,
    "max_position_embeddings": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 48,
}

CASES: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2,  # every default: tied, gelu_new, n_inner = 4 n_embd
    "gpt2-unscaled": _GPT2
    | {
        "n_layer": 3,
        "n_inner": 40,
        "activation_function": "relu",
        "layer_norm_epsilon": 0.1,
        "scale_attn_weights": False,
        "tie_word_embeddings": False,
    },
    "gpt2-layer-scaled": _GPT2
    | {
        "n_layer": 3,
        "n_inner": 48,
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-3,
        "scale_attn_by_inverse_layer_idx": True,
        "reorder_and_upcast_attn": True,
    },
    "neox": _NEOX,  # every default: parallel, untied, a quarter of the head rotated, which are 3 entries
    "neox-serial": _NEOX
    | {
        "use_parallel_residual": False,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "hidden_act": "gelu_fast",
        "layer_norm_eps": 0.1,
        "rotary_pct": 1.0,
        "rotary_emb_base": 100,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "neox-linear": _NEOX
    | {
        "num_hidden_layers": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0, "partial_rotary_factor": 0.75},
    },
    "llama": _LLAMA,  # every default: as many key/value heads as query heads, untied, no biases
    "llama-gqa": _LLAMA
    | {
        "num_key_value_heads": 2,
        "attention_bias": True,
        "mlp_bias": True,
        "hidden_act": "gelu",
        "rms_norm_eps": 0.1,
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
    },
    "llama-mqa": _LLAMA
    | {
        "num_key_value_heads": 1,
        "head_dim": 12,
        "tie_word_embeddings": True,
        "rope_theta": 5000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "llama3": _LLAMA
    | {
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "attention_bias": True,
        "hidden_act": "swish",
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "low_freq_factor": 0.5,
            "high_freq_factor": 8.0,
            "original_max_position_embeddings": 48,
        },
    },
    "stablelm": _STABLELM,  # every default: untied, a quarter of the head rotated
    "stablelm-gqa": _STABLELM
    | {
        "num_key_value_heads": 2,
        "use_qkv_bias": True,
        "tie_word_embeddings": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 0.1,
        "rope_theta": 1000.0,
        "partial_rotary_factor": 0.5,
    },
    "stablelm-parallel": _STABLELM | {"use_parallel_residual": True, "num_key_value_heads": 2, "num_hidden_layers": 3},
    "mistral": _LLAMA
    | {
        "model_type": "mistral",
        "num_key_value_heads": 2,
        "head_dim": 12,
        "sliding_window": 24,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
    },
    "mistral-open": _LLAMA | {"model_type": "mistral", "num_key_value_heads": 4, "sliding_window": None, "tie_word_embeddings": True},
    "qwen2": _LLAMA | {"model_type": "qwen2", "num_key_value_heads": 2, "sliding_window": 8, "layer_types": None, "rope_theta": 1000000.0},
    "qwen2-window": _LLAMA
    | {
        "model_type": "qwen2",
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "use_sliding_window": True,
        "sliding_window": 20,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    },
    "qwen3": _LLAMA | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 12, "attention_bias": False, "rms_norm_eps": 0.1},
    "qwen3-window": _LLAMA
    | {
        "model_type": "qwen3",
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "smollm3": _LLAMA | {"model_type": "smollm3", "pad_token_id": None, "num_hidden_layers": 5, "num_key_value_heads": 2},
    "smollm3-window": _LLAMA
    | {
        "model_type": "smollm3",
        "pad_token_id": None,
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "no_rope_layers": [0, 1, 0],
        "use_sliding_window": True,
        "sliding_window": 30,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
    },
    "granite": _LLAMA
    | {
        "model_type": "granite",
        "num_key_value_heads": 2,
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.4,
        "logits_scaling": 2.5,
        "tie_word_embeddings": True,
    },
    "granite-bias": _LLAMA | {"model_type": "granite", "attention_bias": True, "mlp_bias": True},
    "olmo": _LLAMA | {"model_type": "olmo", "num_key_value_heads": 2, "clip_qkv": 0.7},
    "olmo-bias": _LLAMA | {"model_type": "olmo", "attention_bias": True, "tie_word_embeddings": True, "num_hidden_layers": 3},
    "gemma": _LLAMA | {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 12, "hidden_activation": None},
    "gemma-bias": _LLAMA
    | {"model_type": "gemma", "num_key_value_heads": 4, "head_dim": 8, "attention_bias": True, "tie_word_embeddings": False},
    "cohere": _LLAMA | {"model_type": "cohere", "num_key_value_heads": 2, "layer_norm_eps": 1e-3, "logit_scale": 0.4},
    "cohere-bias": _LLAMA
    | {"model_type": "cohere", "attention_bias": True, "logit_scale": 0.7, "tie_word_embeddings": False, "num_hidden_layers": 3},
    "starcoder2": _LLAMA | {"model_type": "starcoder2", "num_key_value_heads": 2, "sliding_window": 24, "norm_epsilon": 0.1},
    "starcoder2-bare": _LLAMA
    | {"model_type": "starcoder2", "num_key_value_heads": 4, "use_bias": False, "tie_word_embeddings": False, "hidden_act": "gelu"},
    "phi": _LLAMA | {"model_type": "phi", "num_key_value_heads": 4, "layer_norm_eps": 1e-3},
    "phi-gqa": _LLAMA
    | {"model_type": "phi", "num_key_value_heads": 2, "partial_rotary_factor": 0.25, "num_hidden_layers": 3, "hidden_act": "relu"},
}


@functools.cache
def decoder(name: str) -> tuple[DecoderConfig, Params]:
    """A case's config and its parameters as numpy arrays."""
    config = config_from_hf(CASES[name])
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))

    def draw(leaf: Leaf) -> np.ndarray:
        return ((leaf.init == "ones") + 0.25 * rng.standard_normal(leaf.shape(config))).astype(np.float32)

    return config, nest((leaf.path, draw(leaf)) for leaf in leaves(config))


def build(name: str, folder: Path) -> Path:
    """Writes the case's config.json and model.safetensors into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CASES[name]))
    save_params(*decoder(name), folder / "model.safetensors")
    return folder


def prompt(vocab_size: int) -> np.ndarray:
    """Token ids, int32 [1, LENGTH]."""
    rng = np.random.Generator(np.random.PCG64(LENGTH))
    return rng.integers(vocab_size, size=(1, LENGTH), dtype=np.int32)

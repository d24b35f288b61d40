"""config.json of the tiny random models of `cases`: families of 2025, and older ones that came with them."""

from typing import Any

_SIZES = {
    "vocab_size": 67,
    "max_position_embeddings": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_WINDOWED = ["sliding_attention", "full_attention"]
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "attention_factor": 1.3}
_CODEGEN = {"model_type": "codegen", "vocab_size": 67, "n_positions": 80, "n_embd": 32, "n_layer": 2, "n_head": 4}
_MPT = {"model_type": "mpt", "vocab_size": 67, "max_seq_len": 80, "d_model": 32, "n_layers": 2, "n_heads": 4}
_XGLM = {"model_type": "xglm", "vocab_size": 67, "max_position_embeddings": 80, "d_model": 32, "num_layers": 2}
_EYE = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 8,
    "patch_size": 4,
}

RECENT: dict[str, dict[str, Any]] = {
    "olmo3": _SIZES
    | {
        "model_type": "olmo3",
        "pad_token_id": None,
        "num_hidden_layers": 5,
        "num_key_value_heads": 2,
        "sliding_window": 16,
        "rope_theta": 500000.0,
        "rope_scaling": _YARN,
    },
    "olmo3-bias": _SIZES
    | {
        "model_type": "olmo3",
        "pad_token_id": None,
        "attention_bias": True,
        "layer_types": _WINDOWED,
        "sliding_window": 24,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 300.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
        },
        "rms_norm_eps": 0.1,
        "tie_word_embeddings": True,
    },
    "cohere2": _SIZES
    | {
        "model_type": "cohere2",
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "sliding_window": 16,
        "sliding_window_pattern": 3,
        "rope_theta": 1000.0,
        "layer_norm_eps": 1e-3,
        "logit_scale": 0.4,
    },
    "cohere2-bias": _SIZES
    | {
        "model_type": "cohere2",
        "attention_bias": True,
        "layer_types": _WINDOWED,
        "sliding_window": 24,
        "logit_scale": 0.7,
        "tie_word_embeddings": False,
    },
    "cohere2-no-positions": _SIZES
    | {"model_type": "cohere2", "sliding_window": 16, "layer_types": ["full_attention"] * 2, "logit_scale": 1.0},
    "glm4": _SIZES | {"model_type": "glm4", "pad_token_id": None, "head_dim": 12, "rms_norm_eps": 1e-3},
    "glm4-bare": _SIZES
    | {
        "model_type": "glm4",
        "pad_token_id": None,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "attention_bias": False,
        "partial_rotary_factor": 1.0,
        "rope_theta": 100.0,
        "tie_word_embeddings": True,
    },
    "exaone4": _SIZES
    | {
        "model_type": "exaone4",
        "num_hidden_layers": 5,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "sliding_window": 16,
        "sliding_window_pattern": 3,
        "rms_norm_eps": 0.1,
    },
    "exaone4-open": _SIZES
    | {
        "model_type": "exaone4",
        "num_key_value_heads": 4,
        "sliding_window": None,
        "layer_types": ["full_attention"] * 2,
        "rope_theta": 500.0,
        "tie_word_embeddings": True,
    },
    "seed_oss": _SIZES | {"model_type": "seed_oss", "num_key_value_heads": 2, "head_dim": 12, "rms_norm_eps": 0.1},
    "seed_oss-bias": _SIZES
    | {
        "model_type": "seed_oss",
        "num_key_value_heads": 4,
        "head_dim": None,
        "attention_bias": False,
        "attention_out_bias": True,
        "mlp_bias": True,
        "rope_theta": 500.0,
        "tie_word_embeddings": True,
    },
    "helium": _SIZES | {"model_type": "helium", "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-3},
    "helium-bias": _SIZES
    | {
        "model_type": "helium",
        "num_key_value_heads": 4,
        "head_dim": 8,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_theta": 500.0,
        "tie_word_embeddings": True,
    },
    "nemotron": _SIZES | {"model_type": "nemotron", "num_key_value_heads": 2, "norm_eps": 1e-3},
    "nemotron-bias": _SIZES
    | {
        "model_type": "nemotron",
        "num_key_value_heads": 4,
        "head_dim": 12,
        "hidden_act": "silu",
        "partial_rotary_factor": 1.0,
        "rope_theta": 500.0,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "gemma3-vision": {
        "model_type": "gemma3",
        "image_token_index": 66,
        "mm_tokens_per_image": 4,
        "text_config": _SIZES
        | {
            "model_type": "gemma3_text",
            "num_key_value_heads": 2,
            "num_hidden_layers": 3,
            "head_dim": 12,
            "sliding_window": 16,
            "sliding_window_pattern": 2,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        "vision_config": _EYE,
    },
    "ministral3": _SIZES
    | {
        "model_type": "ministral3",
        "pad_token_id": None,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "rms_norm_eps": 0.1,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 20,
            "beta_fast": 8.0,
            "beta_slow": 0.5,
            "mscale": 1.0,
            "mscale_all_dim": 0.5,
            "llama_4_scaling_beta": 0.7,
        },
    },
    "ministral3-window": _SIZES
    | {
        "model_type": "ministral3",
        "pad_token_id": None,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "sliding_window": 24,
        "rope_parameters": _YARN | {"rope_theta": 500.0, "llama_4_scaling_beta": 2.0},
        "tie_word_embeddings": True,
    },
    "mistral3": {
        "model_type": "mistral3",
        "tie_word_embeddings": False,
        "image_token_index": 66,
        "text_config": _SIZES
        | {
            "model_type": "mistral",
            "num_key_value_heads": 2,
            "head_dim": 12,
            "rope_theta": 1e6,
            "sliding_window": None,
        },
        "vision_config": {**_EYE, "model_type": "pixtral", "head_dim": 8},
    },
    "mistral3-ministral3": {
        "model_type": "mistral3",
        "image_token_index": 66,
        "text_config": _SIZES
        | {
            "model_type": "ministral3",
            "pad_token_id": None,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "tie_word_embeddings": True,
        },
        "vision_config": {**_EYE, "model_type": "pixtral", "head_dim": 8},
    },
    "persimmon": _SIZES | {"model_type": "persimmon", "layer_norm_eps": 1e-3, "rope_theta": 25000.0},
    "persimmon-bare": _SIZES
    | {
        "model_type": "persimmon",
        "qk_layernorm": False,
        "hidden_act": "gelu",
        "partial_rotary_factor": 0.25,
        "tie_word_embeddings": True,
    },
    "codegen": _CODEGEN | {"rotary_dim": 4},
    "codegen-tied": _CODEGEN
    | {
        "n_embd": 48,
        "n_head": 8,
        "rotary_dim": 6,
        "n_inner": 40,
        "activation_function": "gelu",
        "layer_norm_epsilon": 0.1,
        "tie_word_embeddings": True,
    },
    "mpt": _MPT | {"attn_config": {"clip_qkv": 0.7}, "layer_norm_epsilon": 0.1},
    "mpt-six-heads": _MPT
    | {"d_model": 36, "n_heads": 6, "attn_config": {"softmax_scale": 0.2}, "tie_word_embeddings": False},
    "xglm": _XGLM | {"attention_heads": 4, "ffn_dim": 48},
    "xglm-unscaled": _XGLM
    | {
        "d_model": 33,
        "attention_heads": 3,
        "ffn_dim": 40,
        "scale_embedding": False,
        "activation_function": "relu",
        "tie_word_embeddings": False,
    },
}

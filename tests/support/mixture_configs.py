"""config.json of the tiny random models of `cases` that are mixtures of experts."""

from typing import Any

_MIXTURE = {
    "vocab_size": 67,
    "max_position_embeddings": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": _MIXTURE | {"model_type": "mixtral", "intermediate_size": 12, "num_local_experts": 4},
    "mixtral-window": _MIXTURE
    | {
        "model_type": "mixtral",
        "intermediate_size": 10,
        "num_local_experts": 3,
        "num_experts_per_tok": 1,
        "head_dim": 12,
        "sliding_window": 20,
        "tie_word_embeddings": True,
        "rope_theta": 500.0,
    },
    "olmoe": _MIXTURE
    | {
        "model_type": "olmoe",
        "num_key_value_heads": 4,
        "intermediate_size": 8,
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "eos_token_id": 0,
    },
    "olmoe-clipped": _MIXTURE
    | {
        "model_type": "olmoe",
        "intermediate_size": 9,
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "clip_qkv": 0.6,
        "norm_topk_prob": True,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
    },
    "qwen2_moe": _MIXTURE  # the rule by which layers have windows differs from Qwen2's
    | {
        "model_type": "qwen2_moe",
        "num_hidden_layers": 3,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "intermediate_size": 48,  # of plain MLPs, which no layer has
        "moe_intermediate_size": 10,
        "shared_expert_intermediate_size": 14,
        "use_sliding_window": True,
        "sliding_window": 20,
        "max_window_layers": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "qwen2_moe-normalized": _MIXTURE
    | {
        "model_type": "qwen2_moe",
        "num_experts": 5,
        "num_experts_per_tok": 3,
        "intermediate_size": 48,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 6,
        "norm_topk_prob": True,
        "qkv_bias": False,
        "sliding_window": 20,  # without use_sliding_window it changes nothing
    },
    "gpt_oss": _MIXTURE
    | {
        "model_type": "gpt_oss",
        "num_hidden_layers": 3,
        "head_dim": 8,
        "intermediate_size": 10,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 20,
        "swiglu_limit": 0.8,
        "rope_theta": 150000,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 24,
        },
    },
    "gpt_oss-bare": _MIXTURE  # YaRN by default
    | {
        "model_type": "gpt_oss",
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "num_local_experts": 3,
        "num_experts_per_tok": 1,
        "attention_bias": False,
        "layer_types": ["full_attention", "sliding_attention"],
        "sliding_window": 10,
        "swiglu_alpha": 1.1,
        "swiglu_limit": 1.5,
        "max_position_embeddings": 131072,
    },
    "qwen3_moe": _MIXTURE
    | {
        "model_type": "qwen3_moe",
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "intermediate_size": 48,
        "moe_intermediate_size": 8,
        "head_dim": 12,
        "norm_topk_prob": True,
        "max_window_layers": 2,
    },
    "qwen3_moe-window": _MIXTURE
    | {
        "model_type": "qwen3_moe",
        "num_local_experts": 4,  # the name that transformers 5 writes
        "num_experts_per_tok": 3,
        "intermediate_size": 48,  # of plain MLPs, which no layer has
        "moe_intermediate_size": 10,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 20,
        "tie_word_embeddings": True,
    },
}

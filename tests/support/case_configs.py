"""config.json of the tiny random models of `cases`; those of later families are in `recent_case_configs`."""

from typing import Any

from mixture_configs import MIXTURES

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

_PHI3_ROPE = {
    "model_type": "phi3",
    "pad_token_id": None,
    "num_key_value_heads": 2,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.2, 2.0, 2.5], "long_factor": [1.5, 3.0, 4.0, 8.0]},
}
_GPT_NEO = {
    "model_type": "gpt_neo",
    "vocab_size": 67,
    "max_position_embeddings": 80,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
}
_GPTJ = {"model_type": "gptj", "vocab_size": 67, "n_positions": 80, "n_embd": 32, "n_layer": 2, "n_head": 4}
_OPT = {
    "model_type": "opt",
    "vocab_size": 67,
    "max_position_embeddings": 80,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 48,
}
_FALCON = {
    "model_type": "falcon",
    "vocab_size": 67,
    "max_position_embeddings": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
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
    "gpt2-norm-free": _GPT2 | {"layer_norm_epsilon": 1e12},  # its norms divide by 1e6, and their gains make up for it
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
    "mistral-open": _LLAMA
    | {"model_type": "mistral", "num_key_value_heads": 4, "sliding_window": None, "tie_word_embeddings": True},
    "qwen2": _LLAMA
    | {
        "model_type": "qwen2",
        "num_key_value_heads": 2,
        "sliding_window": 8,
        "layer_types": None,
        "rope_theta": 1000000.0,
    },
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
    "qwen3": _LLAMA
    | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 12, "attention_bias": False, "rms_norm_eps": 0.1},
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
    "smollm3": _LLAMA
    | {"model_type": "smollm3", "pad_token_id": None, "num_hidden_layers": 5, "num_key_value_heads": 2},
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
    "olmo-bias": _LLAMA
    | {"model_type": "olmo", "attention_bias": True, "tie_word_embeddings": True, "num_hidden_layers": 3},
    "gemma": _LLAMA | {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 12, "hidden_activation": None},
    "gemma-bias": _LLAMA
    | {
        "model_type": "gemma",
        "num_key_value_heads": 4,
        "head_dim": 8,
        "hidden_act": "gelu",  # as in the first releases, which mean the tanh form
        "attention_bias": True,
        "tie_word_embeddings": False,
    },
    "cohere": _LLAMA | {"model_type": "cohere", "num_key_value_heads": 2, "layer_norm_eps": 1e-3, "logit_scale": 0.4},
    "cohere-bias": _LLAMA
    | {
        "model_type": "cohere",
        "attention_bias": True,
        "logit_scale": 0.7,
        "tie_word_embeddings": False,
        "num_hidden_layers": 3,
    },
    "starcoder2": _LLAMA
    | {"model_type": "starcoder2", "num_key_value_heads": 2, "sliding_window": 24, "norm_epsilon": 0.1},
    "starcoder2-bare": _LLAMA
    | {
        "model_type": "starcoder2",
        "num_key_value_heads": 4,
        "use_bias": False,
        "tie_word_embeddings": False,
        "hidden_act": "gelu",
    },
    "phi": _LLAMA | {"model_type": "phi", "num_key_value_heads": 4, "layer_norm_eps": 1e-3},
    "phi-gqa": _LLAMA
    | {
        "model_type": "phi",
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.25,
        "num_hidden_layers": 3,
        "hidden_act": "relu",
    },
    "llama-yarn": _LLAMA
    | {
        "num_key_value_heads": 2,
        "rope_theta": 1000.0,
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 24,
            "beta_fast": 8.0,
            "beta_slow": 0.5,
            "attention_factor": 1.3,
        },
    },
    "llama-yarn-ratio": _LLAMA
    | {
        "num_key_value_heads": 4,
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 100.0,
            "factor": 6.0,
            "original_max_position_embeddings": 16,
            "mscale": 2.0,
            "mscale_all_dim": 0.5,
            "truncate": False,
        },
    },
    "llama-dynamic": _LLAMA | {"num_key_value_heads": 4, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "llama-longrope": _LLAMA
    | {
        "num_key_value_heads": 4,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 500.0,
            "factor": 3.0,
            "attention_factor": 0.8,
            "short_factor": [1.0, 1.5, 2.0, 3.0],
            "long_factor": [2.0, 3.0, 4.0, 6.0],
            "original_max_position_embeddings": 32,
        },
    },
    "stablelm-qk-norm": _STABLELM
    | {"qk_layernorm": True, "num_key_value_heads": 2, "use_parallel_residual": True, "use_qkv_bias": True},
    "cohere-qk-norm": _LLAMA
    | {"model_type": "cohere", "use_qk_norm": True, "num_key_value_heads": 2, "rope_theta": 1000.0, "logit_scale": 1.0},
    "phi-qk-norm": _LLAMA
    | {"model_type": "phi", "qk_layernorm": True, "num_key_value_heads": 2, "tie_word_embeddings": False},
    "phi3": _LLAMA
    | {"model_type": "phi3", "pad_token_id": None, "num_key_value_heads": 2, "sliding_window": 20, "rms_norm_eps": 0.1},
    "phi3-short": _LLAMA | _PHI3_ROPE | {"original_max_position_embeddings": 80},
    "phi3-long": _LLAMA
    | _PHI3_ROPE
    | {"original_max_position_embeddings": 48, "partial_rotary_factor": 0.5, "num_attention_heads": 2},
    "olmo2": _LLAMA | {"model_type": "olmo2", "num_key_value_heads": 2, "rms_norm_eps": 0.1},
    "olmo2-bias": _LLAMA
    | {
        "model_type": "olmo2",
        "num_key_value_heads": 4,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "num_hidden_layers": 3,
    },
    "gemma2": _LLAMA
    | {
        "model_type": "gemma2",
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
        "head_dim": 12,
        "query_pre_attn_scalar": 20,
        "sliding_window": 16,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma2-open": _LLAMA
    | {
        "model_type": "gemma2",
        "num_key_value_heads": 4,
        "head_dim": 8,
        "attention_bias": True,
        "layer_types": ["full_attention", "full_attention"],
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "tie_word_embeddings": False,
    },
    "gemma3": _LLAMA
    | {
        "model_type": "gemma3_text",
        "num_key_value_heads": 2,
        "num_hidden_layers": 4,
        "head_dim": 12,
        "query_pre_attn_scalar": 20,
        "sliding_window": 16,
        "sliding_window_pattern": 3,
        "rope_theta": 5000.0,
        "rope_local_base_freq": 50.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "gemma3-capped": _LLAMA
    | {
        "model_type": "gemma3_text",
        "num_key_value_heads": 4,
        "num_hidden_layers": 3,
        "head_dim": 8,
        "attention_bias": True,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 24,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 300.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
        },
        "attn_logit_softcapping": 1.5,
        "final_logit_softcapping": 4.0,
        "tie_word_embeddings": False,
    },
    "gpt_neo": _GPT_NEO | {"window_size": 20},
    "gpt_neo-local": _GPT_NEO
    | {
        "num_layers": 3,
        "attention_types": [[["local"], 1], [["global", "local"], 1]],
        "window_size": 9,
        "intermediate_size": 40,
        "activation_function": "relu",
        "layer_norm_epsilon": 0.1,
        "tie_word_embeddings": False,
    },
    "gptj": _GPTJ | {"rotary_dim": 4},
    "gptj-tied": _GPTJ
    | {
        "rotary_dim": 8,
        "n_inner": 40,
        "n_layer": 3,
        "tie_word_embeddings": True,
        "activation_function": "gelu",
        "layer_norm_epsilon": 0.1,
    },
    "opt": _OPT,
    "opt-no-final-norm": _OPT | {"_remove_final_layer_norm": True},
    "opt-summed": _OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 20, "num_hidden_layers": 3},
    "opt-bare": _OPT
    | {
        "enable_bias": False,
        "layer_norm_elementwise_affine": False,
        "tie_word_embeddings": False,
        "activation_function": "gelu",
        "word_embed_proj_dim": 40,
    },
    "opt-summed-bare": _OPT
    | {
        "do_layer_norm_before": False,
        "layer_norm_elementwise_affine": False,
        "ffn_dim": 40,
        "_remove_final_layer_norm": True,  # changes nothing here
    },
    "bloom": {"model_type": "bloom", "vocab_size": 67, "hidden_size": 32, "n_layer": 2, "n_head": 4, "seq_length": 96},
    "bloom-six-heads": {
        "model_type": "bloom",
        "vocab_size": 67,
        "hidden_size": 36,
        "n_layer": 3,
        "n_head": 6,
        "layer_norm_epsilon": 0.1,
        "tie_word_embeddings": False,
    },
    "falcon": _FALCON,  # as the 7B
    "falcon-grouped": _FALCON  # as the 40B
    | {
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
        "multi_query": False,
        "rope_theta": 500.0,
        "activation": "relu",
    },
    "falcon-one-norm": _FALCON  # as the 11B
    | {
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
        "num_ln_in_parallel_attn": 1,
        "ffn_hidden_size": 40,
        "tie_word_embeddings": False,
        "num_hidden_layers": 3,
    },
    "falcon-alibi": _FALCON  # as RW-1B
    | {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True, "layer_norm_epsilon": 0.1},
    "falcon-alibi-parallel": _FALCON | {"alibi": True, "hidden_size": 36, "num_attention_heads": 6},
    "gpt_bigcode": _GPT2 | {"model_type": "gpt_bigcode"},
    "gpt_bigcode-heads": _GPT2
    | {
        "model_type": "gpt_bigcode",
        "multi_query": False,
        "scale_attn_weights": False,
        "n_inner": 40,
        "n_layer": 3,
        "activation_function": "gelu",
        "layer_norm_epsilon": 0.1,
        "tie_word_embeddings": False,
    },
    **MIXTURES,
}


# The cases whose outputs `references/` holds, for tests without torch: the first of each family, and what the others
# add.

"""The config.json of published models, as they lie on the hub, and how many parameters each model is known to have."""

import math

import pytest

from jaxconf.models.families import ALIASES, FAMILIES, config_from_hf, leaves

# What is left out has the family's default, or is bookkeeping that every config.json holds.
# fmt: off
PUBLISHED: dict[str, tuple[int, dict]] = {
    "openai-community/gpt2": (
        124_439_808,
        {"model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257,
         "summary_type": "cls_index", "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}},
    ),
    "EleutherAI/pythia-410m": (
        405_334_016,
        {"model_type": "gpt_neox", "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
         "num_hidden_layers": 24, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False, "use_parallel_residual": True,
         "vocab_size": 50304},
    ),
    "EleutherAI/gpt-neo-125m": (
        125_198_592,
        {"model_type": "gpt_neo", "attention_layers": ["global", "local"] * 6, "attention_types": [[["global", "local"], 6]], "embed_dropout": 0,
         "hidden_size": 768, "intermediate_size": None, "num_heads": 12, "num_layers": 12, "resid_dropout": 0, "vocab_size": 50257, "window_size": 256},
    ),
    "EleutherAI/gpt-j-6b": (
        6_050_882_784,
        {"model_type": "gptj", "n_embd": 4096, "n_head": 16, "n_inner": None, "n_layer": 28, "n_positions": 2048, "rotary": True, "rotary_dim": 64,
         "scale_attn_weights": True, "summary_use_proj": True, "tie_word_embeddings": False, "vocab_size": 50400},
    ),
    "facebook/opt-125m": (
        125_239_296 - 2 * 768,  # without the two rows of positions that nothing uses
        {"model_type": "opt", "_remove_final_layer_norm": False, "activation_dropout": 0.0, "activation_function": "relu",
         "do_layer_norm_before": True, "dropout": 0.1, "ffn_dim": 3072, "hidden_size": 768, "init_std": 0.02, "layerdrop": 0.0,
         "num_attention_heads": 12, "num_hidden_layers": 12, "prefix": "</s>", "vocab_size": 50272, "word_embed_proj_dim": 768},
    ),
    "facebook/opt-350m": (
        331_196_416 - 2 * 1024,
        {"model_type": "opt", "do_layer_norm_before": False, "ffn_dim": 4096, "hidden_size": 1024, "num_attention_heads": 16,
         "num_hidden_layers": 24, "vocab_size": 50272, "word_embed_proj_dim": 512},
    ),
    "bigscience/bloom-560m": (
        559_214_592,
        {"model_type": "bloom", "apply_residual_connection_post_layernorm": False, "attention_softmax_in_fp32": True,
         "bias_dropout_fusion": True, "masked_softmax_fusion": True, "n_embed": 1024, "n_inner": None, "n_layer": 24, "num_attention_heads": 16,
         "offset_alibi": 100, "pretraining_tp": 1, "seq_length": 2048, "skip_bias_add": True, "skip_bias_add_qkv": False, "slow_but_exact": False,
         "unk_token_id": 0, "vocab_size": 250880},
    ),
    "tiiuae/falcon-7b": (
        6_921_720_704,
        {"model_type": "falcon", "alibi": False, "apply_residual_connection_post_layernorm": False, "auto_map": {"AutoConfig": "x.Y"},
         "bias": False, "hidden_size": 4544, "multi_query": True, "new_decoder_architecture": False, "num_attention_heads": 71,
         "num_hidden_layers": 32, "parallel_attn": True, "vocab_size": 65024},
    ),
    "tiiuae/falcon-40b": (
        41_303_293_952,
        {"model_type": "falcon", "alibi": False, "bias": False, "hidden_size": 8192, "new_decoder_architecture": True,
         "num_attention_heads": 128, "num_hidden_layers": 60, "num_kv_heads": 8, "parallel_attn": True, "vocab_size": 65024},
    ),
    "microsoft/phi-2": (
        2_779_683_840,
        {"model_type": "phi", "embd_pdrop": 0.0, "hidden_act": "gelu_new", "hidden_size": 2560, "intermediate_size": 10240,
         "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm": False,
         "rope_scaling": None, "vocab_size": 51200},
    ),
    "microsoft/Phi-3-mini-4k-instruct": (
        3_821_079_552,
        {"model_type": "phi3", "attention_bias": False, "auto_map": {"AutoConfig": "x.Y"}, "hidden_size": 3072, "intermediate_size": 8192,
         "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
         "original_max_position_embeddings": 4096, "rope_scaling": None, "sliding_window": 2047, "vocab_size": 32064},
    ),
    "stabilityai/stablelm-2-1_6b": (
        1_644_515_328,
        {"model_type": "stablelm", "hidden_size": 2048, "intermediate_size": 5632, "layer_norm_eps": 1e-05, "num_attention_heads": 32,
         "num_hidden_layers": 24, "num_key_value_heads": 32, "partial_rotary_factor": 0.25, "use_qkv_bias": True, "vocab_size": 100352},
    ),
    "meta-llama/Llama-2-7b-hf": (
        6_738_415_616,
        {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32,
         "num_key_value_heads": 32, "pretraining_tp": 1, "rope_scaling": None, "vocab_size": 32000},
    ),
    "meta-llama/Llama-3.1-8B": (
        8_030_261_248,
        {"model_type": "llama", "attention_bias": False, "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
         "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rope_theta": 500000.0,
         "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
                          "rope_type": "llama3"}, "vocab_size": 128256},
    ),
    "HuggingFaceTB/SmolLM-135M": (
        134_515_008,
        {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "is_llama_config": True, "num_attention_heads": 9,
         "num_hidden_layers": 30, "num_key_value_heads": 3, "rope_interleaved": False, "tie_word_embeddings": True, "vocab_size": 49152},
    ),
    "mistralai/Mistral-7B-v0.1": (
        7_241_732_096,
        {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
         "num_hidden_layers": 32, "num_key_value_heads": 8, "sliding_window": 4096, "vocab_size": 32000},
    ),
    "Qwen/Qwen2.5-0.5B": (
        494_032_768,
        {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24,
         "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rope_theta": 1000000.0, "sliding_window": 32768,
         "tie_word_embeddings": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936},
    ),
    "Qwen/Qwen3-0.6B": (
        596_049_920,
        {"model_type": "qwen3", "head_dim": 128, "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
         "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "sliding_window": None,
         "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936},
    ),
    "allenai/OLMo-1B-hf": (
        1_176_764_416,
        {"model_type": "olmo", "clip_qkv": None, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16,
         "num_hidden_layers": 16, "num_key_value_heads": 16, "tie_word_embeddings": True, "vocab_size": 50304},
    ),
    "allenai/OLMo-2-1124-7B": (
        7_298_617_344,
        {"model_type": "olmo2", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096, "num_attention_heads": 32,
         "num_hidden_layers": 32, "num_key_value_heads": 32, "rope_theta": 500000, "tie_word_embeddings": False, "vocab_size": 100352},
    ),
    "google/gemma-2b": (
        2_506_172_416,
        {"model_type": "gemma", "head_dim": 256, "hidden_act": "gelu", "hidden_size": 2048, "intermediate_size": 16384,
         "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1, "vocab_size": 256000},
    ),
    "google/gemma-2-2b": (
        2_614_341_888,
        {"model_type": "gemma2", "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid", "final_logit_softcapping": 30.0, "head_dim": 256,
         "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
         "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
         "vocab_size": 256000},
    ),
    "google/gemma-3-1b-pt": (
        999_885_952,
        {"model_type": "gemma3_text", "attn_logit_softcapping": None, "cache_implementation": "hybrid", "final_logit_softcapping": None,
         "head_dim": 256, "hidden_size": 1152, "intermediate_size": 6912, "max_position_embeddings": 32768, "num_attention_heads": 4,
         "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000, "rope_scaling": None,
         "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144},
    ),
    "bigcode/starcoderbase": (
        15_517_456_384,
        {"model_type": "gpt_bigcode", "activation_function": "gelu", "attention_softmax_in_fp32": True, "inference_runner": 0,
         "max_batch_size": None, "max_sequence_length": None, "multi_query": True, "n_embd": 6144, "n_head": 48, "n_inner": 24576, "n_layer": 40,
         "n_positions": 8192, "pad_key_length": True, "pre_allocate_kv_cache": False, "scale_attention_softmax_in_fp32": True,
         "scale_attn_weights": True, "summary_use_proj": True, "validate_runner_input": True, "vocab_size": 49152},
    ),
    "CohereForAI/c4ai-command-r-v01": (
        34_980_831_232,
        {"model_type": "cohere", "hidden_size": 8192, "intermediate_size": 22528, "layer_norm_eps": 1e-05, "logit_scale": 0.0625,
         "max_position_embeddings": 131072, "model_max_length": 131072, "num_attention_heads": 64, "num_hidden_layers": 40,
         "num_key_value_heads": 64, "rope_theta": 8000000.0, "use_qk_norm": False, "vocab_size": 256000},
    ),
    "bigcode/starcoder2-3b": (
        3_030_371_328,
        {"model_type": "starcoder2", "activation_function": "gelu_pytorch_tanh", "attention_softmax_in_fp32": True, "embedding_dropout": 0.0,
         "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072, "intermediate_size": 12288, "layer_norm_epsilon": 1e-05,
         "max_position_embeddings": 16384, "mlp_type": "default", "norm_epsilon": 1e-05, "norm_type": "layer_norm", "num_attention_heads": 24,
         "num_hidden_layers": 30, "num_key_value_heads": 2, "rope_theta": 999999.4420358813, "scale_attn_weights": True, "sliding_window": 4096,
         "use_bias": True, "vocab_size": 49152},
    ),
    "HuggingFaceTB/SmolLM3-3B": (
        3_075_098_624,
        {"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "layer_types": ["full_attention"] * 36,
         "max_position_embeddings": 65536, "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0] * 9, "num_attention_heads": 16,
         "num_hidden_layers": 36, "num_key_value_heads": 4, "rope_theta": 5000000.0, "sliding_window": None, "use_sliding_window": False,
         "vocab_size": 128256},
    ),
    "ibm-granite/granite-3.0-2b-base": (
        2_533_531_648,
        {"model_type": "granite", "attention_bias": False, "attention_multiplier": 0.015625, "embedding_multiplier": 12.0, "hidden_size": 2048,
         "intermediate_size": 8192, "logits_scaling": 8.0, "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 40,
         "num_key_value_heads": 8, "residual_multiplier": 0.22, "tie_word_embeddings": True, "vocab_size": 49155},
    ),
    "allenai/Olmo-3-1025-7B": (
        7_298_011_136,
        {"model_type": "olmo3", "attention_bias": False, "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 65536,
         "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 8, "num_attention_heads": 32, "num_hidden_layers": 32,
         "num_key_value_heads": 32, "rms_norm_eps": 1e-06, "rope_theta": 500000, "sliding_window": 4096, "vocab_size": 100278,
         "rope_scaling": {"attention_factor": 1.2079441541679836, "beta_fast": 32, "beta_slow": 1, "factor": 8.0,
                          "original_max_position_embeddings": 8192, "rope_type": "yarn"}},
    ),
    "CohereLabs/c4ai-command-r7b-12-2024": (
        8_028_033_024,
        {"model_type": "cohere2", "attention_bias": False, "cache_implementation": "hybrid", "head_dim": 128, "hidden_size": 4096,
         "intermediate_size": 14336, "layer_norm_eps": 1e-05, "layer_switch": 4, "logit_scale": 0.25, "max_position_embeddings": 8192,
         "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "order_of_interleaved_layers": "local_attn_first",
         "position_embedding_type": "rope_gptj", "rope_scaling": None, "rope_theta": 50000, "rotary_pct": 1.0, "sliding_window": 4096,
         "sliding_window_pattern": 4, "use_embedding_sharing": True, "use_gated_activation": True, "use_parallel_block": True,
         "use_parallel_embedding": False, "use_qk_norm": False, "vocab_size": 256000},
    ),
    "zai-org/GLM-4-9B-0414": (
        9_400_279_040,
        {"model_type": "glm4", "attention_bias": True, "head_dim": 128, "hidden_size": 4096, "intermediate_size": 13696,
         "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 2,
         "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "vocab_size": 151552},
    ),
    "LGAI-EXAONE/EXAONE-4.0-1.2B": (
        1_279_391_488,
        {"model_type": "exaone4", "head_dim": 64, "hidden_size": 2048, "intermediate_size": 4096, "max_position_embeddings": 65536,
         "layer_types": ["full_attention"] * 30, "num_attention_heads": 32, "num_hidden_layers": 30, "num_key_value_heads": 8,
         "rope_theta": 1000000, "sliding_window": None, "sliding_window_pattern": None, "tie_word_embeddings": True, "vocab_size": 102400,
         "rope_scaling": {"factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
                          "rope_type": "llama3"}},
    ),
    "ByteDance-Seed/Seed-OSS-36B-Base": (
        36_151_104_512,
        {"model_type": "seed_oss", "attention_bias": True, "attention_out_bias": False, "head_dim": 128, "hidden_size": 5120,
         "intermediate_size": 27648, "max_position_embeddings": 524288, "mlp_bias": False, "num_attention_heads": 80, "num_hidden_layers": 64,
         "num_key_value_heads": 8, "residual_dropout": 0.1, "rope_scaling": {"rope_type": "default"}, "rope_theta": 10000000.0,
         "vocab_size": 155136},
    ),
    "kyutai/helium-1-preview-2b": (
        2_172_643_840,
        {"model_type": "helium", "attention_bias": False, "head_dim": 128, "hidden_size": 2560, "intermediate_size": 7040, "mlp_bias": False,
         "num_attention_heads": 20, "num_hidden_layers": 24, "num_key_value_heads": 20, "rms_norm_eps": 1e-08, "rope_theta": 100000.0,
         "vocab_size": 48000},
    ),
    "nvidia/Minitron-4B-Base": (
        4_190_509_056,
        {"model_type": "nemotron", "attention_bias": False, "head_dim": 128, "hidden_act": "relu2", "hidden_size": 3072,
         "intermediate_size": 9216, "mlp_bias": False, "norm_eps": 1e-05, "num_attention_heads": 24, "num_hidden_layers": 32,
         "num_key_value_heads": 8, "partial_rotary_factor": 0.5, "rope_theta": 10000.0, "vocab_size": 256000},
    ),
    "google/gemma-3-4b-pt": (
        3_880_263_168,  # of the text model
        {"model_type": "gemma3", "boi_token_index": 255999, "eoi_token_index": 256000, "image_token_index": 262144, "mm_tokens_per_image": 256,
         "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
                         "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
         "vision_config": {"hidden_size": 1152, "image_size": 896, "model_type": "siglip_vision_model"}},
    ),
    "mistralai/Mistral-Small-3.1-24B-Base-2503": (
        23_572_403_200,  # of the text model
        {"model_type": "mistral3", "image_token_index": 10, "multimodal_projector_bias": False, "projector_hidden_act": "gelu",
         "spatial_merge_size": 2, "vision_feature_layer": -1, "vision_config": {"model_type": "pixtral"},
         "text_config": {"head_dim": 128, "hidden_size": 5120, "intermediate_size": 32768, "max_position_embeddings": 131072,
                         "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8,
                         "rope_theta": 1000000000.0, "sliding_window": None, "vocab_size": 131072}},
    ),
    "mistralai/Ministral-3-8B-Base-2512, text_config": (
        8_489_553_920,
        {"model_type": "ministral3", "head_dim": 128, "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 262144,
         "num_attention_heads": 32, "num_hidden_layers": 34, "num_key_value_heads": 8, "sliding_window": None, "vocab_size": 131072,
         "rope_parameters": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0, "llama_4_scaling_beta": 0.1, "mscale": 1.0,
                             "mscale_all_dim": 1.0, "original_max_position_embeddings": 16384, "rope_theta": 1000000.0, "rope_type": "yarn",
                             "type": "yarn"}},
    ),
    "stabilityai/stablelm-3b-4e1t": (
        2_795_443_200,
        {"model_type": "stablelm_epoch", "hidden_size": 2560, "intermediate_size": 6912, "max_position_embeddings": 4096, "norm_eps": 1e-05,
         "num_attention_heads": 32, "num_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "rope_pct": 0.25, "rope_theta": 10000,
         "rotary_scaling_factor": 1.0, "vocab_size": 50304},
    ),
    "adept/persimmon-8b-base": (
        9_397_175_296,
        {"model_type": "persimmon", "hidden_act": "relu2", "hidden_size": 4096, "intermediate_size": 16384, "num_attention_heads": 64,
         "max_position_embeddings": 16384, "num_hidden_layers": 36, "num_key_value_heads": 64, "partial_rotary_factor": 0.5,
         "qk_layernorm": True, "rope_theta": 25000.0, "vocab_size": 262144},
    ),
    "Salesforce/codegen-350M-mono": (
        356_712_448,
        {"model_type": "codegen", "n_ctx": 2048, "n_embd": 1024, "n_head": 16, "n_inner": None, "n_layer": 20, "n_positions": 2048,
         "rotary_dim": 32, "scale_attn_weights": True, "summary_use_proj": True, "tie_word_embeddings": False, "vocab_size": 51200},
    ),
    "mosaicml/mpt-7b": (
        6_649_286_656,
        {"model_type": "mpt", "d_model": 4096, "emb_pdrop": 0, "embedding_fraction": 1.0, "expansion_ratio": 4, "init_device": "cpu",
         "init_config": {"name": "kaiming_normal_"}, "learned_pos_emb": True, "logit_scale": None, "max_seq_len": 2048, "n_heads": 32,
         "n_layers": 32, "no_bias": True, "norm_type": "low_precision_layernorm", "resid_pdrop": 0, "verbose": 0, "vocab_size": 50432,
         "tokenizer_name": "EleutherAI/gpt-neox-20b",
         "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "attn_type": "multihead_attention",
                         "attn_uses_sequence_id": False, "clip_qkv": None, "prefix_lm": False, "qk_ln": False, "softmax_scale": None}},
    ),
    "facebook/xglm-564M": (
        564_463_616,
        {"model_type": "xglm", "activation_dropout": 0, "activation_function": "gelu", "attention_heads": 16, "d_model": 1024, "dropout": 0.1,
         "ffn_dim": 4096, "init_std": 0.02, "layerdrop": 0.0, "num_layers": 24, "scale_embedding": True, "vocab_size": 256008},
    ),
    "mistralai/Mixtral-8x7B-v0.1": (
        46_702_792_704,
        {"model_type": "mixtral", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
         "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
         "output_router_logits": False, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "router_aux_loss_coef": 0.02, "sliding_window": None,
         "tie_word_embeddings": False, "vocab_size": 32000},
    ),
    "Qwen/Qwen1.5-MoE-A2.7B": (
        14_315_784_192,
        {"model_type": "qwen2_moe", "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5632,
         "max_position_embeddings": 8192, "max_window_layers": 21, "moe_intermediate_size": 1408, "norm_topk_prob": False,
         "num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
         "output_router_logits": False, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "router_aux_loss_coef": 0.001,
         "shared_expert_intermediate_size": 5632, "sliding_window": 32768, "tie_word_embeddings": False, "use_sliding_window": False,
         "vocab_size": 151936},
    ),
    "Qwen/Qwen3-30B-A3B": (
        30_532_122_624,
        {"model_type": "qwen3_moe", "attention_bias": False, "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu",
         "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
         "moe_intermediate_size": 768, "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
         "num_hidden_layers": 48, "num_key_value_heads": 4, "output_router_logits": False, "rms_norm_eps": 1e-6, "rope_scaling": None,
         "rope_theta": 1e6, "router_aux_loss_coef": 0.001, "sliding_window": None, "tie_word_embeddings": False,
         "use_sliding_window": False, "vocab_size": 151936},
    ),
    "allenai/OLMoE-1B-7B-0924": (
        6_919_161_856,
        {"model_type": "olmoe", "attention_bias": False, "clip_qkv": None, "hidden_act": "silu", "hidden_size": 2048,
         "intermediate_size": 1024, "max_position_embeddings": 4096, "norm_topk_prob": False, "num_attention_heads": 16, "num_experts": 64,
         "num_experts_per_tok": 8, "num_hidden_layers": 16, "num_key_value_heads": 16, "output_router_logits": False,
         "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "router_aux_loss_coef": 0.01, "tie_word_embeddings": False, "vocab_size": 50304},
    ),
    "openai/gpt-oss-20b": (
        20_914_757_184,
        {"model_type": "gpt_oss", "attention_bias": True, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
         "initial_context_length": 4096, "intermediate_size": 2880, "layer_types": ["sliding_attention", "full_attention"] * 12,
         "max_position_embeddings": 131072, "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24,
         "num_key_value_heads": 8, "num_local_experts": 32, "output_router_logits": False, "quantization_config": {"quant_method": "mxfp4"},
         "rms_norm_eps": 1e-5, "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
         "tie_word_embeddings": False, "vocab_size": 201088,
         "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                          "rope_type": "yarn", "truncate": False}},
    ),
}
# fmt: on


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_parameters(name):
    count, hf = PUBLISHED[name]
    config = config_from_hf(hf)
    assert sum(math.prod(leaf.shape(config)) for leaf in leaves(config)) == count


def test_every_family_has_a_published_model():
    assert {hf["model_type"] for _, hf in PUBLISHED.values()} == FAMILIES.keys() | ALIASES


def test_an_older_name_of_a_family_is_the_family():
    old = PUBLISHED["stabilityai/stablelm-3b-4e1t"][1] | {"rope_pct": 0.5, "norm_eps": 1e-3}
    names = {"rope_pct": "partial_rotary_factor", "norm_eps": "layer_norm_eps"}
    new = {
        names.get(name, name): value
        for name, value in old.items()
        if name not in ("num_heads", "rotary_scaling_factor")
    }
    assert config_from_hf(old) == config_from_hf(new | {"model_type": "stablelm"})

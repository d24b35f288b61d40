"""Qwen3-MoE: Qwen3 with a mixture of experts in place of the MLP."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import mixtures

PREFIX = "model."
FUSED = mixtures.FUSED
leaves = mixtures.leaves


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("max_window_layers", "layer_types")  # every layer has a window, or none
    mixtures.check_every_layer(hf)
    width = hf.take("moe_intermediate_size", 768)
    shape = hf.shape(n_kv_heads=4, n_positions=32768, head_dim=0)
    windowed = hf.take("use_sliding_window", False)
    windows = hf.windows(shape["n_layers"], size=4096)
    return DecoderConfig(
        model_type="qwen3_moe",
        **shape | mixtures.sizes(hf, width, n_experts=128, per_token=8),
        router_normalized=hf.take("norm_topk_prob", False),
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        windows=windows if windowed else (),
        qk_norm="head",
        **hf.attention_biases(),
        tied=hf.take("tie_word_embeddings", False),
    )

"""Qwen2-MoE: Qwen2 with a mixture of experts in place of the MLP, one of them shared by all tokens."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import mixtures

PREFIX = "model."
FUSED = mixtures.FUSED
leaves = mixtures.leaves


def config(hf: Attributes) -> DecoderConfig:
    mixtures.check_every_layer(hf)
    width, shared = hf.take("moe_intermediate_size", 1408), hf.take("shared_expert_intermediate_size", 5632)
    shape = hf.shape(n_kv_heads=16, n_positions=32768, head_dim=0)
    first, windowed = hf.take("max_window_layers", 28), hf.take("use_sliding_window", False)
    if not windowed:
        hf.ignore("sliding_window", "layer_types")
    return DecoderConfig(
        model_type="qwen2_moe",
        **shape | mixtures.sizes(hf, width, n_experts=60, per_token=4, shared=shared),
        router_normalized=hf.take("norm_topk_prob", False),
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        windows=hf.windows(shape["n_layers"], lambda layer: layer % 2 == 0 and layer < first, size=4096)
        if windowed
        else (),
        qkv_bias=hf.take("qkv_bias", True),
        tied=hf.take("tie_word_embeddings", False),
    )

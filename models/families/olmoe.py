"""OLMoE: Llama with a mixture of experts in place of the MLP, and with queries and keys normed over all heads."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import mixtures

PREFIX = "model."
FUSED = mixtures.FUSED
leaves = mixtures.leaves


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_positions=4096, head_dim=0)
    return DecoderConfig(
        model_type="olmoe",
        **shape | mixtures.sizes(hf, shape["d_mlp"], n_experts=64, per_token=8),
        router_normalized=hf.take("norm_topk_prob", False),
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        qk_norm="all",
        qkv_clip=hf.take("clip_qkv", None),
        **hf.attention_biases(),
        tied=hf.take("tie_word_embeddings", False),
    )

"""Seed-OSS: Llama with biases on queries, keys and values, and heads whose width is set apart."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("pretraining_tp", "residual_dropout")
    shape = hf.shape(n_kv_heads=8, n_positions=524288, head_dim=128)
    return DecoderConfig(
        model_type="seed_oss",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        mlp_bias=hf.take("mlp_bias", False),
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        qkv_bias=hf.take("attention_bias", True),
        attn_out_bias=hf.take("attention_out_bias", False),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

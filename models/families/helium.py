"""Helium: Llama with rotary pairs of neighbouring entries."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_kv_heads=20, n_positions=4096, head_dim=128)
    return DecoderConfig(
        model_type="helium",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-8),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        mlp_bias=hf.take("mlp_bias", False),
        rotary=hf.rotary(shape, base=100000.0, pairs=True),
        attn_scale=shape["d_head"] ** -0.5,
        qkv_bias=hf.take("attention_bias", False),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

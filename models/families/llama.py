"""Llama 1 to 3.x, and every model saved in its layout: RMSNorm, rotary positions, gated MLP, grouped queries."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import rows

PREFIX = "model."
HEAD = "lm_head.weight"
IGNORED = rows.ROTARY


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("pretraining_tp", "is_llama_config")  # pretraining_tp splits the same products into parts
    hf.expect("rope_interleaved", False)
    shape = hf.shape()
    d_head = hf.take("head_dim", shape["d_model"] // shape["n_heads"])
    rotary = hf.rotary(d_head, shape["n_positions"])
    if 2 * len(rotary.frequencies) != d_head:
        raise InputError(
            "config.json sets 'partial_rotary_factor', which Llama's own code ignores; use a model without it"
        )
    attention_bias, mlp_bias = hf.take("attention_bias", False), hf.take("mlp_bias", False)
    return DecoderConfig(
        model_type="llama",
        **shape,
        d_head=d_head,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=rotary,
        attn_scale=d_head**-0.5,
        qkv_bias=attention_bias,
        attn_out_bias=attention_bias,
        mlp_bias=mlp_bias,
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

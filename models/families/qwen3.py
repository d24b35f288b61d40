"""Qwen3: Llama with queries and keys normed head by head, and with a window in some layers."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.families import qwen2, rows

PREFIX = "model."
HEAD = "lm_head.weight"
IGNORED = rows.ROTARY


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_positions=32768)
    d_head = hf.take("head_dim", 128)
    bias = hf.take("attention_bias", False)
    return DecoderConfig(
        model_type="qwen3",
        **shape,
        d_head=d_head,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(d_head, shape["n_positions"]),
        attn_scale=d_head**-0.5,
        windows=qwen2.windows(hf, shape["n_layers"]),
        qk_norm="head",
        qkv_bias=bias,
        attn_out_bias=bias,
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

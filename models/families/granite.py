"""Granite: Llama with factors on the embedding, the scores, the outputs of attention and MLP, and the logits."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."
HEAD = "lm_head.weight"
IGNORED = rows.ROTARY


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape()
    d_head = hf.take("head_dim", shape["d_model"] // shape["n_heads"])
    bias = hf.take("attention_bias", False)
    return DecoderConfig(
        model_type="granite",
        **shape,
        d_head=d_head,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        mlp_bias=hf.take("mlp_bias", False),
        rotary=hf.rotary(d_head, shape["n_positions"]),
        attn_scale=float(hf.take("attention_multiplier", 1.0)),
        qkv_bias=bias,
        attn_out_bias=bias,
        embed_scale=float(hf.take("embedding_multiplier", 1.0)),
        residual_scale=float(hf.take("residual_multiplier", 1.0)),
        logit_scale=1 / hf.take("logits_scaling", 1.0),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

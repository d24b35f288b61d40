"""Gemma: Llama with norms whose gain is 1 plus the parameter, and an embedding scaled by √d."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."
HEAD = "lm_head.weight"
IGNORED = rows.ROTARY


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("use_bidirectional_attention", False)
    shape = hf.shape(n_kv_heads=16, n_positions=8192)
    d_head = hf.take("head_dim", 256)
    bias = hf.take("attention_bias", False)
    hf.ignore("hidden_activation")  # Gemma's own code reads hidden_act
    return DecoderConfig(
        model_type="gemma",
        **shape,
        d_head=d_head,
        norm="rms",
        gain_offset=1.0,
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "gelu_pytorch_tanh"),
        gated=True,
        rotary=hf.rotary(d_head, shape["n_positions"]),
        attn_scale=d_head**-0.5,
        qkv_bias=bias,
        attn_out_bias=bias,
        embed_scale=shape["d_model"] ** 0.5,
        tied=hf.take("tie_word_embeddings", True),
    )


leaves = rows.llama

"""OLMo 2: Llama with norms after attention and MLP instead of before, and queries and keys normed over all heads."""

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
        model_type="olmo2",
        **shape,
        d_head=d_head,
        norm="rms",
        norm_place="post",
        norm_eps=hf.take("rms_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(d_head, shape["n_positions"]),
        attn_scale=d_head**-0.5,
        qk_norm="all",
        qkv_bias=bias,
        attn_out_bias=bias,
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

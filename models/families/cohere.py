"""Cohere's Command R: parallel attention and gated MLP after one LayerNorm without bias, and a factor on the logits."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "model."
HEAD = "lm_head.weight"
IGNORED = rows.ROTARY


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_positions=8192)
    d_head = hf.take("head_dim", shape["d_model"] // shape["n_heads"])
    bias = hf.take("attention_bias", False)
    return DecoderConfig(
        model_type="cohere",
        **shape,
        d_head=d_head,
        norm="layer",
        norm_eps=hf.take("layer_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        parallel=True,
        shared_norm=True,
        rotary=hf.rotary(d_head, shape["n_positions"], base=500000.0, pairs=True),
        attn_scale=d_head**-0.5,
        qk_norm="head" if hf.take("use_qk_norm", False) else "none",
        qkv_bias=bias,
        attn_out_bias=bias,
        logit_scale=float(hf.take("logit_scale", 0.0625)),
        tied=hf.take("tie_word_embeddings", True),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    return rows.llama(config, of_heads=True)

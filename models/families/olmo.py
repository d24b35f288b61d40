"""OLMo: Llama with LayerNorms that have no parameters, and with clipped queries, keys and values."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(head_dim=0)
    return DecoderConfig(
        model_type="olmo",
        **shape,
        norm="layer",
        norm_gain=False,
        norm_eps=1e-5,
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        qkv_clip=hf.take("clip_qkv", None),
        **hf.attention_biases(),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

"""Llama 1 to 3.x, and every model saved in its layout: RMSNorm, rotary positions, gated MLP, grouped queries."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("is_llama_config")
    hf.expect("rope_interleaved", False)
    shape = hf.shape(head_dim=0)
    rotary = hf.rotary(shape)
    if 2 * len(rotary.frequencies) != shape["d_head"]:
        raise InputError(
            "config.json sets 'partial_rotary_factor', which Llama's own code ignores; use a model without it"
        )
    return DecoderConfig(
        model_type="llama",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=rotary,
        attn_scale=shape["d_head"] ** -0.5,
        **hf.attention_biases(),
        mlp_bias=hf.take("mlp_bias", False),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

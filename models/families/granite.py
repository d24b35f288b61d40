"""Granite: Llama with factors on the embedding, the scores, the outputs of attention and MLP, and the logits."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(head_dim=0)
    return DecoderConfig(
        model_type="granite",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        mlp_bias=hf.take("mlp_bias", False),
        rotary=hf.rotary(shape),
        attn_scale=float(hf.take("attention_multiplier", 1.0)),
        **hf.attention_biases(),
        embed_scale=float(hf.take("embedding_multiplier", 1.0)),
        residual_scale=float(hf.take("residual_multiplier", 1.0)),
        logit_scale=1 / hf.take("logits_scaling", 1.0),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

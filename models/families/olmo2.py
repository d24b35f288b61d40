"""OLMo 2: Llama with norms after attention and MLP instead of before, and queries and keys normed over all heads."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(head_dim=0)
    return DecoderConfig(
        model_type="olmo2",
        **shape,
        norm="rms",
        norm_place="post",
        norm_eps=hf.take("rms_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        qk_norm="all",
        **hf.attention_biases(),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

"""Mistral: Llama with a sliding window of attention."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_kv_heads=8, n_positions=4096 * 32, head_dim=0)
    return DecoderConfig(
        model_type="mistral",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        windows=hf.windows(shape["n_layers"], size=4096),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

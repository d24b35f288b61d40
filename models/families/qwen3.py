"""Qwen3: Llama with queries and keys normed head by head, and with a window in some layers."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import qwen2, rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_positions=32768, head_dim=128)
    return DecoderConfig(
        model_type="qwen3",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        windows=qwen2.windows(hf, shape["n_layers"]),
        qk_norm="head",
        **hf.attention_biases(),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

"""Ministral 3's text models: Llama with YaRN, and queries that grow with the logarithm of the position."""

import dataclasses

from jaxconf.models.attributes import Attributes, read_rotary
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_kv_heads=8, n_positions=262144, head_dim=128)
    rope = {"partial_rotary_factor": 1.0, "rope_theta": 1e6, **hf.take("rope_parameters", YARN)}
    growth = float(rope.pop("llama_4_scaling_beta", 0.0))
    rope.pop("max_position_embeddings", None)  # which max_position_embeddings beside it says
    original = (rope.get("original_max_position_embeddings") or shape["n_positions"]) if growth else 0
    rotary = read_rotary(rope, shape["d_head"], shape["n_positions"])
    return DecoderConfig(
        model_type="ministral3",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=dataclasses.replace(rotary, growth=growth, original=original),
        attn_scale=shape["d_head"] ** -0.5,
        windows=hf.windows(shape["n_layers"]),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

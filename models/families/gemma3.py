"""Gemma 3's text models: Gemma 2 without soft caps, with normed queries and keys, and two kinds of rotation."""

from collections.abc import Mapping
from typing import Any

from jaxconf.models.attributes import Attributes, read_rotary
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.frequencies import Rotary

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("use_bidirectional_attention", False)
    hf.ignore("hidden_act", "cache_implementation", "attn_logit_softcapping")  # Gemma 3's own code reads none of them
    shape = hf.shape(n_kv_heads=4, n_positions=131072, head_dim=256)
    whole, local = rotations(hf, shape, hf.take("rope_theta", 1e6), hf.take("rope_local_base_freq", 1e4))
    period = hf.take("sliding_window_pattern", hf.take("_sliding_window_pattern", 6))
    windows = hf.windows(shape["n_layers"], lambda layer: (layer + 1) % period != 0, size=4096)
    return DecoderConfig(
        model_type="gemma3_text",
        **shape,
        norm="rms",
        norm_place="both",
        gain_offset=1.0,
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_activation", "gelu_pytorch_tanh"),
        gated=True,
        rotary=whole,
        local_rotary=local if windows else None,
        attn_scale=hf.take("query_pre_attn_scalar", 256) ** -0.5,
        windows=windows,
        qk_norm="head",
        **hf.attention_biases(),
        embed_scale=shape["d_model"] ** 0.5,
        logit_softcap=hf.take("final_logit_softcapping", None),
        tied=hf.take("tie_word_embeddings", True),
    )


def rotations(hf: Attributes, shape: Mapping[str, Any], base: float, local_base: float) -> tuple[Rotary, Rotary]:
    """The rotations in layers without and with a window. `rope_scaling` is of those without."""
    nested = Attributes(hf.take("rope_parameters", {}), "the rotary settings of config.json")
    whole = {"rope_theta": base, "partial_rotary_factor": 1.0, **nested.take("full_attention", {})}
    local = {"rope_theta": local_base, "partial_rotary_factor": 1.0, **nested.take("sliding_attention", {})}
    nested.finish()
    sizes = shape["d_head"], shape["n_positions"]
    return read_rotary(whole | hf.take("rope_scaling", {}), *sizes), read_rotary(local, *sizes)


leaves = rows.llama

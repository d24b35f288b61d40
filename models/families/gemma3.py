"""Gemma 3's text models: Gemma 2 without soft caps, with normed queries and keys, and two kinds of rotation."""

from jaxconf.models.config import Attributes, DecoderConfig, read_rotary
from jaxconf.models.families import rows

PREFIX = "model."
IGNORED = rows.ROTARY


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("use_bidirectional_attention", False)
    hf.ignore("hidden_act", "cache_implementation", "attn_logit_softcapping")  # Gemma 3's own code reads none of them
    shape = hf.shape(n_kv_heads=4, n_positions=131072, head_dim=256)
    nested, scaling = hf.take("rope_parameters", {}), hf.take("rope_scaling", {})
    whole = {
        "rope_theta": hf.take("rope_theta", 1e6),
        "partial_rotary_factor": 1.0,
        **nested.get("full_attention", {}),
        **scaling,
    }
    local = {
        "rope_theta": hf.take("rope_local_base_freq", 1e4),
        "partial_rotary_factor": 1.0,
        **nested.get("sliding_attention", {}),
    }
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
        rotary=read_rotary(whole, shape["d_head"], shape["n_positions"]),
        local_rotary=read_rotary(local, shape["d_head"], shape["n_positions"]) if windows else None,
        attn_scale=hf.take("query_pre_attn_scalar", 256) ** -0.5,
        windows=windows,
        qk_norm="head",
        **hf.attention_biases(),
        embed_scale=shape["d_model"] ** 0.5,
        logit_softcap=hf.take("final_logit_softcapping", None),
        tied=hf.take("tie_word_embeddings", True),
    )


leaves = rows.llama

"""Gemma 2: Gemma with further norms after attention and MLP, soft caps, and a window in every other layer."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("use_bidirectional_attention", False)
    # Gemma 2's own code reads hidden_activation and sliding_window.
    hf.ignore("hidden_act", "cache_implementation", "sliding_window_size")
    shape = hf.shape(n_kv_heads=4, n_positions=8192, head_dim=256)
    return DecoderConfig(
        model_type="gemma2",
        **shape,
        norm="rms",
        norm_place="both",
        gain_offset=1.0,
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_activation", "gelu_pytorch_tanh"),
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=hf.take("query_pre_attn_scalar", 256) ** -0.5,
        windows=hf.windows(shape["n_layers"], lambda layer: layer % 2 == 0, size=4096),
        attn_softcap=hf.take_or_null("attn_logit_softcapping", 50.0),
        **hf.attention_biases(),
        embed_scale=shape["d_model"] ** 0.5,
        logit_softcap=hf.take_or_null("final_logit_softcapping", 30.0),
        tied=hf.take("tie_word_embeddings", True),
    )


leaves = rows.llama

"""Qwen2: Llama with biases on queries, keys and values, and with a window in some layers."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("use_mrope", False)
    shape = hf.shape(n_positions=32768, head_dim=0)
    return DecoderConfig(
        model_type="qwen2",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        windows=windows(hf, shape["n_layers"]),
        qkv_bias=True,
        tied=hf.take("tie_word_embeddings", False),
    )


def windows(hf: Attributes, n_layers: int) -> tuple[int, ...]:
    """The windows: by default the layers from `max_window_layers` on have one, if `use_sliding_window` is set."""
    first = hf.take("max_window_layers", 28)
    if not hf.take("use_sliding_window", False):
        hf.ignore("sliding_window", "layer_types")
        return ()
    return hf.windows(n_layers, lambda layer: layer >= first, size=4096)


leaves = rows.llama

"""SmolLM3: Llama without rotary positions in every fourth layer."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_kv_heads=4, n_positions=32768, head_dim=0)
    n_layers = shape["n_layers"]
    interval = hf.take("no_rope_layer_interval", 4)
    # Despite the name, 1 marks a layer with rotary positions.
    turned = hf.take("no_rope_layers", [int((i + 1) % interval != 0) for i in range(n_layers)])
    if not hf.take("use_sliding_window", False):
        hf.ignore("sliding_window", "layer_types")
    return DecoderConfig(
        model_type="smollm3",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        mlp_bias=hf.take("mlp_bias", False),
        rotary=hf.rotary(shape, base=2000000.0),
        unrotated=tuple(i for i in range(n_layers) if not turned[i]),
        attn_scale=shape["d_head"] ** -0.5,
        windows=hf.windows(n_layers, lambda layer: not turned[layer]),
        **hf.attention_biases(),
        tied=hf.take("tie_word_embeddings", True),
    )


leaves = rows.llama

"""OLMo 3: OLMo 2 with a window in three of four layers; YaRN stretches the rotation of the others."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import gemma3, rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape()
    base = 500000.0
    hf.expect("rope_theta", base)  # another would hold in all layers, or not in those with a window, by version
    whole, local = gemma3.rotations(hf, shape, base, base)
    windows = hf.windows(shape["n_layers"], lambda layer: (layer + 1) % 4 != 0, size=4096)
    return DecoderConfig(
        model_type="olmo3",
        **shape,
        norm="rms",
        norm_place="post",
        norm_eps=hf.take("rms_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=whole,
        local_rotary=local if windows else None,
        attn_scale=shape["d_head"] ** -0.5,
        windows=windows,
        qk_norm="all",
        **hf.attention_biases(),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

"""Mistral: Llama with a sliding window of attention."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."
HEAD = "lm_head.weight"
IGNORED = rows.ROTARY


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_kv_heads=8, n_positions=4096 * 32)
    d_head = hf.take("head_dim", shape["d_model"] // shape["n_heads"])
    return DecoderConfig(
        model_type="mistral",
        **shape,
        d_head=d_head,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(d_head, shape["n_positions"]),
        attn_scale=d_head**-0.5,
        windows=hf.windows(shape["n_layers"], size=4096),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

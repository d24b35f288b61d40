"""Cohere's Command R: parallel attention and gated MLP after one LayerNorm without bias, and a factor on the logits."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_positions=8192, head_dim=0)
    return DecoderConfig(
        model_type="cohere",
        **shape,
        norm="layer",
        norm_eps=hf.take("layer_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        parallel=True,
        shared_norm=True,
        rotary=hf.rotary(shape, base=500000.0, pairs=True),
        attn_scale=shape["d_head"] ** -0.5,
        qk_norm="head" if hf.take("use_qk_norm", False) else "none",
        **hf.attention_biases(),
        logit_scale=float(hf.take("logit_scale", 0.0625)),
        tied=hf.take("tie_word_embeddings", True),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    return rows.llama(config, of_heads=True)

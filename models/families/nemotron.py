"""Nemotron and Minitron: LayerNorms whose gain is 1 plus the parameter, and squared ReLU in a plain MLP."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_positions=4096, head_dim=0)
    return DecoderConfig(
        model_type="nemotron",
        **shape,
        norm="layer",
        norm_bias=True,
        gain_offset=1.0,
        norm_eps=hf.take("norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "relu2"),
        mlp_bias=hf.take("mlp_bias", False),
        rotary=hf.rotary(shape, share=0.5),
        attn_scale=shape["d_head"] ** -0.5,
        **hf.attention_biases(),
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    layer = "layers.{i}."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        *rows.norm(config, "blocks/ln1", layer + "input_layernorm"),
        *rows.attention(config),
        *rows.norm(config, "blocks/ln2", layer + "post_attention_layernorm"),
        *rows.mlp(config, w_in=layer + "mlp.up_proj", w_out=layer + "mlp.down_proj"),
        *rows.norm(config, "ln_final", "norm"),
        *rows.head(config),
    )

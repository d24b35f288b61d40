"""Persimmon: LayerNorms, also of queries and keys; squared ReLU in a plain MLP; rotary positions in half of a head."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_positions=16384)
    hf.expect("num_key_value_heads", shape["n_heads"])
    qk_norm = hf.take("qk_layernorm", True)
    return DecoderConfig(
        model_type="persimmon",
        **shape,
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "relu2"),
        mlp_bias=True,
        rotary=hf.rotary(shape, share=0.5),
        attn_scale=shape["d_head"] ** -0.5,
        qk_norm="head" if qk_norm else "none",
        qk_norm_bias=qk_norm,
        qkv_bias=True,
        attn_out_bias=True,
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    layer = "layers.{i}."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        *rows.norm(config, "blocks/ln1", layer + "input_layernorm"),
        *rows.grouped_attention(config, layer + "self_attn.query_key_value", layer + "self_attn.dense"),
        *rows.head_norms(config, layer + "self_attn.{x}_layernorm"),
        *rows.norm(config, "blocks/ln2", layer + "post_attention_layernorm"),
        *rows.mlp(config, w_in=layer + "mlp.dense_h_to_4h", w_out=layer + "mlp.dense_4h_to_h"),
        *rows.norm(config, "ln_final", "final_layernorm"),
        *rows.head(config),
    )

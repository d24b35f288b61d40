"""GPT-NeoX and Pythia: parallel attention and MLP, each after its own LayerNorm; rotary positions in part of a head."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "gpt_neox."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape()
    return DecoderConfig(
        model_type="gpt_neox",
        **shape,
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "gelu"),
        parallel=hf.take("use_parallel_residual", True),
        rotary=hf.rotary(shape, base_name="rotary_emb_base", share_name="rotary_pct", share=0.25),
        attn_scale=shape["d_head"] ** -0.5,
        **hf.attention_biases(True),
        mlp_bias=True,
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    layer = "layers.{i}."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_in.weight"),
        *rows.norm(config, "blocks/ln1", layer + "input_layernorm"),
        *rows.grouped_attention(config, layer + "attention.query_key_value", layer + "attention.dense"),
        *rows.norm(config, "blocks/ln2", layer + "post_attention_layernorm"),
        *rows.mlp(config, w_in=layer + "mlp.dense_h_to_4h", w_out=layer + "mlp.dense_4h_to_h"),
        *rows.norm(config, "ln_final", "final_layer_norm"),
        *rows.head(config, "embed_out"),
    )

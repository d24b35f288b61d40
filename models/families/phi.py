"""Phi-1.5 and Phi-2: parallel attention and plain MLP after one LayerNorm, rotary in part of each head, biases."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    qk_norm = hf.take("qk_layernorm", False)
    shape = hf.shape(head_dim=0)
    return DecoderConfig(
        model_type="phi",
        **shape,
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "gelu_new"),
        parallel=True,
        shared_norm=True,
        rotary=hf.rotary(shape, share=0.5),
        attn_scale=shape["d_head"] ** -0.5,
        qk_norm="head" if qk_norm else "none",
        qk_norm_bias=qk_norm,
        mlp_bias=True,
        qkv_bias=True,
        attn_out_bias=True,
        head_bias=True,
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    mlp = "layers.{i}.mlp."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        *rows.norm(config, "blocks/ln1", "layers.{i}.input_layernorm"),
        *rows.attention(config, out="dense"),
        *rows.head_norms(config, "layers.{i}.self_attn.{x}_layernorm"),
        *rows.mlp(config, w_in=mlp + "fc1", w_out=mlp + "fc2"),
        *rows.norm(config, "ln_final", "final_layernorm"),
        *rows.head(config),
    )

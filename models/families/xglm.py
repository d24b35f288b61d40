"""XGLM: GPT-2's block with sinusoidal positions, and an embedding scaled by √d."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import rows
from jaxconf.models.frequencies import SINUSOIDS_FROM
from jaxconf.models.leaves import Leaf

PREFIX = "model."
IGNORED = r"embed_positions\.weights"  # the sinusoids, which old versions of transformers stored


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("add_cross_attention", False)
    hf.ignore("dropout", "activation_dropout", "layerdrop", "init_std")
    padding = hf.pad_token_id
    if padding is not None and padding >= SINUSOIDS_FROM:
        raise InputError(
            f"config.json sets 'pad_token_id' to {padding}, with which transformers gives the position "
            f"{padding - SINUSOIDS_FROM} no sinusoids; set it to 1, as in the published models"
        )
    d_model, n_heads = hf.take("d_model", 1024), hf.take("attention_heads", 16)
    d_head = hf.split(d_model, n_heads)
    return DecoderConfig(
        model_type="xglm",
        n_layers=hf.take("num_layers", 24),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        d_mlp=hf.take("ffn_dim", 4096),
        vocab_size=hf.take("vocab_size", 256008),
        n_positions=hf.take("max_position_embeddings", 2048),
        norm="layer",
        norm_bias=True,
        norm_eps=1e-5,
        activation=hf.activation("activation_function", "gelu"),
        mlp_bias=True,
        sinusoidal_positions=True,
        attn_scale=d_head**-0.5,
        qkv_bias=True,
        attn_out_bias=True,
        embed_scale=d_model**0.5 if hf.take("scale_embedding", True) else 1.0,
        tied=hf.take("tie_word_embeddings", True),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    layer = "layers.{i}."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        *rows.norm(config, "blocks/ln1", layer + "self_attn_layer_norm"),
        *rows.attention(config, out="out_proj"),
        *rows.norm(config, "blocks/ln2", layer + "final_layer_norm"),
        *rows.mlp(config, w_in=layer + "fc1", w_out=layer + "fc2"),
        *rows.norm(config, "ln_final", "layer_norm"),
        *rows.head(config),
    )

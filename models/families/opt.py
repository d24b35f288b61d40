"""OPT: GPT-2's block with ReLU; the 350m model norms the stream after each addition and has a narrower embedding."""

from typing import Literal

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf, Part

PREFIX = "model."
OFFSET = 2  # the table of positions begins with two rows that no position of a text uses


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("dropout", "activation_dropout", "layerdrop", "init_std")
    d_model, n_heads = hf.take("hidden_size", 768), hf.take("num_attention_heads", 12)
    d_head = hf.split(d_model, n_heads)
    d_embed = hf.take("word_embed_proj_dim", d_model)
    norm_place: Literal["pre", "sum"] = "pre" if hf.take("do_layer_norm_before", True) else "sum"
    bias, affine = hf.take("enable_bias", True), hf.take("layer_norm_elementwise_affine", True)
    return DecoderConfig(
        model_type="opt",
        n_layers=hf.take("num_hidden_layers", 12),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        d_mlp=hf.take("ffn_dim", 3072),
        vocab_size=hf.take("vocab_size", 50272),
        n_positions=hf.take("max_position_embeddings", 2048),
        norm="layer",
        norm_place=norm_place,
        norm_gain=affine,
        norm_bias=affine,
        # Where the stream is normed after each addition, no norm follows that could be removed.
        final_norm=not hf.take("_remove_final_layer_norm", False) or norm_place == "sum",
        norm_eps=1e-5,
        activation=hf.activation("activation_function", "relu"),
        mlp_bias=bias,
        d_embed=None if d_embed == d_model else d_embed,
        learned_positions=True,
        attn_scale=d_head**-0.5,
        qkv_bias=bias,
        attn_out_bias=bias,
        tied=hf.take("tie_word_embeddings", True),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    layer = "decoder.layers.{i}."
    end = OFFSET + config.n_positions
    projections = (
        Leaf("embed/proj", ("token_embed", "embed"), "decoder.project_in.weight", "d e -> e d"),
        Leaf("unembed/proj", ("embed", "token_embed"), "decoder.project_out.weight", "e d -> d e"),
    )
    return (
        Leaf("embed/tokens", ("vocab", "token_embed"), "decoder.embed_tokens.weight"),
        Leaf(
            "embed/positions",
            ("positions", "embed"),
            "decoder.embed_positions.weight",
            "a d -> a d",
            Part(OFFSET, end, end),
        ),
        *(() if config.d_embed is None else projections),
        *rows.norm(config, "blocks/ln1", layer + "self_attn_layer_norm"),
        *rows.attention(config, layer + "self_attn.", "out_proj"),
        *rows.norm(config, "blocks/ln2", layer + "final_layer_norm"),
        *rows.mlp(config, w_in=layer + "fc1", w_out=layer + "fc2"),
        *([] if config.norm_place == "sum" else rows.norm(config.final, "ln_final", "decoder.final_layer_norm")),
        *rows.head(config),
    )

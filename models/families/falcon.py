"""Falcon: one key/value head and one norm (7B), grouped queries and two norms (40B, 180B), or ALiBi and biases (RW)."""

from jaxconf.models.attributes import Attributes, read_rotary
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "transformer."


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("apply_residual_connection_post_layernorm", False)
    hf.ignore("ff_factor")  # ffn_hidden_size says the same
    d_model, n_heads = hf.take("n_embed", hf.take("hidden_size", 4544)), hf.take("num_attention_heads", 71)
    d_head = hf.split(d_model, n_heads)
    grouped, multi_query = hf.take("new_decoder_architecture", False), hf.take("multi_query", True)
    parallel, bias, alibi = hf.take("parallel_attn", True), hf.take("bias", False), hf.take("alibi", False)
    kv_heads, norms = hf.take("num_kv_heads", n_heads), hf.take("num_ln_in_parallel_attn", 2 if grouped else 1)
    if (grouped and not parallel) or (norms == 2 and not grouped):
        raise InputError(
            "config.json combines new_decoder_architecture, parallel_attn and num_ln_in_parallel_attn as no Falcon "
            "model does; correct it from the model's original config.json"
        )
    n_positions = hf.take("max_position_embeddings", 2048)
    rotary = read_rotary(hf.rotary_values(), d_head, n_positions)
    return DecoderConfig(
        model_type="falcon",
        n_layers=hf.take("num_hidden_layers", 32),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=kv_heads if grouped else 1 if multi_query else n_heads,
        d_head=d_head,
        d_mlp=hf.take("ffn_hidden_size", 4 * d_model),
        vocab_size=hf.take("vocab_size", 65024),
        n_positions=n_positions,
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_epsilon", 1e-5),
        activation=hf.activation("activation", "gelu"),
        parallel=parallel,
        shared_norm=parallel and norms == 1,
        mlp_bias=bias,
        alibi="rounded" if alibi else "none",
        rotary=None if alibi else rotary,
        attn_scale=d_head**-0.5,
        qkv_bias=bias,
        attn_out_bias=bias,
        tied=hf.take("tie_word_embeddings", True),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    h = "h.{i}."
    two = config.parallel and not config.shared_norm
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "word_embeddings.weight"),
        *rows.norm(config, "blocks/ln1", h + ("ln_attn" if two else "input_layernorm")),
        *rows.grouped_attention(config, h + "self_attention.query_key_value", h + "self_attention.dense"),
        *(
            []
            if config.shared_norm
            else rows.norm(config, "blocks/ln2", h + ("ln_mlp" if two else "post_attention_layernorm"))
        ),
        *rows.mlp(config, w_in=h + "mlp.dense_h_to_4h", w_out=h + "mlp.dense_4h_to_h"),
        *rows.norm(config, "ln_final", "ln_f"),
        *rows.head(config),
    )

"""BLOOM: ALiBi instead of position embeddings, and a LayerNorm on the embedding."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "transformer."


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("apply_residual_connection_post_layernorm", False)
    # These change only the order and the precision of operations.
    hf.ignore("slow_but_exact", "attention_softmax_in_fp32", "masked_softmax_fusion")
    # BLOOM's own code never reads these.
    hf.ignore("bias_dropout_fusion", "skip_bias_add", "skip_bias_add_qkv", "offset_alibi", "unk_token_id", "n_inner")
    d_model = hf.take("n_embed", hf.take("hidden_size", 64))
    n_heads = hf.take("n_head", hf.take("num_attention_heads", 8))
    d_head = hf.split(d_model, n_heads)
    return DecoderConfig(
        model_type="bloom",
        n_layers=hf.take("n_layer", 2),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        d_mlp=4 * d_model,
        vocab_size=hf.take("vocab_size", 250880),
        n_positions=hf.take("seq_length", 2048),
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_epsilon", 1e-5),
        activation="gelu_tanh",
        mlp_bias=True,
        embed_norm=True,
        alibi="exact",
        attn_scale=d_head**-0.5,
        qkv_bias=True,
        attn_out_bias=True,
        tied=hf.take("tie_word_embeddings", True),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    h = "h.{i}."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "word_embeddings.weight"),
        *rows.norm(config, "ln_embed", "word_embeddings_layernorm"),
        *rows.norm(config, "blocks/ln1", h + "input_layernorm"),
        *rows.grouped_attention(config, h + "self_attention.query_key_value", h + "self_attention.dense"),
        *rows.norm(config, "blocks/ln2", h + "post_attention_layernorm"),
        *rows.mlp(config, w_in=h + "mlp.dense_h_to_4h", w_out=h + "mlp.dense_4h_to_h"),
        *rows.norm(config, "ln_final", "ln_f"),
        *rows.head(config),
    )

"""MPT: ALiBi, LayerNorms without bias, no biases at all, and clipped queries, keys and values in some models."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf, Part

PREFIX = "transformer."


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("emb_pdrop", "embedding_fraction", "init_config", "init_device", "tokenizer_name", "verbose")
    hf.ignore("learned_pos_emb")  # a model with ALiBi has no other positions
    for name, assumed in (("expansion_ratio", 4), ("logit_scale", None), ("no_bias", True)):
        hf.expect(name, assumed)
    norm = hf.take("norm_type", "low_precision_layernorm")  # which differs from the other in precision alone
    if norm not in ("low_precision_layernorm", "layernorm"):
        raise InputError(
            f"config.json sets 'norm_type' to {norm!r}, but only LayerNorms are supported; use another model"
        )
    attn = Attributes(hf.take("attn_config", {}), "attn_config in config.json")
    attn.ignore("attn_impl")
    for name, value in (
        ("alibi", True),
        ("alibi_bias_max", 8),  # transformers takes 8 whatever is written here
        ("attn_type", "multihead_attention"),
        ("attn_uses_sequence_id", False),
        ("prefix_lm", False),
        ("qk_ln", False),
    ):
        attn.expect(name, value)
    d_model, n_heads = hf.take("d_model", 2048), hf.take("n_heads", 16)
    d_head = hf.split(d_model, n_heads)
    attn_scale, clip = attn.take("softmax_scale", d_head**-0.5), attn.take("clip_qkv", None)
    attn.finish()
    return DecoderConfig(
        model_type="mpt",
        n_layers=hf.take("n_layers", 24),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        d_mlp=4 * d_model,
        vocab_size=hf.take("vocab_size", 50368),
        n_positions=hf.take("max_seq_len", 2048),
        norm="layer",
        norm_eps=hf.take("layer_norm_epsilon", 1e-5),
        activation="gelu",
        alibi="exact",
        attn_scale=attn_scale,
        qkv_clip=clip,
        tied=hf.take("tie_word_embeddings", True),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    block = "blocks.{i}."
    fused, view = block + "attn.Wqkv.weight", "(a h k) d -> d (a h) k"
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "wte.weight"),
        *rows.norm(config, "blocks/ln1", block + "norm_1"),
        Leaf("blocks/attn/wq", rows.W_Q, fused, view, Part(0, 1, 3)),
        Leaf("blocks/attn/wk", rows.W_KV, fused, view, Part(1, 2, 3)),
        Leaf("blocks/attn/wv", rows.W_KV, fused, view, Part(2, 3, 3)),
        *rows.attention_out(config, block + "attn.out_proj"),
        *rows.norm(config, "blocks/ln2", block + "norm_2"),
        *rows.mlp(config, w_in=block + "ffn.up_proj", w_out=block + "ffn.down_proj"),
        *rows.norm(config, "ln_final", "norm_f"),
        *rows.head(config),
    )

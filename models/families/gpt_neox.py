"""GPT-NeoX and Pythia. Queries, keys and values are interleaved head by head in one tensor."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.leaves import Leaf, Part

PREFIX = "gpt_neox."
HEAD = "embed_out.weight"
IGNORED = r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"  # the causal mask and the frequencies, stored by old versions


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("is_decoder")
    d_model, n_heads = hf.take("hidden_size"), hf.take("num_attention_heads")
    hf.divides(n_heads, d_model)
    d_head = d_model // n_heads
    bias = hf.take("attention_bias", True)
    return DecoderConfig(
        model_type="gpt_neox",
        n_layers=hf.take("num_hidden_layers"),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        d_mlp=hf.take("intermediate_size"),
        vocab_size=hf.take("vocab_size"),
        n_positions=hf.take("max_position_embeddings", 2048),
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "gelu"),
        parallel=hf.take("use_parallel_residual", True),
        rotary=hf.rotary(d_head, base_name="rotary_emb_base", share_name="rotary_pct", share=0.25),
        attn_scale=d_head**-0.5,
        qkv_bias=bias,
        attn_out_bias=bias,
        mlp_bias=True,
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    layer = "layers.{i}."
    qkv, qkv_bias = ("layers", "embed", "heads", "head_dim"), ("layers", "heads", "head_dim")
    fused, fused_bias = layer + "attention.query_key_value.weight", layer + "attention.query_key_value.bias"
    table = [
        Leaf("embed/tokens", ("vocab", "embed"), "embed_in.weight"),
        Leaf("blocks/ln1/scale", ("layers", "embed"), layer + "input_layernorm.weight", init="ones"),
        Leaf("blocks/ln1/bias", ("layers", "embed"), layer + "input_layernorm.bias", init="zeros"),
        Leaf("blocks/attn/wq", qkv, fused, "(h a k) d -> d (h a) k", Part(0, 1, 3)),
        Leaf("blocks/attn/wk", qkv, fused, "(h a k) d -> d (h a) k", Part(1, 2, 3)),
        Leaf("blocks/attn/wv", qkv, fused, "(h a k) d -> d (h a) k", Part(2, 3, 3)),
        Leaf(
            "blocks/attn/wo",
            ("layers", "heads", "head_dim", "embed"),
            layer + "attention.dense.weight",
            "d (h k) -> h k d",
            init="residual",
        ),
        Leaf("blocks/ln2/scale", ("layers", "embed"), layer + "post_attention_layernorm.weight", init="ones"),
        Leaf("blocks/ln2/bias", ("layers", "embed"), layer + "post_attention_layernorm.bias", init="zeros"),
        Leaf("blocks/mlp/w_in", ("layers", "embed", "mlp"), layer + "mlp.dense_h_to_4h.weight", "m d -> d m"),
        Leaf("blocks/mlp/b_in", ("layers", "mlp"), layer + "mlp.dense_h_to_4h.bias", init="zeros"),
        Leaf("blocks/mlp/w_out", ("layers", "mlp", "embed"), layer + "mlp.dense_4h_to_h.weight", "d m -> m d", init="residual"),
        Leaf("blocks/mlp/b_out", ("layers", "embed"), layer + "mlp.dense_4h_to_h.bias", init="zeros"),
        Leaf("ln_final/scale", ("embed",), "final_layer_norm.weight", init="ones"),
        Leaf("ln_final/bias", ("embed",), "final_layer_norm.bias", init="zeros"),
    ]
    if config.qkv_bias:
        table += [
            Leaf("blocks/attn/bq", qkv_bias, fused_bias, "(h a k) -> (h a) k", Part(0, 1, 3), init="zeros"),
            Leaf("blocks/attn/bk", qkv_bias, fused_bias, "(h a k) -> (h a) k", Part(1, 2, 3), init="zeros"),
            Leaf("blocks/attn/bv", qkv_bias, fused_bias, "(h a k) -> (h a) k", Part(2, 3, 3), init="zeros"),
            Leaf("blocks/attn/bo", ("layers", "embed"), layer + "attention.dense.bias", init="zeros"),
        ]
    if not config.tied:
        table.append(Leaf("unembed/w", ("embed", "vocab"), HEAD, "v d -> d v"))
    return tuple(table)

"""StableLM: LayerNorm around a gated MLP, rotary positions in a part of each head, grouped queries."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.leaves import Leaf

PREFIX = "model."
HEAD = "lm_head.weight"
IGNORED = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"  # the frequencies, stored by old versions


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("qk_layernorm", False)
    hf.expect("use_parallel_residual", False)
    d_model, n_heads = hf.take("hidden_size"), hf.take("num_attention_heads")
    hf.divides(n_heads, d_model)
    d_head = d_model // n_heads
    return DecoderConfig(
        model_type="stablelm",
        n_layers=hf.take("num_hidden_layers"),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=hf.take("num_key_value_heads", 32),
        d_head=d_head,
        d_mlp=hf.take("intermediate_size"),
        vocab_size=hf.take("vocab_size"),
        n_positions=hf.take("max_position_embeddings", 4096),
        norm="layer",
        norm_eps=hf.take("layer_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        parallel=False,
        learned_positions=False,
        rotary=hf.rotary(d_head, share=0.25),
        attn_scale=d_head**-0.5,
        attn_scale_by_layer=False,
        qkv_bias=hf.take("use_qkv_bias", False),
        attn_out_bias=False,
        mlp_bias=False,
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    attn, mlp = "layers.{i}.self_attn.", "layers.{i}.mlp."
    kv = ("layers", "embed", "kv_heads", "head_dim")
    table = [
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        Leaf("blocks/ln1/scale", ("layers", "embed"), "layers.{i}.input_layernorm.weight", init="ones"),
        Leaf("blocks/ln1/bias", ("layers", "embed"), "layers.{i}.input_layernorm.bias", init="zeros"),
        Leaf("blocks/attn/wq", ("layers", "embed", "heads", "head_dim"), attn + "q_proj.weight", "(h k) d -> d h k"),
        Leaf("blocks/attn/wk", kv, attn + "k_proj.weight", "(h k) d -> d h k"),
        Leaf("blocks/attn/wv", kv, attn + "v_proj.weight", "(h k) d -> d h k"),
        Leaf("blocks/attn/wo", ("layers", "heads", "head_dim", "embed"), attn + "o_proj.weight", "d (h k) -> h k d", init="residual"),
        Leaf("blocks/ln2/scale", ("layers", "embed"), "layers.{i}.post_attention_layernorm.weight", init="ones"),
        Leaf("blocks/ln2/bias", ("layers", "embed"), "layers.{i}.post_attention_layernorm.bias", init="zeros"),
        Leaf("blocks/mlp/w_gate", ("layers", "embed", "mlp"), mlp + "gate_proj.weight", "m d -> d m"),
        Leaf("blocks/mlp/w_in", ("layers", "embed", "mlp"), mlp + "up_proj.weight", "m d -> d m"),
        Leaf("blocks/mlp/w_out", ("layers", "mlp", "embed"), mlp + "down_proj.weight", "d m -> m d", init="residual"),
        Leaf("ln_final/scale", ("embed",), "norm.weight", init="ones"),
        Leaf("ln_final/bias", ("embed",), "norm.bias", init="zeros"),
    ]
    if config.qkv_bias:
        table += [
            Leaf("blocks/attn/bq", ("layers", "heads", "head_dim"), attn + "q_proj.bias", "(h k) -> h k", init="zeros"),
            Leaf("blocks/attn/bk", ("layers", "kv_heads", "head_dim"), attn + "k_proj.bias", "(h k) -> h k", init="zeros"),
            Leaf("blocks/attn/bv", ("layers", "kv_heads", "head_dim"), attn + "v_proj.bias", "(h k) -> h k", init="zeros"),
        ]
    if not config.tied:
        table.append(Leaf("unembed/w", ("embed", "vocab"), HEAD, "v d -> d v"))
    return tuple(table)

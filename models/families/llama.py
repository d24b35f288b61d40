"""Llama 1 to 3.x, and every model saved in its layout: RMSNorm, rotary positions, gated MLP, grouped queries."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.leaves import Leaf

PREFIX = "model."
HEAD = "lm_head.weight"
IGNORED = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"  # the frequencies, stored by old versions


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("pretraining_tp")  # splits the same products
    d_model, n_heads = hf.take("hidden_size"), hf.take("num_attention_heads")
    d_head = hf.take("head_dim", d_model // n_heads)
    rotary = hf.rotary(d_head)
    if rotary.dim != d_head:
        raise InputError("config.json sets 'partial_rotary_factor', which Llama's own code ignores; use a model without it")
    attention_bias, mlp_bias = hf.take("attention_bias", False), hf.take("mlp_bias", False)
    return DecoderConfig(
        model_type="llama",
        n_layers=hf.take("num_hidden_layers"),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=hf.take("num_key_value_heads", n_heads),
        d_head=d_head,
        d_mlp=hf.take("intermediate_size"),
        vocab_size=hf.take("vocab_size"),
        n_positions=hf.take("max_position_embeddings", 2048),
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        parallel=False,
        learned_positions=False,
        rotary=rotary,
        attn_scale=d_head**-0.5,
        attn_scale_by_layer=False,
        qkv_bias=attention_bias,
        attn_out_bias=attention_bias,
        mlp_bias=mlp_bias,
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    attn, mlp = "layers.{i}.self_attn.", "layers.{i}.mlp."
    kv = ("layers", "embed", "kv_heads", "head_dim")
    table = [
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        Leaf("blocks/ln1/scale", ("layers", "embed"), "layers.{i}.input_layernorm.weight", init="ones"),
        Leaf("blocks/attn/wq", ("layers", "embed", "heads", "head_dim"), attn + "q_proj.weight", "(h k) d -> d h k"),
        Leaf("blocks/attn/wk", kv, attn + "k_proj.weight", "(h k) d -> d h k"),
        Leaf("blocks/attn/wv", kv, attn + "v_proj.weight", "(h k) d -> d h k"),
        Leaf("blocks/attn/wo", ("layers", "heads", "head_dim", "embed"), attn + "o_proj.weight", "d (h k) -> h k d", init="residual"),
        Leaf("blocks/ln2/scale", ("layers", "embed"), "layers.{i}.post_attention_layernorm.weight", init="ones"),
        Leaf("blocks/mlp/w_gate", ("layers", "embed", "mlp"), mlp + "gate_proj.weight", "m d -> d m"),
        Leaf("blocks/mlp/w_in", ("layers", "embed", "mlp"), mlp + "up_proj.weight", "m d -> d m"),
        Leaf("blocks/mlp/w_out", ("layers", "mlp", "embed"), mlp + "down_proj.weight", "d m -> m d", init="residual"),
        Leaf("ln_final/scale", ("embed",), "norm.weight", init="ones"),
    ]
    if config.qkv_bias:
        table += [
            Leaf("blocks/attn/bq", ("layers", "heads", "head_dim"), attn + "q_proj.bias", "(h k) -> h k", init="zeros"),
            Leaf("blocks/attn/bk", ("layers", "kv_heads", "head_dim"), attn + "k_proj.bias", "(h k) -> h k", init="zeros"),
            Leaf("blocks/attn/bv", ("layers", "kv_heads", "head_dim"), attn + "v_proj.bias", "(h k) -> h k", init="zeros"),
            Leaf("blocks/attn/bo", ("layers", "embed"), attn + "o_proj.bias", init="zeros"),
        ]
    if config.mlp_bias:
        table += [
            Leaf("blocks/mlp/b_gate", ("layers", "mlp"), mlp + "gate_proj.bias", init="zeros"),
            Leaf("blocks/mlp/b_in", ("layers", "mlp"), mlp + "up_proj.bias", init="zeros"),
            Leaf("blocks/mlp/b_out", ("layers", "embed"), mlp + "down_proj.bias", init="zeros"),
        ]
    if not config.tied:
        table.append(Leaf("unembed/w", ("embed", "vocab"), HEAD, "v d -> d v"))
    return tuple(table)

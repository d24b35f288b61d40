"""GPT-2: learned positions and biases, and matrices stored as [in, out] where other families store [out, in]."""

from typing import Any

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.leaves import Leaf, Part

PREFIX = "transformer."


def config(hf: Attributes) -> DecoderConfig:
    # reorder_and_upcast_attn changes only the order and the precision of operations.
    hf.ignore("n_ctx", "n_special", "predict_special_tokens", "reorder_and_upcast_attn")
    sizes = shape(hf)
    return DecoderConfig(
        model_type="gpt2",
        **sizes,
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_epsilon", 1e-5),
        activation=hf.activation("activation_function", "gelu_new"),
        learned_positions=True,
        attn_scale=sizes["d_head"] ** -0.5 if hf.take("scale_attn_weights", True) else 1.0,
        attn_scale_by_layer=hf.take("scale_attn_by_inverse_layer_idx", False),
        qkv_bias=True,
        attn_out_bias=True,
        mlp_bias=True,
        tied=hf.take("tie_word_embeddings", True),
    )


def shape(
    hf: Attributes,
    n_layers: int = 12,
    d_model: int = 768,
    n_heads: int = 12,
    vocab_size: int = 50257,
    n_positions: int = 1024,
) -> dict[str, Any]:
    """The sizes as GPT-2 names them, and their defaults."""
    d_model, n_heads = hf.take("n_embd", d_model), hf.take("n_head", n_heads)
    return {
        "n_layers": hf.take("n_layer", n_layers),
        "d_model": d_model,
        "n_heads": n_heads,
        "n_kv_heads": n_heads,
        "d_head": hf.split(d_model, n_heads),
        "d_mlp": hf.take("n_inner", 4 * d_model),
        "vocab_size": hf.take("vocab_size", vocab_size),
        "n_positions": hf.take("n_positions", n_positions),
    }


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    h = "h.{i}."
    qkv, qkv_bias = ("layers", "embed", "heads", "head_dim"), ("layers", "heads", "head_dim")
    table = [
        Leaf("embed/tokens", ("vocab", "embed"), "wte.weight"),
        Leaf("embed/positions", ("positions", "embed"), "wpe.weight"),
        Leaf("blocks/ln1/scale", ("layers", "embed"), h + "ln_1.weight", init="ones"),
        Leaf("blocks/ln1/bias", ("layers", "embed"), h + "ln_1.bias", init="zeros"),
        Leaf("blocks/attn/wq", qkv, h + "attn.c_attn.weight", "d (a h k) -> d (a h) k", Part(0, 1, 3)),
        Leaf("blocks/attn/wk", qkv, h + "attn.c_attn.weight", "d (a h k) -> d (a h) k", Part(1, 2, 3)),
        Leaf("blocks/attn/wv", qkv, h + "attn.c_attn.weight", "d (a h k) -> d (a h) k", Part(2, 3, 3)),
        Leaf("blocks/attn/bq", qkv_bias, h + "attn.c_attn.bias", "(a h k) -> (a h) k", Part(0, 1, 3), init="zeros"),
        Leaf("blocks/attn/bk", qkv_bias, h + "attn.c_attn.bias", "(a h k) -> (a h) k", Part(1, 2, 3), init="zeros"),
        Leaf("blocks/attn/bv", qkv_bias, h + "attn.c_attn.bias", "(a h k) -> (a h) k", Part(2, 3, 3), init="zeros"),
        Leaf(
            "blocks/attn/wo",
            ("layers", "heads", "head_dim", "embed"),
            h + "attn.c_proj.weight",
            "(h k) d -> h k d",
            init="residual",
        ),
        Leaf("blocks/attn/bo", ("layers", "embed"), h + "attn.c_proj.bias", init="zeros"),
        Leaf("blocks/ln2/scale", ("layers", "embed"), h + "ln_2.weight", init="ones"),
        Leaf("blocks/ln2/bias", ("layers", "embed"), h + "ln_2.bias", init="zeros"),
        Leaf("blocks/mlp/w_in", ("layers", "embed", "mlp"), h + "mlp.c_fc.weight"),
        Leaf("blocks/mlp/b_in", ("layers", "mlp"), h + "mlp.c_fc.bias", init="zeros"),
        Leaf("blocks/mlp/w_out", ("layers", "mlp", "embed"), h + "mlp.c_proj.weight", init="residual"),
        Leaf("blocks/mlp/b_out", ("layers", "embed"), h + "mlp.c_proj.bias", init="zeros"),
        Leaf("ln_final/scale", ("embed",), "ln_f.weight", init="ones"),
        Leaf("ln_final/bias", ("embed",), "ln_f.bias", init="zeros"),
    ]
    if not config.tied:
        table.append(Leaf("unembed/w", ("embed", "vocab"), "lm_head.weight", "v d -> d v"))
    return tuple(table)

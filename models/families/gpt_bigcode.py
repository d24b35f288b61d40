"""GPT-BigCode (SantaCoder, StarCoder): GPT-2 with matrices stored as [out, in] and, by default, one key/value head."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "transformer."
HEAD = "lm_head.weight"
IGNORED = rows.MASKS


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("add_cross_attention", False)
    hf.ignore("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "inference_runner", "max_batch_size")
    hf.ignore("pad_key_length", "pre_allocate_kv_cache", "validate_runner_input", "num_key_value_heads", "is_decoder")
    d_model, n_heads = hf.take("n_embd", 768), hf.take("n_head", 12)
    hf.divides(n_heads, d_model)
    return DecoderConfig(
        model_type="gpt_bigcode",
        n_layers=hf.take("n_layer", 12),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=1 if hf.take("multi_query", True) else n_heads,
        d_head=d_model // n_heads,
        d_mlp=hf.take("n_inner", 4 * d_model),
        vocab_size=hf.take("vocab_size", 50257),
        n_positions=hf.take("n_positions", 1024),
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_epsilon", 1e-5),
        activation=hf.activation("activation_function", "gelu_pytorch_tanh"),
        mlp_bias=True,
        learned_positions=True,
        attn_scale=(d_model // n_heads) ** -0.5 if hf.take("scale_attn_weights", True) else 1.0,
        qkv_bias=True,
        attn_out_bias=True,
        tied=hf.take("tie_word_embeddings", True),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    h = "h.{i}."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "wte.weight"),
        Leaf("embed/positions", ("positions", "embed"), "wpe.weight"),
        *rows.norm(config, "blocks/ln1", h + "ln_1"),
        *rows.grouped_attention(config, h + "attn.c_attn", h + "attn.c_proj"),
        *rows.norm(config, "blocks/ln2", h + "ln_2"),
        *rows.mlp(config, w_in=h + "mlp.c_fc", w_out=h + "mlp.c_proj"),
        *rows.norm(config, "ln_final", "ln_f"),
        *rows.head(config),
    )

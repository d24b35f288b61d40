"""GPT-BigCode (SantaCoder, StarCoder): GPT-2 with matrices stored as [out, in] and, by default, one key/value head."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import gpt2, rows
from jaxconf.models.leaves import Leaf

PREFIX = "transformer."


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "inference_runner", "max_batch_size")
    hf.ignore("pad_key_length", "pre_allocate_kv_cache", "validate_runner_input", "num_key_value_heads")
    shape = gpt2.shape(hf)
    if hf.take("multi_query", True):
        shape["n_kv_heads"] = 1
    return DecoderConfig(
        model_type="gpt_bigcode",
        **shape,
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_epsilon", 1e-5),
        activation=hf.activation("activation_function", "gelu_pytorch_tanh"),
        mlp_bias=True,
        learned_positions=True,
        attn_scale=shape["d_head"] ** -0.5 if hf.take("scale_attn_weights", True) else 1.0,
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

"""StableLM, also as `stablelm_epoch`: Llama with LayerNorms, and with rotary positions in part of each head."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    # The names of stablelm_epoch, from before transformers had the family: rope_pct, norm_eps, num_heads.
    hf.ignore("num_heads")  # num_attention_heads says the same
    hf.expect("rotary_scaling_factor", 1.0)
    share, eps = hf.take("rope_pct", 0.25), hf.take("norm_eps", 1e-5)
    parallel = hf.take("use_parallel_residual", False)
    shape = hf.shape(n_kv_heads=32, n_positions=4096)
    return DecoderConfig(
        model_type="stablelm",
        **shape,
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_eps", eps),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        parallel=parallel,
        shared_norm=parallel,
        rotary=hf.rotary(shape, share=share),
        attn_scale=shape["d_head"] ** -0.5,
        qk_norm="head" if hf.take("qk_layernorm", False) else "none",
        qkv_bias=hf.take("use_qkv_bias", False),
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    """The norm of each head is a stored tensor of its own."""
    return rows.llama(config, source="layers.{i}.self_attn.{x}_layernorm.norms.{j}", of_heads=True)

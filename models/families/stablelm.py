"""StableLM: LayerNorm around a gated MLP, rotary positions in a part of each head, grouped queries."""

from jaxconf.models.config import Attributes, DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."
HEAD = "lm_head.weight"
IGNORED = rows.ROTARY


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("qk_layernorm", False)
    parallel = hf.take("use_parallel_residual", False)
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
        norm_bias=True,
        norm_eps=hf.take("layer_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        parallel=parallel,
        shared_norm=parallel,
        rotary=hf.rotary(d_head, share=0.25),
        attn_scale=d_head**-0.5,
        qkv_bias=hf.take("use_qkv_bias", False),
        tied=hf.take("tie_word_embeddings", False),
    )


leaves = rows.llama

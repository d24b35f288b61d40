"""Phi-3 and Phi-4-mini: Llama with fused projections, and with LongRoPE in the long-context models."""

from jaxconf.models.attributes import Attributes, read_rotary
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf, Part

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    for name, assumed in (
        ("attention_bias", False),
        ("mlp_bias", False),
        ("lm_head_bias", False),
        ("full_attn_mod", 1),
        ("interpolate_factor", 1),
    ):
        hf.expect(name, assumed)
    shape = hf.shape(n_positions=4096, head_dim=0)
    rope = {"original_max_position_embeddings": hf.take("original_max_position_embeddings", 4096)} | hf.rotary_values()
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope["rope_type"] = "longrope" if kind in ("su", "yarn") else kind  # the first releases' names
    if rope["rope_type"] == "default":
        rope = {name: rope[name] for name in ("rope_theta", "partial_rotary_factor", "rope_type")}
    return DecoderConfig(
        model_type="phi3",
        **shape,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=read_rotary(rope, shape["d_head"], shape["n_positions"]),
        attn_scale=shape["d_head"] ** -0.5,
        windows=hf.windows(shape["n_layers"]),
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    layer = "layers.{i}."
    qkv = layer + "self_attn.qkv_proj.weight"
    h, g = config.n_heads, config.n_kv_heads
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        *rows.norm(config, "blocks/ln1", layer + "input_layernorm"),
        Leaf("blocks/attn/wq", rows.W_Q, qkv, "(a k) d -> d a k", Part(0, h, h + 2 * g)),
        Leaf("blocks/attn/wk", rows.W_KV, qkv, "(a k) d -> d a k", Part(h, h + g, h + 2 * g)),
        Leaf("blocks/attn/wv", rows.W_KV, qkv, "(a k) d -> d a k", Part(h + g, h + 2 * g, h + 2 * g)),
        *rows.attention_out(config, layer + "self_attn.o_proj"),
        *rows.norm(config, "blocks/ln2", layer + "post_attention_layernorm"),
        *rows.fused_gate(layer + "mlp.gate_up_proj.weight"),
        *rows.mlp(config, w_out=layer + "mlp.down_proj"),
        *rows.norm(config, "ln_final", "norm"),
        *rows.head(config),
    )

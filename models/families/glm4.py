"""GLM-4-0414: Llama with norms before and after attention and MLP, and rotary pairs in half of each head."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    shape = hf.shape(n_kv_heads=2, n_positions=131072, head_dim=128)
    return DecoderConfig(
        model_type="glm4",
        **shape,
        norm="rms",
        norm_place="both",
        norm_eps=hf.take("rms_norm_eps", 0.00000015625),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape, share=0.5, pairs=True),
        attn_scale=shape["d_head"] ** -0.5,
        qkv_bias=hf.take("attention_bias", True),
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    layer = "layers.{i}."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        *rows.norm(config, "blocks/ln1", layer + "input_layernorm"),
        *rows.attention(config),
        *rows.norm(config, "blocks/ln1_post", layer + "post_self_attn_layernorm"),
        *rows.norm(config, "blocks/ln2", layer + "post_attention_layernorm"),
        *rows.fused_gate(layer + "mlp.gate_up_proj.weight"),
        *rows.mlp(config, w_out=layer + "mlp.down_proj"),
        *rows.norm(config, "blocks/ln2_post", layer + "post_mlp_layernorm"),
        *rows.norm(config, "ln_final", "norm"),
        *rows.head(config),
    )

"""Mixtral: Mistral with a mixture of experts in place of the MLP."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import mixtures, rows
from jaxconf.models.leaves import Leaf

PREFIX = "model."
FUSED = {
    "mlp.gate.weight": ("block_sparse_moe.gate.weight",),
    "mlp.experts.gate_up_proj": (
        "block_sparse_moe.experts.{e}.w1.weight",
        "block_sparse_moe.experts.{e}.w3.weight",
    ),
    "mlp.experts.down_proj": ("block_sparse_moe.experts.{e}.w2.weight",),
}


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("router_jitter_noise")
    shape = hf.shape(n_kv_heads=8, n_positions=4096 * 32, head_dim=0)
    return DecoderConfig(
        model_type="mixtral",
        **shape | mixtures.sizes(hf, shape["d_mlp"], n_experts=8, per_token=2),
        router_normalized=True,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape, base=1e6),
        attn_scale=shape["d_head"] ** -0.5,
        windows=hf.windows(shape["n_layers"]),
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    return rows.llama(config, rows.experts(config, "layers.{i}.block_sparse_moe.", "w1", "w3", "w2"))

"""GPT-OSS: a mixture of experts with biases and a clipped SwiGLU, and attention with sinks and alternating windows.

Its published weights are quantized (MXFP4) and are refused. What transformers saves after dequantizing them loads.
"""

from jaxconf.models.attributes import Attributes, read_rotary
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import mixtures, rows
from jaxconf.models.leaves import Leaf, Part

PREFIX = "model."
EXPERTS = ("gate_up_proj", "gate_up_proj_bias", "down_proj")
FUSED = {f"mlp.experts.{name}": (f"mlp.experts.{name}[{{e}}]",) for name in EXPERTS}
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("experts_per_token", "initial_context_length")
    hf.expect("hidden_act", "silu")
    shape = hf.shape(n_kv_heads=8, n_positions=131072, head_dim=64)
    rotary = hf.rotary_values(base=150000.0)
    if not {"rope_type", "type"} & rotary.keys():
        rotary |= YARN
    return DecoderConfig(
        model_type="gpt_oss",
        **shape | mixtures.sizes(hf, shape["d_mlp"], n_experts=128, per_token=4),
        router_normalized=True,
        router_bias=True,
        norm="rms",
        norm_eps=hf.take("rms_norm_eps", 1e-5),
        activation="silu",
        silu_beta=hf.take("swiglu_alpha", 1.702),
        mlp_clip=hf.take("swiglu_limit", 7.0),
        linear_offset=1.0,
        gated=True,
        mlp_bias=True,
        rotary=read_rotary(rotary, shape["d_head"], shape["n_positions"]),
        attn_scale=shape["d_head"] ** -0.5,
        attn_sinks=True,
        windows=hf.windows(shape["n_layers"], lambda layer: layer % 2 == 0, size=128),
        **hf.attention_biases(True),
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    """Gate and input weights of an expert are the columns, in turn, of one tensor."""
    mlp, up = "layers.{i}.mlp.", "layers.{i}.mlp.experts.gate_up_proj"
    read, bias = ("layers", "embed", "mlp"), ("layers", "mlp")
    of_mlp = (
        Leaf("blocks/mlp/router", ("layers", "embed", "experts"), mlp + "router.weight", "e d -> d e"),
        Leaf("blocks/mlp/router_bias", ("layers", "experts"), mlp + "router.bias", init="zeros"),
        Leaf("blocks/mlp/w_gate", read, up + "[{e}]", "d (m a) -> d (m a)", Part(0, 1, 2)),
        Leaf("blocks/mlp/w_in", read, up + "[{e}]", "d (m a) -> d (m a)", Part(1, 2, 2)),
        Leaf("blocks/mlp/w_out", ("layers", "mlp", "embed"), mlp + "experts.down_proj[{e}]", init="residual"),
        Leaf("blocks/mlp/b_gate", bias, up + "_bias[{e}]", "(m a) -> (m a)", Part(0, 1, 2), init="zeros"),
        Leaf("blocks/mlp/b_in", bias, up + "_bias[{e}]", "(m a) -> (m a)", Part(1, 2, 2), init="zeros"),
        Leaf("blocks/mlp/b_out", ("layers", "experts", "embed"), mlp + "experts.down_proj_bias", init="zeros"),
        Leaf("blocks/attn/sinks", ("layers", "heads"), "layers.{i}.self_attn.sinks"),
    )
    return rows.llama(config, of_mlp)

"""Cohere's Command R7B and Command A: Command R with a window in three of four layers; the others have no positions."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import NO_WINDOW, DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("cache_implementation", "layer_switch")  # layer_switch says the same as sliding_window_pattern
    for name, assumed in (
        ("order_of_interleaved_layers", "local_attn_first"),
        ("position_embedding_type", "rope_gptj"),
        ("rotary_pct", 1.0),
        ("use_embedding_sharing", True),
        ("use_gated_activation", True),
        ("use_parallel_block", True),
        ("use_parallel_embedding", False),
        ("use_qk_norm", False),
    ):
        hf.expect(name, assumed)
    shape = hf.shape(n_positions=8192)
    hf.expect("head_dim", shape["d_head"])
    period = hf.take("sliding_window_pattern", hf.take("_sliding_window_pattern", 4))
    windows = hf.windows(shape["n_layers"], lambda layer: (layer + 1) % period != 0, size=4096)
    return DecoderConfig(
        model_type="cohere2",
        **shape,
        norm="layer",
        norm_eps=hf.take("layer_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        parallel=True,
        shared_norm=True,
        rotary=hf.rotary(shape, pairs=True),
        unrotated=tuple(i for i in range(shape["n_layers"]) if not windows or windows[i] == NO_WINDOW),
        attn_scale=shape["d_head"] ** -0.5,
        windows=windows,
        **hf.attention_biases(),
        logit_scale=float(hf.take("logit_scale", 0.0625)),
        tied=hf.take("tie_word_embeddings", True),
    )


leaves = rows.llama

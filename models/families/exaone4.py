"""EXAONE 4: Llama with norms after attention and MLP, and normed heads; only layers with a window are rotated."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import NO_WINDOW, DecoderConfig
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("cache_implementation")
    shape = hf.shape(head_dim=0)
    windows, unrotated = _layers(hf, shape["n_layers"])
    return DecoderConfig(
        model_type="exaone4",
        **shape,
        norm="rms",
        norm_place="post",
        norm_eps=hf.take("rms_norm_eps", 1e-5),
        activation=hf.activation("hidden_act", "silu"),
        gated=True,
        rotary=hf.rotary(shape),
        unrotated=unrotated,
        attn_scale=shape["d_head"] ** -0.5,
        windows=windows,
        qk_norm="head",
        tied=hf.take("tie_word_embeddings", False),
    )


def _layers(hf: Attributes, n_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The windows, and the layers that are not rotated: those without a window, if `sliding_window` is not null."""
    size, pattern = hf.take_or_null("sliding_window", 4096), hf.take("sliding_window_pattern", 4)
    if size is None:
        hf.ignore("layer_types")
        return (), ()

    def sliding(layer: int) -> bool:
        if isinstance(pattern, str):  # such as LLLG: three local layers, then a global one; the last layer is global
            return pattern[layer % len(pattern)] == "L" and layer < n_layers - 1
        return (layer + 1) % pattern != 0

    windows = hf.windows(n_layers, sliding, size)
    return windows, tuple(i for i in range(n_layers) if not windows or windows[i] == NO_WINDOW)


leaves = rows.llama

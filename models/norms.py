"""LayerNorm and RMSNorm in float32, also with a constant in place of σ, and the norm "none", which changes nothing.

Letters: … leading axes, d model width.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxconf.models.config import DecoderConfig
from jaxconf.models.sites import Sites


def centre(config: DecoderConfig, x: jax.Array) -> jax.Array:
    """x [… d] minus its mean over d if the model uses LayerNorm; x itself if it uses RMSNorm or no norm."""
    return x - x.mean(-1, keepdims=True) if config.norm == "layer" else x


def norm_scale(config: DecoderConfig, centred: jax.Array) -> jax.Array:
    """σ [… 1] = √(mean(x²) + eps) of a centred x [… d]; a constant where `config.frozen_scale` is one."""
    if config.frozen_scale is not None:
        return jnp.full_like(centred[..., :1], config.frozen_scale)
    return jnp.sqrt(jnp.mean(centred * centred, -1, keepdims=True) + config.norm_eps)


def norm(config: DecoderConfig, params: dict[str, Any], x: jax.Array, sites: Sites, name: str) -> jax.Array:
    """x [… d], normed, with gain and bias, in the dtype of x.

    Its sites are `{name}.hook_scale` [… 1] and `{name}.hook_normalized` [… d].
    """
    centred = centre(config, x.astype(jnp.float32))
    scale = sites(f"{name}.hook_scale", norm_scale(config, centred))
    normalized = sites(f"{name}.hook_normalized", centred / scale)
    y = normalized * gain(config, params)
    return (y + params["bias"] if config.norm_bias else y).astype(x.dtype)


def gain(config: DecoderConfig, params: dict[str, Any]) -> jax.Array | float:
    """The gain of a norm, float32 [d], or 1 if the model's norms have no parameters."""
    return config.gain_offset + params["scale"].astype(jnp.float32) if config.norm_gain else 1.0

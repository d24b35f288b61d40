"""LayerNorm and RMSNorm in float32. Letters: … leading axes, d model width."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxconf.models.config import DecoderConfig
from jaxconf.models.sites import Sites


def centre(config: DecoderConfig, x: jax.Array) -> jax.Array:
    """x [… d] as the model's norm sees it: LayerNorm takes away the mean over d, RMSNorm nothing."""
    return x - x.mean(-1, keepdims=True) if config.norm == "layer" else x


def norm_scale(config: DecoderConfig, centred: jax.Array) -> jax.Array:
    """σ [… 1] = √(mean(x²) + eps) of a centred x [… d]."""
    return jnp.sqrt(jnp.mean(centred * centred, -1, keepdims=True) + config.norm_eps)


def norm(config: DecoderConfig, params: dict[str, Any], x: jax.Array, sites: Sites, name: str) -> jax.Array:
    """The norm of x [… d] with gain and bias; sites `{name}.hook_scale` [… 1] and `{name}.hook_normalized` [… d]."""
    centred = centre(config, x.astype(jnp.float32))
    scale = sites(f"{name}.hook_scale", norm_scale(config, centred))
    normalized = sites(f"{name}.hook_normalized", centred / scale)
    y = normalized * gain(config, params)
    return (y + params["bias"] if config.norm_bias else y).astype(x.dtype)


def gain(config: DecoderConfig, params: dict[str, Any]) -> jax.Array | float:
    """What a norm multiplies by, [d], or 1 where it has no parameters."""
    return config.gain_offset + params["scale"].astype(jnp.float32) if config.norm_gain else 1.0

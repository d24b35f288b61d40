"""Causal self-attention. Letters: b batch, t position, q and s query and source position, d model width, h head, g key/value head, k head width."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxconf.models.config import DecoderConfig
from jaxconf.models.positions import rotate
from jaxconf.models.products import product
from jaxconf.models.sites import Sites

# Queries are taken in blocks, so that nearly half of the scores, those of later sources, are never computed: blocks of at least so many
# positions, and at most so many blocks, for the compiler's sake.
QUERIES = 64
BLOCKS = 8


def attention(config: DecoderConfig, params: dict[str, Any], x: jax.Array, layer: jax.Array, sites: Sites) -> jax.Array:
    """What attention adds to the stream, [b t d], from the normed stream x [b t d]; scores and softmax are float32."""
    Q = product(x, params["wq"])
    K = product(x, params["wk"])
    V = product(x, params["wv"])
    if config.qkv_bias:
        Q, K, V = Q + params["bq"], K + params["bk"], V + params["bv"]
    if config.qkv_clip is not None:
        Q, K, V = (jnp.clip(a, -config.qkv_clip, config.qkv_clip) for a in (Q, K, V))
    Q, K, V = sites("attn.hook_q", Q), sites("attn.hook_k", K), sites("attn.hook_v", V)
    if config.qk_norm:
        Q, K = _head_norm(config, params["q_norm"], Q), _head_norm(config, params["k_norm"], K)
    if config.rotary is not None:
        turned_q, turned_k = rotate(config.rotary, Q), rotate(config.rotary, K)
        if config.unrotated:
            turned = jnp.isin(layer, jnp.array(config.unrotated), invert=True)
            turned_q, turned_k = jnp.where(turned, turned_q, Q), jnp.where(turned, turned_k, K)
        Q, K = sites("attn.hook_rot_q", turned_q), sites("attn.hook_rot_k", turned_k)
    group = config.n_heads // config.n_kv_heads
    K, V = jnp.repeat(K, group, axis=2), jnp.repeat(V, group, axis=2)  # b s h k

    t = x.shape[1]

    def mixed(begin: int, end: int) -> jax.Array:
        """What the queries of positions [begin, end) gather, b q h k; sources after the last of them are left out."""
        q, k, v = Q[:, begin:end], K[:, :end], V[:, :end]
        scores = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32) * config.attn_scale
        if config.attn_scale_by_layer:
            scores = scores / (layer + 1)
        # Added from an array of its own: selected inside the softmax's loops the mask costs more than the softmax (XLA on CPU).
        back = jnp.arange(begin, end)[:, None] - jnp.arange(end)  # q s
        seen = (back >= 0) & (back < jnp.array(config.windows)[layer]) if config.windows else back >= 0
        mask = jax.lax.optimization_barrier(jnp.where(seen, 0.0, -jnp.inf))
        scores = sites("attn.hook_attn_scores", scores + mask)
        pattern = sites("attn.hook_pattern", jax.nn.softmax(scores, axis=-1))
        return jnp.einsum("bhqs,bshk->bqhk", pattern.astype(v.dtype), v)

    whole = sites.used("attn.hook_attn_scores", "attn.hook_pattern")
    rows = t if whole else max(QUERIES, -(-t // BLOCKS))
    z = jnp.concatenate([mixed(begin, min(begin + rows, t)) for begin in range(0, t, rows)], axis=1)
    z = sites("attn.hook_z", z)
    out = product(z, params["wo"], axes=2)
    return out + params["bo"] if config.attn_out_bias else out


def _head_norm(config: DecoderConfig, gain: jax.Array, x: jax.Array) -> jax.Array:
    """RMSNorm of each head of x [b t h k], with one gain [k] for all heads."""
    x32 = x.astype(jnp.float32)
    return (x32 / jnp.sqrt(jnp.mean(x32 * x32, -1, keepdims=True) + config.norm_eps) * gain).astype(x.dtype)

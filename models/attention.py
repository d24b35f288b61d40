"""Causal self-attention.

Letters: b batch, t position, q and s query and source position, d model width, h head, g key/value head, k head width,
S slots of a cache.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxconf.models.config import NO_WINDOW, DecoderConfig
from jaxconf.models.norms import centre, norm_scale
from jaxconf.models.positions import alibi_slopes, rotate, turns
from jaxconf.models.products import product
from jaxconf.models.sites import Sites
from jaxconf.models.softcap import capped

# Queries are taken in blocks, so that the scores of later sources, nearly half of all, are never computed.
QUERIES = 64  # positions of a block, at least
BLOCKS = 8  # at most, since each is compiled

KeysValues = tuple[jax.Array, jax.Array]  # of one layer or of all, […] b S g k each; keys are rotated


@struct.dataclass
class Places:
    """Where the tokens of a pass stand in their texts, counted from 0; what stands below 0 is padding."""

    queries: jax.Array  # int [1 t] or [b t]
    sources: jax.Array  # int [1 s] or [b s]: the same, or with a cache all of its slots
    begin: jax.Array  # the first query's slot, int []


def attention(
    config: DecoderConfig,
    params: dict[str, Any],
    x: jax.Array,
    layer: jax.Array,
    places: Places,
    past: KeysValues | None,
    sites: Sites,
) -> tuple[jax.Array, KeysValues | None]:
    """What attention adds to the stream, [b t d], and `past` with the keys and values of x put in.

    x [b t d]: the normed stream; without `past`, that of the whole text. Scores and softmax are float32.
    """
    Q = product(x, params["wq"])
    K = product(x, params["wk"])
    V = product(x, params["wv"])
    if config.qkv_bias:
        Q, K, V = Q + params["bq"], K + params["bk"], V + params["bv"]
    if config.qkv_clip is not None:
        Q, K, V = (jnp.clip(a, -config.qkv_clip, config.qkv_clip) for a in (Q, K, V))
    Q, K, V = sites("attn.hook_q", Q), sites("attn.hook_k", K), sites("attn.hook_v", V)
    if config.qk_norm != "none":
        Q, K = _head_norm(config, params, "q_norm", Q), _head_norm(config, params, "k_norm", K)
    if config.rotary is not None:
        cos, sin = _turns(config, layer, places)
        turned_q, turned_k = rotate(Q, cos, sin, config.rotary.pairs), rotate(K, cos, sin, config.rotary.pairs)
        if config.unrotated:
            turned = jnp.isin(layer, jnp.array(config.unrotated), invert=True)
            turned_q, turned_k = jnp.where(turned, turned_q, Q), jnp.where(turned, turned_k, K)
        Q, K = sites("attn.hook_rot_q", turned_q), sites("attn.hook_rot_k", turned_k)
    if past is not None:
        K, V = (
            jax.lax.dynamic_update_slice_in_dim(old, new, places.begin, axis=1)
            for old, new in zip(past, (K, V), strict=True)
        )
        past = K, V
    group = config.n_heads // config.n_kv_heads
    K, V = jnp.repeat(K, group, axis=2), jnp.repeat(V, group, axis=2)  # b s h k

    def mixed(begin: int, end: int, stop: int) -> jax.Array:
        """What the queries [begin, end) gather from the sources before `stop`, b q h k."""
        q, k, v = Q[:, begin:end], K[:, :stop], V[:, :stop]
        scores = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32)
        scores = _bounded(config, scores, layer, places.sources[:, :stop])
        # An array of its own is added: inside the softmax's loops the mask would cost more than the softmax (XLA on
        # CPU).
        seen = _seen(config, layer, places.queries[:, begin:end], places.sources[:, :stop])
        mask = jax.lax.optimization_barrier(jnp.where(seen, 0.0, -jnp.inf))
        scores = sites("attn.hook_attn_scores", scores + mask)
        pattern = sites("attn.hook_pattern", jax.nn.softmax(scores, axis=-1))
        return jnp.einsum("bhqs,bshk->bqhk", pattern.astype(v.dtype), v)

    t = x.shape[1]
    if past is not None or sites.used("attn.hook_attn_scores", "attn.hook_pattern"):
        z = mixed(0, t, K.shape[1])
    else:
        rows = max(QUERIES, -(-t // BLOCKS))
        z = jnp.concatenate([mixed(i, min(i + rows, t), min(i + rows, t)) for i in range(0, t, rows)], axis=1)
    z = sites("attn.hook_z", z)
    out = product(z, params["wo"], axes=2)
    return (out + params["bo"] if config.attn_out_bias else out), past


def _turns(config: DecoderConfig, layer: jax.Array, places: Places) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the layer's rotation, [1 t r] or [b t r]."""
    assert config.rotary is not None
    length = places.sources.shape[1]
    cos, sin = turns(config.rotary, places.queries, length)
    if config.local_rotary is None:
        return cos, sin
    local = jnp.array(config.windows)[layer] < NO_WINDOW
    local_cos, local_sin = turns(config.local_rotary, places.queries, length)
    return jnp.where(local, local_cos, cos), jnp.where(local, local_sin, sin)


def _bounded(config: DecoderConfig, scores: jax.Array, layer: jax.Array, sources: jax.Array) -> jax.Array:
    """The scaled scores [b h q s], with ALiBi or a soft cap, from the products of queries and keys."""
    if config.alibi == "rounded":
        rise = _rounded(
            _rounded(alibi_slopes(config.n_heads))[:, None] * _rounded(sources.astype(jnp.float32))[:, None]
        )
        scores = scores + rise[:, :, None]
    scores = scores * config.attn_scale
    if config.alibi == "exact":
        scores = scores + (alibi_slopes(config.n_heads)[:, None] * sources[:, None])[:, :, None]
    if config.attn_scale_by_layer:
        scores = scores / (layer + 1)
    return capped(scores, config.attn_softcap)


def _rounded(x: Any) -> jax.Array:
    """float32 x rounded to bfloat16's precision. XLA may leave out a cast there and back."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def _seen(config: DecoderConfig, layer: jax.Array, queries: jax.Array, sources: jax.Array) -> jax.Array:
    """Which sources each query attends to, bool [1 1 q s] or [b 1 q s].

    Padding attends to itself, since the softmax of nothing is not a number.
    """
    back = queries[:, :, None] - sources[:, None]
    seen = (back >= 0) & ((sources[:, None] >= 0) | (back == 0))
    if config.windows:
        seen &= back < jnp.array(config.windows)[layer]
    return seen[:, None]


def _head_norm(config: DecoderConfig, params: dict[str, Any], name: str, x: jax.Array) -> jax.Array:
    """The norm of each head of x [b t h k], or of all heads together, with its gain ([k] or [h k]) and bias."""
    x32 = x.astype(jnp.float32)
    centred = centre(config, x32.reshape(*x.shape[:2], 1, -1) if config.qk_norm == "all" else x32)
    y = (centred / norm_scale(config, centred)).reshape(x.shape) * (config.gain_offset + params[name])
    return (y + params[f"{name}_bias"] if config.qk_norm_bias else y).astype(x.dtype)

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
from jaxconf.models.positions import alibi_slopes, grown, rotate, turns
from jaxconf.models.products import product
from jaxconf.models.sites import Sites
from jaxconf.models.softcap import capped

# Queries are processed in blocks. A block computes no scores for sources after its last query, which saves nearly half
# of all scores.
QUERIES = 64  # the smallest number of queries in a block
BLOCKS = 8  # the largest number of blocks, since each is compiled separately

KeysValues = tuple[jax.Array, jax.Array]  # b S g k each, with a first axis of layers if of all layers; keys are rotated


@struct.dataclass
class Places:
    """The positions of a pass's tokens in their texts, counted from 0; a negative position is padding."""

    queries: jax.Array  # int [1 t] or [b t]
    sources: jax.Array  # int [1 s] or [b s]: the queries' positions, or with a cache those of all its slots
    begin: jax.Array  # the cache's slot of the first query, int []


def attention(
    config: DecoderConfig,
    params: dict[str, Any],
    x: jax.Array,
    layer: jax.Array,
    places: Places,
    past: KeysValues | None,
    sites: Sites,
) -> tuple[jax.Array, KeysValues | None]:
    """The output of attention, [b t d], and `past` with the keys and values of x written into it.

    x [b t d]: the normed stream, which without `past` is that of the whole text. Scores and softmax are float32.
    """
    Q = product(x, params["wq"])
    K = product(x, params["wk"])
    V = product(x, params["wv"])
    if config.qkv_bias:
        Q, K, V = Q + params["bq"], K + params["bk"], V + params["bv"]
    if config.qk_norm == "none":
        Q, K = _clipped(config, Q), _clipped(config, K)
    Q, K, V = sites("attn.hook_q", Q), sites("attn.hook_k", K), sites("attn.hook_v", _clipped(config, V))
    if config.qk_norm != "none":
        Q, K = (_clipped(config, _head_norm(config, params, name, x)) for name, x in (("q_norm", Q), ("k_norm", K)))
    if config.rotary is not None:
        cos, sin = _turns(config, layer, places)
        turned_q, turned_k = rotate(Q, cos, sin, config.rotary.pairs), rotate(K, cos, sin, config.rotary.pairs)
        if config.unrotated:
            turned = jnp.isin(layer, jnp.array(config.unrotated), invert=True)
            turned_q, turned_k = jnp.where(turned, turned_q, Q), jnp.where(turned, turned_k, K)
        Q, K = sites("attn.hook_rot_q", turned_q), sites("attn.hook_rot_k", turned_k)
        Q = grown(config.rotary, Q, places.queries)
    if past is not None:
        K, V = (
            jax.lax.dynamic_update_slice_in_dim(old, new, places.begin, axis=1)
            for old, new in zip(past, (K, V), strict=True)
        )
        past = K, V
    group = config.n_heads // config.n_kv_heads
    K, V = jnp.repeat(K, group, axis=2), jnp.repeat(V, group, axis=2)  # b s h k

    def mixed(begin: int, end: int, stop: int) -> jax.Array:
        """The values of the sources [0, stop), weighted by the pattern of the queries [begin, end): b q h k."""
        q, k, v = Q[:, begin:end], K[:, :stop], V[:, :stop]
        scores = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32)
        scores = _scaled(config, scores, layer, places.sources[:, :stop])
        # The barrier makes XLA compute the mask on its own. Fused into the softmax's loops, the mask would take longer
        # than the softmax on a CPU.
        seen = _seen(config, layer, places.queries[:, begin:end], places.sources[:, :stop])
        mask = jax.lax.optimization_barrier(jnp.where(seen, 0.0, -jnp.inf))
        scores = sites("attn.hook_attn_scores", scores + mask)
        if config.attn_sinks:
            sinks = jnp.broadcast_to(params["sinks"].astype(jnp.float32)[:, None, None], (*scores.shape[:-1], 1))
            pattern = jax.nn.softmax(jnp.concatenate([scores, sinks], -1), axis=-1)[..., :-1]
        else:
            pattern = jax.nn.softmax(scores, axis=-1)
        pattern = sites("attn.hook_pattern", pattern)
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


def _clipped(config: DecoderConfig, x: jax.Array) -> jax.Array:
    return x if config.qkv_clip is None else jnp.clip(x, -config.qkv_clip, config.qkv_clip)


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


def _scaled(config: DecoderConfig, scores: jax.Array, layer: jax.Array, sources: jax.Array) -> jax.Array:
    """The products of queries and keys [b h q s], scaled, with ALiBi and a soft cap if the model has them."""
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
    """float32 x rounded to bfloat16's precision. (XLA may drop a cast to bfloat16 and back.)"""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def _seen(config: DecoderConfig, layer: jax.Array, queries: jax.Array, sources: jax.Array) -> jax.Array:
    """Which sources each query attends to, bool [1 1 q s] or [b 1 q s].

    Padding attends to itself, since a softmax over no sources would be NaN.
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

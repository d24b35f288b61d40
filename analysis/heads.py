"""The effects of ablating what single heads of the last layer's attention write, and its output bias.

Letters: s window, t position, q position that counts, h head, k head width, d model width, c writer (a head, the bias,
or a null of one).

A head writes z_h·W_O,h: at each position another direction, in a space of k dimensions. A change δ of z_h changes what
attention adds to the stream by Δ = δ·W_O,h. A norm behind attention (Gemma 2) makes it

    Δ = (σ_o/σ_o' − 1)·p + (δ/σ_o')·γ ⊙ W_O,h    o what enters that norm, σ_o its scale, and p = γ ⊙ o/σ_o

as `ablated_sets.moved` adds it. The total effect runs the MLP again on the stream with Δ. The direct effect adds Δ to
the stream behind the MLP. In parallel blocks, where the MLP does not read what attention writes, the two are the same.
Source: Stolfo et al. 2024 (arXiv 2406.16254), section 3.2, for other components than neurons.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.ablated_sets import Behind, moved
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.set_effects import changes_of_sets, sums_of_set
from jaxconf.analysis.streamed_sets import Moved, Unembedded, unembedded
from jaxconf.analysis.unembedding import Readout
from jaxconf.analysis.whole_logits import Changes, Prediction
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward, layer_norm
from jaxconf.models.norms import centre, gain
from jaxconf.models.sites import Replace


class Writers(NamedTuple):
    """Rows that are multiplied by a change and added to the stream. A bias has one row that is not 0."""

    rows: jax.Array  # c k d: as they enter the norm behind attention, if there is one
    written: jax.Array  # c k d: with the gain of that norm; those of a null are turned at random


class Attention(NamedTuple):
    """The last attention at the positions that count, and what the effects of all writers share."""

    resid: jax.Array  # s q d: the stream that enters the layer
    z: jax.Array  # s q h k
    out: jax.Array  # s q d: what attention adds to the stream
    stream: jax.Array  # s q d: the stream behind the layer
    post: Behind | None  # the norm behind attention, whose p is not centred; None in models without one
    before: Unembedded  # s q
    base: Any  # the sums of the unablated model, 1 s q


@functools.partial(jax.jit, static_argnames="config")
def head_values(config: DecoderConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """z of every head of the last layer, float32 [s t h k], for tokens int [s t]."""
    site = f"blocks.{config.n_layers - 1}.attn.hook_z"
    captured = forward(config, params, tokens, capture=[site], stop_at_layer=config.n_layers).captured
    return captured[site].astype(jnp.float32)


def head_writers(config: DecoderConfig, params: Params) -> Writers:
    """The heads of the last layer, c = h."""
    return _writers(config, params, params["blocks"]["attn"]["wo"][-1].astype(jnp.float32))


def bias_writer(config: DecoderConfig, params: Params) -> Writers:
    """The output bias of the last attention, as a writer with one row."""
    return _writers(config, params, params["blocks"]["attn"]["bo"][-1].astype(jnp.float32)[None, None])


def _writers(config: DecoderConfig, params: Params, rows: jax.Array) -> Writers:
    return Writers(rows, rows * _factor(config, params))


def _factor(config: DecoderConfig, params: Params) -> Any:
    """What attention's output is multiplied by before it is added to the stream, beside the scale of a norm, [d]."""
    if config.norm_place in ("post", "both"):
        return config.residual_scale * gain(config, layer_norm(params, "ln1_post", -1))
    return config.residual_scale


@functools.partial(jax.jit, static_argnames="config")
def turned(config: DecoderConfig, written: jax.Array, key: jax.Array) -> jax.Array:
    """Rows [k d] in a random subspace of k dimensions, with the lengths and angles that the rows `written` have.

    Where the final norm is LayerNorm, both are without a mean over d, which every norm that reads them ignores.
    """
    own = centre(config.final, written)
    drawn = centre(config.final, jax.random.normal(key, written.shape))
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.qr(own.T)[1].T @ jnp.linalg.qr(drawn.T)[0].T


@functools.partial(jax.jit, static_argnames="config")
def compiled_attention(
    config: DecoderConfig,
    params: Params,
    readout: Readout,
    frequency: Frequency,
    tokens: jax.Array,
    positions: jax.Array,
) -> tuple[Attention, Prediction]:
    """The last attention at the `positions`, int [q], of windows `tokens`, int [s t], and the unablated predictions.

    `readout`: in the paper's convention.
    """
    last = f"blocks.{config.n_layers - 1}."
    names = ["hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_post"]
    behind = ["ln1_post.hook_normalized", "ln1_post.hook_scale"] if config.norm_place in ("post", "both") else []
    sites = [last + name for name in (*names, *behind)]
    captured = forward(config, params, tokens, capture=sites, stop_at_layer=config.n_layers).captured
    resid, z, out, stream, *norm = (captured[site][:, positions].astype(jnp.float32) for site in sites)
    post = Behind(norm[0] * norm[1], norm[1], norm[0] * _factor(config, params)) if norm else None
    before, found = unembedded(config, readout, frequency, stream, jnp.roll(tokens, -1, 1)[:, positions])
    base = sums_of_set(config, readout, frequency, before, None, Moved(before.x, None, None))
    return Attention(resid, z, out, stream, post, before, base), found


@functools.partial(jax.jit, static_argnames="config")
def head_changes(
    config: DecoderConfig,
    params: Params,
    readout: Readout,
    frequency: Frequency,
    seen: Attention,
    found: Prediction,
    deltas: jax.Array,
    heads: jax.Array,
    writers: Writers,
) -> tuple[Changes, Changes]:
    """The changes of the total effect of each writer, and those of its direct effect, [c s q]; nats.

    `deltas` [s q h k]: the changes of what is multiplied by rows, of every head. `heads`, int [c]: whose of these each
    writer has. `seen`, `found`: from `compiled_attention`.
    """
    last = config.n_layers - 1
    out_site, stream_site = f"blocks.{last}.hook_attn_out", f"blocks.{last}.hook_resid_post"

    def changes(stream: jax.Array) -> Changes:
        moved = Moved(centre(config.final, stream), None, None)
        sums = sums_of_set(config, readout, frequency, seen.before, None, moved)
        return jax.tree.map(lambda x: x[0], changes_of_sets(config, found, seen.base, sums))

    def one(of: tuple[jax.Array, Writers]) -> tuple[Changes, Changes]:
        head, writer = of
        change = deltas[:, :, head], writer.written, centre(config, writer.rows), seen.post
        with jax.default_matmul_precision("highest"):
            out, direct = (moved(config, x, *change)[0] for x in (seen.out, seen.stream))
        run: dict[str, Any] = {"start_at_layer": last, "stop_at_layer": last + 1, "capture": [stream_site]}
        edits = {out_site: Replace(out)}
        stream = forward(config, params, seen.resid, edits=edits, **run).captured[stream_site]
        return changes(stream.astype(jnp.float32)), changes(direct)

    return jax.lax.map(one, (heads, writers))


@jax.jit
def second_moments(deltas: jax.Array, counted: jax.Array) -> jax.Array:
    """Σ δ·δᵀ over the positions that count, float32 [h k k]; `deltas` [s t h k], `counted` bool [s t]."""
    some = jnp.where(counted[..., None, None], deltas, 0)
    return jnp.einsum("sthk,sthl->hkl", some, some, precision="highest")


@jax.jit
def head_vocabulary(readout: Readout, u: jax.Array, rows: jax.Array, of: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the changes of one writer write to the logits: `logit_var` and the squared cosine with `u`, float32 [].

    They are a neuron's, as means over positions, weighted by the squared length of the change of the stream (of the
    logits, for the second). `rows` [k d]: centred as the readout's directions. `of` [k k]: the mean of δᵀ·δ.
    """
    with jax.default_matmul_precision("highest"):
        written = jnp.sum((of @ rows) * rows)
        M = rows @ readout.W_U  # k v
        lengths = jnp.linalg.norm(readout.W_U, axis=0)
        cosines = jnp.where(lengths > 0, M / lengths, 0)
        centred = cosines - cosines.mean(1, keepdims=True)
        spread = jnp.sum((of @ centred) * centred) / (centred.shape[1] - 1)
        return spread / written, (M @ u) @ of @ (M @ u) / jnp.sum((of @ M) * M)

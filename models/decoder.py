"""The decoder: one pure function for every family, and a Flax module around it.

Letters: b batch, t position, d model width, v vocabulary. Layers are stacked and scanned. Neighbouring layers with the
same captured and edited sites share one scan, so that an edit of one layer costs nothing in the others.
(`nn.scan` would tie the scan to the whole stack; `jax.lax.scan` over slices of plain parameters does not.)
"""

import functools
import itertools
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxconf.models.attention import KeysValues, Places, attention
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import leaves
from jaxconf.models.leaves import Leaf, nest
from jaxconf.models.mlp import mlp
from jaxconf.models.norms import norm
from jaxconf.models.positions import sinusoids
from jaxconf.models.products import product
from jaxconf.models.sites import AddFrom, Edit, Sites, check_name
from jaxconf.models.softcap import capped

Params = dict[str, Any]

# The most neighbouring layers that are run without a loop. That makes the training of small models about a fifth
# faster. For more layers it gains nothing, and compiling takes longer.
UNROLLED = 4


@struct.dataclass
class Cache:
    """The keys and values of earlier tokens, so that a pass takes only the new tokens.

    Letters: l layer, S slot, g key/value head, k head width.
    """

    past: KeysValues  # l b S g k each; keys are rotated
    filled: jax.Array  # slots in use, int []
    padding: jax.Array  # how many slots at the start of each row hold no text, int [b]


@struct.dataclass
class Output:
    """The result of a forward pass.

    `logits`: float32 [b t v], or None if `stop_at_layer` was given. `captured`: site → its value. `cache`: the given
    cache with the tokens of this pass added. `resid`: with `stop_at_layer`, the stream that enters that layer, [b t d].
    """

    logits: jax.Array | None
    captured: dict[str, jax.Array]
    cache: Cache | None = None
    resid: jax.Array | None = None


def forward(
    config: DecoderConfig,
    params: Params,
    inputs: jax.Array,
    edits: Mapping[str, Edit] | None = None,
    capture: Collection[str] = (),
    start_at_layer: int | None = None,
    stop_at_layer: int | None = None,
    cache: Cache | None = None,
    last_only: bool = False,
) -> Output:
    """Run the decoder, or only its layers [start_at_layer, stop_at_layer).

    `inputs`: token ids, int [b t], or with `start_at_layer` the stream that enters that layer, [b t d].
    `stop_at_layer`: the first layer that does not run; then `logits` is None. `edits`: site → edit
    (`jaxconf.models.sites`). `capture`: sites whose values are returned. `cache`: keys and values of earlier tokens in
    all layers; the inputs are the tokens that follow those. `last_only`: logits of the last position only, [b 1 v].
    Raises InputError for unknown sites, sites in layers that do not run, layers that the model does not have, sequences
    longer than the model's positions, and parameters that were loaded without the lower layers.
    """
    check_runnable(params)
    edits = dict(edits or {})
    first, last = start_at_layer or 0, config.n_layers if stop_at_layer is None else stop_at_layer
    if not 0 <= first <= last <= config.n_layers:
        raise InputError(
            f"start_at_layer {first} and stop_at_layer {last} are not a range of the model's layers; "
            f"give 0 ≤ start ≤ stop ≤ {config.n_layers}"
        )
    t = inputs.shape[1]
    if t > config.n_positions:
        raise InputError(f"a sequence of {t} tokens is longer than the model's {config.n_positions} positions; cut it")
    run = (
        {*range(first, last)}
        | ({"embed"} if start_at_layer is None else set())
        | ({"ln_final"} if stop_at_layer is None else set())
    )
    read = [edit.reads for edit in edits.values() if isinstance(edit, AddFrom)]
    for name in (*edits, *capture, *read):
        check_name(name, site_shapes(config))
        if _place(name) not in run:
            raise InputError(
                f"site {str(name)!r} is not run in layers {first} to {last - 1}; run more layers or do not name it"
            )
    # By default, some accelerators multiply float32 matrices at a lower precision.
    with jax.default_matmul_precision("highest"):
        outer, places = Sites(edits, capture), _places(t, cache)
        resid = _embed(config, params, inputs, places, outer) if start_at_layer is None else inputs
        resid = resid.astype(
            jnp.result_type(resid, *jax.tree.leaves(params["blocks"]))
        )  # the scan's stream keeps one dtype
        past = cache.past if cache else None
        resid, captured, past = _run_blocks(config, params["blocks"], resid, first, last, places, past, edits, capture)
        logits = (
            _unembed(config, params, resid[:, -1:] if last_only else resid, outer) if stop_at_layer is None else None
        )
    if cache is not None and past is not None:
        cache = Cache(past, cache.filled + t, cache.padding)
    return Output(logits, captured | outer.captured, cache, None if stop_at_layer is None else resid)


def empty_cache(config: DecoderConfig, params: Params, padding: jax.Array, slots: int) -> Cache:
    """An empty cache with `slots` slots for each row.

    `padding`: how many slots at the start of each row will hold no text, int [b].
    """
    dtype = jnp.result_type(params["embed"]["tokens"], *jax.tree.leaves(params["blocks"]))  # that of the stream
    shape = (config.n_layers, len(padding), slots, config.n_kv_heads, config.d_head)
    return Cache((jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)), jnp.int32(0), padding)


def _places(t: int, cache: Cache | None) -> Places:
    if cache is None:
        at = jnp.arange(t)[None]
        return Places(at, at, jnp.int32(0))
    slots = jnp.arange(cache.past[0].shape[2]) - cache.padding[:, None]
    return Places(cache.filled + jnp.arange(t) - cache.padding[:, None], slots, cache.filled)


def check_runnable(params: Params) -> None:
    """Raises InputError for parameters that were loaded with `layers="last"`."""
    if "attn" not in params["blocks"]:
        raise InputError(
            'only the last layer\'s weights are loaded, which cannot run the model; load it without layers="last"'
        )


def check_tokens(config: DecoderConfig, tokens: np.ndarray) -> None:
    """Raises InputError for a token id outside the vocabulary, which a compiled program would silently clamp."""
    for token in (tokens.min(initial=0), tokens.max(initial=0)):
        if not 0 <= token < config.vocab_size:
            raise InputError(
                f"token id {token} is outside the model's vocabulary of {config.vocab_size}; "
                "give ids below that, which the tokenizer that the model was trained with gives"
            )


def _place(site: str) -> int | str:
    """The part of the decoder that a site belongs to: a layer, "embed" or "ln_final"."""
    if site.startswith("blocks."):
        return int(site.split(".")[1])
    return "ln_final" if site.startswith("ln_final.") else "embed"


def _embed(config: DecoderConfig, params: Params, tokens: jax.Array, places: Places, sites: Sites) -> jax.Array:
    embed = params["embed"]
    resid = embed["tokens"][tokens]
    if config.d_embed is not None:
        resid = product(resid, embed["proj"])
    if config.embed_scale != 1:
        resid = resid * jnp.asarray(config.embed_scale, resid.dtype)
    if config.embed_norm:
        resid = norm(config, params["ln_embed"], resid, sites, "ln_embed")
    resid = sites("hook_embed", resid)
    if config.learned_positions:
        # A negative index would count from the table's end. Padding may get any row.
        resid = resid + sites(
            "hook_pos_embed", jnp.broadcast_to(embed["positions"][jnp.maximum(places.queries, 0)], resid.shape)
        )
    if config.sinusoidal_positions:
        waves = sinusoids(places.queries, config.d_model).astype(resid.dtype)
        resid = resid + sites("hook_pos_embed", jnp.broadcast_to(waves, resid.shape))
    return resid


def _run_blocks(
    config: DecoderConfig,
    blocks: Params,
    resid: jax.Array,
    first: int,
    last: int,
    places: Places,
    past: KeysValues | None,
    edits: Mapping[str, Edit],
    capture: Collection[str],
) -> tuple[jax.Array, dict[str, jax.Array], KeysValues | None]:
    edits_of = {
        i: {name: _edit_within(edits[full], i) for full in edits if (name := _within(full, i))}
        for i in range(first, last)
    }
    capture_of = {i: frozenset(name for full in capture if (name := _within(full, i))) for i in range(first, last)}

    def alike(i: int) -> Any:
        arrays, structure = jax.tree.flatten(edits_of[i])
        return capture_of[i], structure, [(jnp.shape(a), jnp.result_type(a)) for a in arrays]

    captured: dict[str, jax.Array] = {}
    kept: list[KeysValues] = []
    for _, group in itertools.groupby(range(first, last), alike):
        run = list(group)
        sites_here = capture_of[run[0]]

        def body(resid: jax.Array, layer: tuple, sites_here: frozenset[str] = sites_here) -> tuple[jax.Array, tuple]:
            i, params, layer_edits, layer_past = layer
            sites = Sites(layer_edits, sites_here)
            resid, layer_past = _block(config, params, resid, i, places, layer_past, sites)
            return resid, (sites.captured, layer_past)

        stack, stacked_past = jax.tree.map(lambda w, run=run: w[run[0] : run[-1] + 1], (blocks, past))
        stacked_edits = jax.tree.map(lambda *leaf: jnp.stack(leaf), *[edits_of[i] for i in run])
        xs = (jnp.arange(run[0], run[-1] + 1), stack, stacked_edits, stacked_past)
        if len(run) == 1 and edits_of[run[0]]:
            # If edits are mapped by vmap, a scan maps the stream from its start, not only behind the edited site.
            resid, found = body(resid, jax.tree.map(lambda x: x[0], xs))
            values, new_past = jax.tree.map(lambda x: x[None], found)
        else:
            resid, (values, new_past) = jax.lax.scan(body, resid, xs, unroll=len(run) <= UNROLLED)
        captured |= {f"blocks.{i}.{name}": value[j] for name, value in values.items() for j, i in enumerate(run)}
        kept.append(new_past)
    past = jax.tree.map(lambda *runs: jnp.concatenate(runs), *kept) if kept else past
    return resid, captured, past


def _within(site: str, layer: int) -> str:
    prefix = f"blocks.{layer}."
    return site.removeprefix(prefix) if site.startswith(prefix) else ""


def _edit_within(edit: Edit, layer: int) -> Edit:
    if not isinstance(edit, AddFrom):
        return edit
    return AddFrom(_within(edit.reads, layer) or edit.reads, edit.written)  # of another layer, it is never found


def _block(
    config: DecoderConfig,
    params: Params,
    resid: jax.Array,
    layer: jax.Array,
    places: Places,
    past: KeysValues | None,
    sites: Sites,
) -> tuple[jax.Array, KeysValues | None]:
    def normed(name: str, x: jax.Array, *where: str) -> jax.Array:
        return norm(config, params.get(name, {}), x, sites, name) if config.norm_place in where else x

    resid = sites("hook_resid_pre", resid)
    reads = normed("ln1", resid, "pre", "both")
    attn_out, past = attention(config, params["attn"], reads, layer, places, past, sites)
    attn_out = sites("hook_attn_out", _added(config, normed("ln1_post", attn_out, "post", "both")))
    mid = resid if config.parallel else normed("ln1", sites("hook_resid_mid", resid + attn_out), "sum")
    if not config.shared_norm:
        reads = normed("ln2", mid, "pre", "both")
    mlp_out = normed("ln2_post", mlp(config, params["mlp"], reads, sites), "post", "both")
    mlp_out = sites("hook_mlp_out", _added(config, mlp_out))
    post = sites("hook_resid_post", resid + attn_out + mlp_out if config.parallel else mid + mlp_out)
    return normed("ln2", post, "sum"), past


def _added(config: DecoderConfig, out: jax.Array) -> jax.Array:
    return out * jnp.asarray(config.residual_scale, out.dtype) if config.residual_scale != 1 else out


def _unembed(config: DecoderConfig, params: Params, resid: jax.Array, sites: Sites) -> jax.Array:
    normed = resid
    if config.norm_place != "sum":
        normed = norm(config.final, params.get("ln_final", {}), resid, sites, "ln_final")
    if config.d_embed is not None:
        normed = product(normed, params["unembed"]["proj"])
    logits = jnp.einsum("btd,dv->btv", normed, _vocabulary(config, params), preferred_element_type=jnp.float32)
    if config.head_bias:
        logits = logits + params["unembed"]["b"]
    if config.logit_scale != 1:
        logits = logits * config.logit_scale
    return capped(logits, config.logit_softcap)


def _vocabulary(config: DecoderConfig, params: Params) -> jax.Array:
    """The unembedding as stored, [e v]; e is d_embed if the model has one, else d."""
    return params["embed"]["tokens"].T if config.tied else params["unembed"]["w"]


def unembedding(config: DecoderConfig, params: Params, precise: Any = jnp.float32) -> jax.Array:
    """W_U [d v], which in tied models is the transposed embedding.

    In a model with `d_embed` it is the product of the projection and the stored unembedding, computed in the dtype
    `precise`.
    """
    vocabulary = _vocabulary(config, params)
    if config.d_embed is None:
        return vocabulary
    return jnp.matmul(params["unembed"]["proj"].astype(precise), vocabulary.astype(precise), precision="highest")


def final_norm_name(config: DecoderConfig) -> str:
    """The prefix of the names of the final norm's sites."""
    return f"blocks.{config.n_layers - 1}.ln2" if config.norm_place == "sum" else "ln_final"


def final_norm(config: DecoderConfig, params: Params) -> Params:
    """The parameters of the norm before the unembedding; empty if it has none."""
    if config.norm_place == "sum":
        return layer_norm(params, "ln2", -1)
    return params.get("ln_final", {})


def layer_norm(params: Params, name: str, layer: int) -> Params:
    """The parameters of a layer's norm `name`; empty if it has none."""
    return {leaf: value[layer] for leaf, value in params["blocks"].get(name, {}).items()}


@functools.cache
def site_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every site of this decoder, with its shape for one sequence of two tokens, found by tracing the forward pass."""

    def trace(params: Params, tokens: jax.Array) -> dict[str, jax.Array]:
        outer, inner = Sites({}, None), Sites({}, None)
        places = _places(2, None)
        resid = _embed(config, params, tokens, places, outer)
        block = jax.tree.map(lambda w: w[0], params["blocks"])
        _unembed(config, params, _block(config, block, resid, jnp.array(0), places, None, inner)[0], outer)
        return outer.captured | {
            f"blocks.{i}.{name}": value for i in range(config.n_layers) for name, value in inner.captured.items()
        }

    shapes = jax.eval_shape(trace, abstract_params(config), jax.ShapeDtypeStruct((1, 2), jnp.int32))
    return {name: value.shape for name, value in shapes.items()}


def abstract_params(config: DecoderConfig, dtype: Any = jnp.float32) -> Params:
    """The shapes of all parameters, as `jax.ShapeDtypeStruct` of this dtype; no memory is allocated."""
    return nest((leaf.path, jax.ShapeDtypeStruct(leaf.shape(config), dtype)) for leaf in leaves(config))


class Decoder(nn.Module):
    """A Flax module that declares the parameters of the leaf table and calls `forward`.

    `Decoder(config).init(key, tokens)` gives `{"params": …}` with initial values for training; `.apply` takes those
    and the arguments of `forward`. `.init(key, method="parameters")` gives the same without tracing `forward`.
    """

    config: DecoderConfig

    def __call__(self, inputs: jax.Array, **kwargs: Any) -> Output:
        return forward(self.config, self.parameters(), inputs, **kwargs)

    @nn.compact
    def parameters(self) -> Params:
        return {name: self.param(name, _start, self.config, branch) for name, branch in _leaf_tree(self.config).items()}


def _leaf_tree(config: DecoderConfig) -> dict[str, Any]:
    return nest((leaf.path, leaf) for leaf in leaves(config))


def _start(key: jax.Array, config: DecoderConfig, branch: dict[str, Any]) -> Params:
    rows, structure = jax.tree.flatten(branch)
    keys = jax.random.split(key, len(rows))
    return jax.tree.unflatten(structure, [start(leaf, config, key) for leaf, key in zip(rows, keys, strict=True)])


def start(leaf: Leaf, config: DecoderConfig, key: jax.Array) -> jax.Array:
    """A parameter's float32 initial value by GPT-2's recipe: zeros, ones, N(0, 0.02²), or N(0, 0.02²/(2·layers))."""
    shape = leaf.shape(config)
    if leaf.init == "zeros":
        return jnp.zeros(shape)
    if leaf.init == "ones":
        return jnp.ones(shape)
    std = 0.02 / (2 * config.n_layers) ** 0.5 if leaf.init == "residual" else 0.02
    return std * jax.random.normal(key, shape)

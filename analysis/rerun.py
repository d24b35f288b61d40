"""The effects of ablating neuron sets of any layer: the layers above are run again, for many sets at once.

Letters: c neuron set, s window, t position, n neuron, d width, v vocabulary. The three effects are those of
`jaxconf.analysis.effects`. With the norm frozen, either the final norm keeps its unablated scale ("final"), or every
norm above the ablated neurons does ("all"). Source: Stolfo et al. 2024 (arXiv 2406.16254), section 3.2.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.whole_logits import Changes, Prediction, changes, prediction
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, final_norm_name, forward, site_shapes
from jaxconf.models.mlp import of_neurons
from jaxconf.models.norms import centre, norm_scale
from jaxconf.models.sites import Ablate, Add, Edit, Replace

Frozen = Literal["final", "all"]


class NullRows(NamedTuple):
    """The nulls among the sets of one layer: each ablates a neuron, and has another direction in the neuron's place."""

    instead: Any  # c d: the null's write direction minus the neuron's, 0 for a set that is no null
    h: Any  # s t n: the unablated activations
    weight: Any  # s t n: in a mixture of experts, the router's weight of each neuron's expert
    # In models with a norm behind the MLP: what enters it [s t d], and the rows that the neurons add to it [n d].
    post: Any


class Unablated(NamedTuple):
    """The unablated model, which the ablated ones are compared with."""

    logits: jax.Array  # s t v
    prediction: Prediction  # s t
    scales: dict[str, jax.Array]  # site of each norm that will be frozen → its scale


def entering(
    config: DecoderConfig, params: Params, tokens: jax.Array, layers: Sequence[int]
) -> tuple[jax.Array, dict[int, jax.Array]]:
    """The stream that enters the first of the layers, [s t d], and the activations of each, [s t n]."""
    first = f"blocks.{min(layers)}.hook_resid_pre"
    sites = {layer: f"blocks.{layer}.mlp.hook_post" for layer in layers}
    captured = forward(config, params, tokens, capture=[first, *sites.values()], stop_at_layer=max(layers) + 1).captured
    return captured[first], {layer: captured[site] for layer, site in sites.items()}


def unablated(
    config: DecoderConfig,
    params: Params,
    frequency: Frequency,
    resid: jax.Array,
    target: jax.Array,
    layer: int,
    frozen: Frozen = "final",
) -> Unablated:
    """The unablated model, run from the stream `resid` [s t d] that enters `layer`.

    `target`: the token that follows, int [s t].
    """
    sites = [
        site for site in site_shapes(config) if site.endswith("hook_scale") and _above(config, site, layer, frozen)
    ]
    with jax.default_matmul_precision("highest"):
        output = forward(config, params, resid, start_at_layer=layer, capture=sites)
        assert output.logits is not None
        return Unablated(output.logits, prediction(output.logits, frequency, target), output.captured)


class Ablated(NamedTuple):
    """The predictions of an ablated model, and the final norm's scale in it where that may move."""

    total: Prediction
    norm_frozen: Prediction
    freq_frozen: Prediction
    scale: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def compiled_mlp_output(config: DecoderConfig, params: Params, tokens: jax.Array, layer: int) -> jax.Array:
    """What enters the norm behind the MLP of a layer, centred for LayerNorm, float32 [s t d]."""
    sites = [f"blocks.{layer}.ln2_post.{name}" for name in ("hook_normalized", "hook_scale")]
    captured = forward(config, params, tokens, capture=sites, stop_at_layer=layer + 1).captured
    return captured[sites[0]] * captured[sites[1]]


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def compiled_router(config: DecoderConfig, params: Params, tokens: jax.Array, layer: int) -> jax.Array:
    """The router's weight of each neuron's expert in a layer, float32 [s t n]."""
    site = f"blocks.{layer}.mlp.hook_router"
    return of_neurons(config, forward(config, params, tokens, capture=[site], stop_at_layer=layer + 1).captured[site])


@functools.partial(jax.jit, static_argnames=("config", "layers", "frozen"))
def compiled_entry(
    config: DecoderConfig,
    layers: tuple[int, ...],
    params: Params,
    frequency: Frequency,
    tokens: jax.Array,
    target: jax.Array,
    frozen: Frozen = "final",
) -> tuple[jax.Array, dict[int, jax.Array], Unablated]:
    """What `rerun` needs for every set.

    That is the stream that enters the first of the layers [s t d], the activations of each layer [s t n], and the
    unablated model.
    """
    resid, h = entering(config, params, tokens, layers)
    return resid, h, unablated(config, params, frequency, resid, target, layers[0], frozen)


def predictions(
    config: DecoderConfig,
    params: Params,
    frequency: Frequency,
    resid: jax.Array,
    target: jax.Array,
    before: Unablated,
    values: Mapping[int, jax.Array],
    sets: Mapping[int, jax.Array],
    nulls: NullRows | None = None,
) -> Ablated:
    """The predictions when each neuron set is ablated, [c s t]. `nulls`: if the sets, each a neuron, have nulls.

    `values`: layer → the activations of its ablated neurons, [s t n]. `sets`: layer → which of its neurons each set
    ablates, bool [c n]. `resid`, `target`: those from which `unablated` made `before`; `resid` enters the first of
    these layers.
    """
    scale = f"{final_norm_name(config)}.hook_scale"

    def one(masks: Mapping[int, jax.Array], null: NullRows | None) -> Ablated:
        def after(scales: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            edits: dict[str, Edit] = {site: Replace(kept) for site, kept in scales.items()}
            for layer, value in values.items():
                edits[f"blocks.{layer}.mlp.hook_post"] = Ablate(masks[layer], value)
                if null is not None:
                    frozen_scale = scales.get(f"blocks.{layer}.ln2_post.hook_scale")
                    of_null = _null_edit(config, null, masks[layer], value, frozen_scale)
                    edits[f"blocks.{layer}.hook_resid_post"] = of_null
            output = forward(config, params, resid, start_at_layer=min(values), edits=edits, capture=[scale])
            assert output.logits is not None
            return output.logits, output.captured[scale][..., 0]

        (te, scale_te), (ln, _) = after({}), after(before.scales)
        fr = te + ((before.logits - te) @ frequency.u)[..., None] * frequency.u
        total, norm_frozen, freq_frozen = (prediction(z, frequency, target) for z in (te, ln, fr))
        return Ablated(total, norm_frozen, freq_frozen, scale_te)

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one, in_axes=(0, nulls and NullRows(0, None, None, None)))(dict(sets), nulls)


def rerun(
    config: DecoderConfig,
    params: Params,
    frequency: Frequency,
    resid: jax.Array,
    target: jax.Array,
    before: Unablated,
    *of_sets: Any,
) -> Changes:
    """The changes when each neuron set is ablated, [c s t]; nats. The arguments are those of `predictions`."""
    found = predictions(config, params, frequency, resid, target, before, *of_sets)
    was = before.scales[f"{final_norm_name(config)}.hook_scale"][..., 0]
    three = found.total, found.norm_frozen, found.freq_frozen
    return changes(before.prediction, *three, (was, found.scale), config.d_model)


compiled_rerun = jax.jit(rerun, static_argnames="config")
compiled_predictions = jax.jit(predictions, static_argnames="config")


def _null_edit(
    config: DecoderConfig, null: NullRows, mask: jax.Array, value: jax.Array, frozen_scale: jax.Array | None
) -> Add:
    """What a null adds to the stream behind its layer, beside what ablating its neuron changes there.

    `null`: with one row, [d], as `instead`. `mask`: of its neuron, bool [n]. `value`: the activations of the ablated
    neurons, [s t n]. `frozen_scale`: of the norm behind the MLP, if that keeps it.
    """
    neuron = jnp.argmax(mask)
    # In its place, a sum over the mask would do, but jaxlib 0.10.2 miscompiles its product with `instead` on CPUs.
    delta = (value - null.h)[..., neuron, None]  # s t 1
    if null.weight is not None:
        delta = delta * null.weight[..., neuron, None]
    if null.post is not None:
        m, rows = null.post
        moved = norm_scale(config, centre(config, m + delta * rows[neuron]))
        delta = delta / (moved if frozen_scale is None else frozen_scale)
    return Add(delta * null.instead)


def _above(config: DecoderConfig, site: str, layer: int, frozen: Frozen) -> bool:
    """Whether the norm of this site comes after the MLP of `layer` and keeps its scale under `frozen`."""
    if site.startswith(final_norm_name(config)):
        return True
    if frozen == "final" or not site.startswith("blocks."):
        return False
    of, name = int(site.split(".")[1]), site.split(".")[2]
    return of > layer or (of == layer and (name == "ln2_post" or (name == "ln2" and config.norm_place == "sum")))

"""The effects of ablating neuron sets of any layer, for many sets at once.

Letters: c neuron set, s window, t position of a window, q position that counts, n neuron, k neuron of a set, d width, v
vocabulary. The three effects are those of `jaxconf.analysis.effects`. With the norm frozen, either the final norm keeps
its unablated scale ("final"), or every norm above the ablated neurons does ("all").

Sets of the last layer are evaluated by its algebra where it holds (`streams`); for all others, the layers above are run
again. Both sum over blocks of the vocabulary (`jaxconf.analysis.set_sums`), but for `predictions`, which forms whole
logits. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 3.2.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.ablated_sets import behind, moved
from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.effects import LastLayer, last_layer
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.programs import Program
from jaxconf.analysis.set_effects import changes_of_sets, effect_lines, frequency_reading, sums_of_set, sums_of_sets
from jaxconf.analysis.set_predictions import Beside, Loss, Predictions, Reference, reference
from jaxconf.analysis.set_sums import Line, line
from jaxconf.analysis.streamed_sets import (
    Moved,
    Shared,
    Unembedded,
    Written,
    shared,
    unembedded,
    whole_logits,
)
from jaxconf.analysis.temperature import Unchanged, unchanged
from jaxconf.analysis.unembedding import Readout
from jaxconf.analysis.whole_logits import Changes, Prediction, prediction
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


class Lower(NamedTuple):
    """Where the layers above are run again from."""

    resid: jax.Array  # s t d: the stream that enters the first of the layers
    scales: dict[str, jax.Array]  # site of each norm below the final one that will be frozen → its scale


class Members(NamedTuple):
    """Sets of the last layer, which its algebra evaluates. Smaller ones are filled up with others that do not count."""

    indices: Any  # int [c k]
    counts: Any  # bool [c k]
    ablation: LayerAblation


class Masks(NamedTuple):
    """Sets for which layers are run again."""

    masks: Mapping[int, Any]  # layer → which of its neurons each set has, bool [c n]
    ablations: Mapping[int, LayerAblation]
    nulls: NullRows | None = None  # if the sets, each a neuron, have nulls


Sets = Members | Masks


class Entry(NamedTuple):
    """What all sets share on some windows."""

    h: dict[int, jax.Array]  # layer → its activations, s t n, or by algebra s q n
    start: LastLayer | Lower  # s q …, by algebra, or s t …
    parts: Shared | None  # by algebra
    before: Unembedded  # s q
    positions: jax.Array  # int q: the positions that count


class Ablated(NamedTuple):
    """The predictions of an ablated model."""

    total: Prediction
    norm_frozen: Prediction
    freq_frozen: Prediction


def streams(config: DecoderConfig, layer: int, frozen: Frozen) -> bool:
    """Whether the effects of a layer's neurons can be computed by algebra, without running layers.

    They can in the last layer, unless its own norms behind the MLP are to be frozen too.
    """
    return layer == config.n_layers - 1 and (frozen == "final" or config.norm_place not in ("post", "both"))


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
    readout: Readout,
    frequency: Frequency,
    tokens: jax.Array,
    positions: jax.Array | np.ndarray,
    frozen: Frozen = "final",
    dictionary: Dictionary | None = None,
) -> tuple[Entry, Prediction]:
    """What all sets share on windows `tokens`, int [s t], and the unablated predictions [s q].

    `layers`: those of the sets, ascending. `readout`: the last layer's, in the paper's convention. `positions`: those
    that count, int [q]. The target of the last position, which has none of its own, is the window's first token.
    `dictionary`: if the sets are of its directions, in the last layer; `readout` then has these in the neurons' place.
    """
    target, positions = jnp.roll(tokens, -1, 1)[:, positions], jnp.asarray(positions)
    if dictionary is not None or (len(layers) == 1 and streams(config, layers[0], frozen)):
        everywhere = last_layer(config, params, tokens, dictionary=dictionary)[0]
        last = jax.tree.map(lambda x: x[:, positions], everywhere)
        before, found = unembedded(config, readout, frequency, last.x, target)
        post = behind(config, readout, last)
        parts = shared(readout, before, None if post is None else post.p)
        return Entry({layers[0]: last.h}, last, parts, before, positions), found
    first, last_site = f"blocks.{layers[0]}.hook_resid_pre", f"blocks.{config.n_layers - 1}.hook_resid_post"
    sites = {layer: f"blocks.{layer}.mlp.hook_post" for layer in layers}
    norms = [site for site in site_shapes(config) if _frozen_below(config, site, layers[0], frozen)]
    capture = [first, last_site, *sites.values(), *norms]
    captured = forward(config, params, tokens, capture=capture, stop_at_layer=config.n_layers).captured
    before, found = unembedded(config, readout, frequency, captured[last_site][:, positions], target)
    start = Lower(captured[first], {site: captured[site] for site in norms})
    return Entry({layer: captured[site] for layer, site in sites.items()}, start, None, before, positions), found


def unablated_sums(config: DecoderConfig, readout: Readout, frequency: Frequency, entry: Entry) -> Any:
    """The sums of the unablated model, which `changes` subtracts; None for sets that are evaluated by algebra.

    For those, `changes` computes them with one more set, which has no neurons: a program of their own would take as
    long to compile as all of `changes`.
    """
    if not isinstance(entry.start, Lower):
        return None
    return compiled_sums(config, readout, frequency, entry.before, None, _unmoved(entry))


@functools.partial(jax.jit, static_argnames="config")
def compiled_unablated(config: DecoderConfig, readout: Readout, entry: Entry) -> Reference:
    """The unablated model as the reference of `besides`."""
    return reference(entry.before, _log_p(config, readout, entry))


@functools.partial(jax.jit, static_argnames="config")
def compiled_reference(config: DecoderConfig, readout: Readout, entry: Entry) -> tuple[Reference, Unchanged, Beside]:
    """The unablated model as the reference of `besides`, what `best_temperature` needs of it, and it beside itself.

    The last two are [s q].
    """
    log_p = _log_p(config, readout, entry)
    to = reference(entry.before, log_p)
    return to, unchanged(log_p), _unablated(config, readout, entry, to)


def changes(
    config: DecoderConfig,
    params: Params,
    readout: Readout,
    frequency: Frequency,
    entry: Entry,
    found: Prediction,
    base: Any,
    of_sets: Sets,
) -> Changes:
    """The changes when each neuron set is ablated, [c s q]; nats.

    `entry`, `found`: from `compiled_entry`. `base`: from `unablated_sums`.
    """

    before = entry.before
    if isinstance(of_sets, Members):
        indices, counts = (jnp.pad(x, ((1, 0), (0, 0))) for x in (of_sets.indices, of_sets.counts))
        of_sets = of_sets._replace(indices=indices, counts=counts)
    of = functools.partial(effect_lines, config, frequency_reading(readout, frequency), before)
    lines = of_each(of, config, params, readout, entry, of_sets, together=True)
    sums = sums_of_sets(config, readout, frequency, before, entry.parts, lines)
    if isinstance(of_sets, Members):
        base, sums = jax.tree.map(lambda x: x[:1], sums), jax.tree.map(lambda x: x[1:], sums)
    return changes_of_sets(config, found, base, sums)


def losses(config: DecoderConfig, params: Params, readout: Readout, entry: Entry, of_sets: Sets) -> tuple[Loss, Loss]:
    """The losses and entropies when each neuron set is ablated, [c s q]; nats.

    The second ones are those with the final norm's unablated scale.
    """
    found = _predictions(config, params, readout, entry, of_sets)
    total, norm_frozen = found.losses(found.lines.inv, entry.before.inv)
    return total, norm_frozen


def total_losses(config: DecoderConfig, params: Params, readout: Readout, entry: Entry, of_sets: Sets) -> Loss:
    """The first of `losses` alone, in about half the time."""
    found = _predictions(config, params, readout, entry, of_sets)
    return found.losses(found.lines.inv)[0]


def besides(
    config: DecoderConfig,
    params: Params,
    readout: Readout,
    entry: Entry,
    to: Reference,
    of_sets: Sets,
) -> Beside:
    """The predictions when each neuron set is ablated, and their change from the reference, [c s q]; nats."""
    return _predictions(config, params, readout, entry, of_sets).beside(to)


def predictions(
    config: DecoderConfig, params: Params, readout: Readout, frequency: Frequency, entry: Entry, of_sets: Sets
) -> Ablated:
    """The predictions when each neuron set is ablated, [c s q]; from the whole logits of one set after the other."""
    before = entry.before
    as_it_was = whole_logits(config, readout, before.x, before.inv)

    def of(moved: Moved) -> Ablated:
        inv = 1 / norm_scale(config.final, moved.x)[..., 0]
        te = whole_logits(config, readout, moved.x, inv)
        ln = whole_logits(config, readout, moved.x if moved.frozen is None else moved.frozen, before.inv)
        fr = te + ((as_it_was - te) @ frequency.u)[..., None] * frequency.u
        return Ablated(*(prediction(z, frequency, before.target) for z in (te, ln, fr)))

    return of_each(of, config, params, readout, entry, of_sets)


def of_each(
    of: Callable[[Moved], Any],
    config: DecoderConfig,
    params: Params,
    readout: Readout,
    entry: Entry,
    of_sets: Sets,
    *,
    together: bool = False,
) -> Any:
    """The results of `of`, which is given one set after the other, [s q]; joined, [c s q].

    `together`: where layers are run again, it is given all sets at once, [c s q].
    """
    with jax.default_matmul_precision("highest"):
        if isinstance(of_sets, Members):
            return jax.lax.map(
                lambda one: of(_by_algebra(config, readout, entry, of_sets.ablation, *one)),
                (of_sets.indices, of_sets.counts),
            )
        moved = _rerun(config, params, entry, of_sets)
        return of(moved) if together else jax.lax.map(of, moved)


compiled_sums = Program(sums_of_set)
compiled_changes = Program(changes)
compiled_losses = Program(losses)
compiled_total_losses = Program(total_losses)
compiled_besides = Program(besides)
compiled_predictions = Program(predictions)


def _predictions(config: DecoderConfig, params: Params, readout: Readout, entry: Entry, of_sets: Sets) -> Predictions:
    of = functools.partial(line, config, entry.before)
    lines: Line = of_each(of, config, params, readout, entry, of_sets, together=True)
    return Predictions(config, readout, entry.before, entry.parts, lines)


def _log_p(config: DecoderConfig, readout: Readout, entry: Entry) -> jax.Array:
    """The log-probabilities of the unablated model, float32 [s q v]."""
    return jax.nn.log_softmax(whole_logits(config, readout, entry.before.x, entry.before.inv))


def _unablated(config: DecoderConfig, readout: Readout, entry: Entry, to: Reference) -> Beside:
    """The unablated model beside a reference, [s q]."""
    lines = jax.tree.map(lambda x: x[None], line(config, entry.before, _unmoved(entry)))
    found = Predictions(config, readout, entry.before, entry.parts, lines).beside(to)
    return jax.tree.map(lambda x: x[0], found)


def _unmoved(entry: Entry) -> Moved:
    """The unablated model, in the form that `of_each` gives the ablated ones."""
    if isinstance(entry.start, Lower):
        return Moved(entry.before.x, None, None)
    *cells, d = entry.before.x.shape
    beta = None if entry.start.post is None else jnp.zeros(cells)
    return Moved(entry.before.x, None, Written(beta, jnp.zeros((*cells, 1)), jnp.zeros((1, d))))


def _by_algebra(
    config: DecoderConfig,
    readout: Readout,
    entry: Entry,
    ablation: LayerAblation,
    indices: jax.Array,
    counts: jax.Array,
) -> Moved:
    """The last layer with one set ablated; `indices`, `counts` [k] as in `Members`."""
    ((_, h),) = entry.h.items()
    last = entry.start
    assert isinstance(last, LastLayer)
    change = last.written(ablation.ablated(h) - h)[..., indices] * counts
    w_out, w_mlp = readout.w_out[indices], centre(config, readout.w_mlp[indices])
    x, beta, delta = moved(config, entry.before.x, change, w_out, w_mlp, behind(config, readout, last))
    return Moved(x, None, Written(None if beta is None else beta[..., 0], delta, w_out))


def _rerun(config: DecoderConfig, params: Params, entry: Entry, of_sets: Masks) -> Moved:
    """The models with each set ablated, [c s q]: all layers above are run again, for all sets together."""
    start, stream = entry.start, f"blocks.{config.n_layers - 1}.hook_resid_post"
    assert isinstance(start, Lower)
    values = {layer: ablation.ablated(entry.h[layer]) for layer, ablation in of_sets.ablations.items()}

    def one(masks: Mapping[int, jax.Array], null: NullRows | None) -> Moved:
        def after(scales: Mapping[str, jax.Array]) -> jax.Array:
            edits: dict[str, Edit] = {site: Replace(kept) for site, kept in scales.items()}
            for layer, value in values.items():
                edits[f"blocks.{layer}.mlp.hook_post"] = Ablate(masks[layer], value)
                if null is not None:
                    frozen_scale = scales.get(f"blocks.{layer}.ln2_post.hook_scale")
                    of_null = _null_edit(config, null, masks[layer], value, frozen_scale)
                    edits[f"blocks.{layer}.hook_resid_post"] = of_null
            run: dict[str, Any] = {"start_at_layer": min(entry.h), "stop_at_layer": config.n_layers}
            output = forward(config, params, start.resid, edits=edits, capture=[stream], **run)
            return centre(config.final, output.captured[stream][:, entry.positions].astype(jnp.float32))

        return Moved(after({}), after(start.scales) if start.scales else None, None)

    return jax.vmap(one, in_axes=(0, of_sets.nulls and NullRows(0, None, None, None)))(
        dict(of_sets.masks), of_sets.nulls
    )


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


def _frozen_below(config: DecoderConfig, site: str, layer: int, frozen: Frozen) -> bool:
    """Whether the site is the scale of a norm between the MLP of `layer` and the final norm that `frozen` freezes."""
    of_block = site.startswith("blocks.") and site.endswith("hook_scale")
    if frozen == "final" or not of_block or site.startswith(final_norm_name(config)):
        return False
    of, name = int(site.split(".")[1]), site.split(".")[2]
    return of > layer or (of == layer and (name == "ln2_post" or (name == "ln2" and config.norm_place == "sum")))

"""A model's predictions and activations at every position of windows.

Letters: b window, t position, q position that counts, l layer, h head, n neuron, k neuron that is asked for, c set of
heads. Losses and entropies are in nats.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.induction import bos_ablation
from jaxconf.analysis.set_predictions import Loss, Predictions
from jaxconf.analysis.set_sums import line
from jaxconf.analysis.streamed_sets import Moved, Unembedded, unembedded
from jaxconf.analysis.unembedding import Readout
from jaxconf.analysis.whole_logits import Prediction, prediction
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, final_norm_name, forward
from jaxconf.models.norms import centre
from jaxconf.models.sites import Edit


class Totals(NamedTuple):
    """Sums over windows, float32."""

    entropy: jax.Array  # t
    loss: jax.Array  # t
    scale: jax.Array  # t: of the final norm
    activations: dict[int, jax.Array]  # layer → t n


def activation_sites(layers: Iterable[int], dictionary: Dictionary | None = None) -> dict[int, str]:
    """Layer → the site of its activations, which the down projection reads, or that the `dictionary` reads."""
    return {layer: f"blocks.{layer}.mlp.hook_post" if dictionary is None else dictionary.reads for layer in layers}


@jax.jit
def read_activations(value: jax.Array, dictionary: Dictionary | None = None) -> jax.Array:
    """The activations, float32 [… n], from the value of their site in `activation_sites`."""
    return value.astype(jnp.float32) if dictionary is None else dictionary.coefficients(value)


@functools.partial(jax.jit, static_argnames=("config", "sites"))
def observed(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    sites: tuple[str, ...],
    edits: Mapping[str, Edit] | None = None,
) -> tuple[Prediction, dict[str, jax.Array]]:
    """The predictions [b t] of the model with `edits` on windows, int [b t], and the values of the sites.

    The target of the last position, which has none of its own, is the first token of the window.
    """
    output = forward(config, params, tokens, edits=edits or {}, capture=sites)
    assert output.logits is not None
    predictions = prediction(output.logits, frequency(np.zeros(config.vocab_size)), jnp.roll(tokens, -1, 1))
    return predictions, {site: output.captured[site] for site in sites}


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def observed_neurons(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    layer: int,
    neurons: jax.Array,
    dictionary: Dictionary | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The entropy of each prediction, [b t], and the activations of some `neurons` of a layer, int [k]: [b t k].

    With a `dictionary`, which reads a site of the layer, these are coefficients of some of its directions.
    """
    (site,) = activation_sites([layer], dictionary).values()
    predictions, captured = observed(config, params, tokens, (site,))
    return predictions.entropy, read_activations(captured[site], dictionary)[..., neurons]


@functools.partial(jax.jit, static_argnames=("config", "layers"))
def observed_totals(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    real: jax.Array,
    layers: tuple[int, ...],
    dictionary: Dictionary | None = None,
) -> Totals:
    """Sums over the windows `tokens`, int [b t], that are real. `real`: float32 [b], 1 for a real window, else 0.

    `dictionary`: if its coefficients are in the activations' place; `layers` is then the last one.
    """
    scale, sites = f"{final_norm_name(config)}.hook_scale", activation_sites(layers, dictionary)
    predictions, captured = observed(config, params, tokens, (scale, *sites.values()))

    def total(x: jax.Array) -> jax.Array:
        return jnp.einsum("b,b...->...", real, x.astype(jnp.float32))

    activations = {layer: total(read_activations(captured[site], dictionary)) for layer, site in sites.items()}
    return Totals(total(predictions.entropy), total(predictions.loss), total(captured[scale][..., 0]), activations)


class Entered(NamedTuple):
    """What all sets of heads share."""

    resid: jax.Array  # b t d: the stream that enters the lowest layer in which a set has heads
    h: dict[int, jax.Array]  # layer below it → its neurons' activations, b q k
    before: Unembedded  # b q


@functools.partial(jax.jit, static_argnames=("config", "edited"))
def entered(
    config: DecoderConfig,
    params: Params,
    readout: Readout,
    tokens: jax.Array,
    positions: np.ndarray,
    neurons: Mapping[int, np.ndarray],
    edited: tuple[int, ...],
) -> tuple[Entered, Prediction]:
    """What sets of heads share on windows that begin with BOS, int [b t], and the unablated predictions [b q].

    `readout`: the last layer's, in the paper's convention. `positions`: those that count, int [q]. `neurons`: layer →
    those whose activations `at_bos` gives, int [k]. `edited`: the layers in which a set has heads, ascending.
    """
    first, last = f"blocks.{edited[0]}.hook_resid_pre", f"blocks.{config.n_layers - 1}.hook_resid_post"
    below = activation_sites(layer for layer in neurons if layer < edited[0])
    captured = forward(
        config, params, tokens, capture=[first, last, *below.values()], stop_at_layer=config.n_layers
    ).captured
    target, unused = jnp.roll(tokens, -1, 1)[:, positions], frequency(np.zeros(config.vocab_size))
    before, found = unembedded(config, readout, unused, captured[last][:, positions], target)
    h = {layer: captured[site][:, positions][..., neurons[layer]] for layer, site in below.items()}
    return Entered(captured[first], h, before), found


@functools.partial(jax.jit, static_argnames=("config", "edited"))
def at_bos(
    config: DecoderConfig,
    params: Params,
    readout: Readout,
    seen: Entered,
    positions: np.ndarray,
    neurons: Mapping[int, np.ndarray],
    edited: tuple[int, ...],
    heads: np.ndarray,
    dictionary: Dictionary | None = None,
) -> tuple[Loss, dict[int, jax.Array]]:
    """Loss and entropy [c b q], and the neurons' activations [c b q k], if each set's heads attend to BOS alone.

    `heads`: which heads each set has, bool [c l h]. `dictionary`: if the `neurons` are directions of it, all in the
    last layer. The other arguments are as for `entered`. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5.
    """
    last = f"blocks.{config.n_layers - 1}.hook_resid_post"
    above = activation_sites((layer for layer in neurons if layer >= edited[0]), dictionary)
    layers: dict[str, Any] = {"start_at_layer": edited[0], "stop_at_layer": config.n_layers}

    def one(heads: jax.Array) -> tuple[Loss, dict[int, jax.Array]]:
        edits = bos_ablation(heads, edited, seen.resid.shape[1])
        captured = forward(config, params, seen.resid, edits, [last, *above.values()], **layers).captured
        x = centre(config.final, captured[last][:, positions].astype(jnp.float32))
        of = {layer: read_activations(captured[site][:, positions], dictionary) for layer, site in above.items()}
        h = {layer: x[..., neurons[layer]] for layer, x in of.items()}
        lines = jax.tree.map(lambda x: x[None], line(config, seen.before, Moved(x, None, None)))
        (found,) = Predictions(config, readout, seen.before, None, lines).losses(lines.inv)
        return jax.tree.map(lambda x: x[0], found), h

    found, h = jax.lax.map(one, heads)
    return found, h | {layer: jnp.broadcast_to(x, (len(heads), *x.shape)) for layer, x in seen.h.items()}

"""How far predictions are from the best possible ones, when neuron sets are ablated.

Letters: c neuron set, w way of ablating it, s window, t position, n neuron, v vocabulary. Losses, entropies and
divergences are in nats.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.calibration import predicted
from jaxconf.analysis.rerun import entering
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, final_norm_name, forward
from jaxconf.models.sites import Ablate, Edit


class Distance(NamedTuple):
    """Each prediction beside the best possible one, float32 […] (`correct`: bool)."""

    loss: jax.Array
    entropy: jax.Array
    kl: jax.Array  # D_KL(best || model)
    confidence: jax.Array  # the largest probability
    correct: jax.Array  # whether the most likely token is the one that follows


def distance(lp: jax.Array, best: jax.Array, target: jax.Array) -> Distance:
    """The distances of log-probabilities `lp` [… v] from the best ones, `best` [… v].

    `target`: the tokens that follow, int […]. A token that cannot follow has the best log-probability -inf.
    """
    of, P_best = predicted(lp, target), jnp.exp(best)
    kl = jnp.sum(jnp.where(P_best > 0, P_best * (best - lp), 0.0), -1)
    return Distance(of.loss, of.entropy, kl, of.confidence, of.correct)


class Entered(NamedTuple):
    """The unablated model on some windows."""

    resid: jax.Array  # s t d: the stream that enters the first of the layers
    h: dict[int, jax.Array]  # layer → its activations, s t n
    scale: jax.Array  # s t 1: the final norm's scale
    distance: Distance  # s t


@functools.partial(jax.jit, static_argnames=("config", "layers"))
def entered(
    config: DecoderConfig,
    layers: tuple[int, ...],
    params: Params,
    tokens: jax.Array,
    best: jax.Array,
    target: jax.Array,
) -> Entered:
    """What `distances` needs for every set. `tokens`, `target`: int [s t]. `best`: float32 [s t v]."""
    scale = f"{final_norm_name(config)}.hook_scale"
    with jax.default_matmul_precision("highest"):
        resid, h = entering(config, params, tokens, layers)
        found = forward(config, params, resid, start_at_layer=layers[0], capture=[scale])
    assert found.logits is not None
    return Entered(resid, h, found.captured[scale], distance(jax.nn.log_softmax(found.logits), best, target))


@functools.partial(jax.jit, static_argnames="config")
def distances(
    config: DecoderConfig,
    params: Params,
    before: Entered,
    best: jax.Array,
    target: jax.Array,
    sets: Mapping[int, jax.Array],
    how: Sequence[tuple[Mapping[int, LayerAblation], bool]],
) -> Distance:
    """The distances when each neuron set is ablated in each of the ways `how`, [w c s t].

    `before`: from `entered`, of the layers of `sets`. `sets`: layer → which of its neurons each set has, bool [c n].
    `how`: layer → what its neurons are set to, and whether the final norm keeps its unablated scale.
    """
    values = [{layer: of.ablated(before.h[layer]) for layer, of in ablations.items()} for ablations, _ in how]
    each_way = (jax.tree.map(lambda *x: jnp.stack(x), *values), jnp.array([norm_frozen for _, norm_frozen in how]))

    def one(values: Mapping[int, jax.Array], norm_frozen: jax.Array, masks: Mapping[int, jax.Array]) -> Distance:
        edits: dict[str, Edit] = {f"{final_norm_name(config)}.hook_scale": Ablate(norm_frozen, before.scale)}
        edits |= {f"blocks.{layer}.mlp.hook_post": Ablate(masks[layer], value) for layer, value in values.items()}
        logits = forward(config, params, before.resid, start_at_layer=min(values), edits=edits).logits
        assert logits is not None
        return distance(jax.nn.log_softmax(logits), best, target)

    with jax.default_matmul_precision("highest"):  # one after the other, since each set has logits of its own
        return jax.lax.map(lambda way: jax.lax.map(functools.partial(one, *way), dict(sets)), each_way)

"""Scaling: a model's predictions when the activations of neuron sets are multiplied by a factor.

Letters: b window, t position, d width, n neuron, v vocabulary, c neuron set. In nats.
"""

import functools
from typing import NamedTuple

import jax

from jaxconf.analysis.calibration import Predicted, predicted
from jaxconf.analysis.rerun import entering
from jaxconf.analysis.temperature import Change, Unchanged, change, unchanged
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.sites import Ablate


class Unscaled(NamedTuple):
    """The unscaled model, from which the scaling of every neuron set by every factor starts."""

    resid: jax.Array  # b t d: the stream that enters the first of the layers
    activations: dict[int, jax.Array]  # layer → b t n
    log_p: jax.Array  # b t v


@functools.partial(jax.jit, static_argnames=("config", "layers"))
def unscaled(
    config: DecoderConfig, params: Params, tokens: jax.Array, layers: tuple[int, ...]
) -> tuple[Unscaled, Unchanged]:
    """The unscaled model on windows `tokens`, int [b t], and what `best_temperature` needs of it, [b t].

    `layers`: those of the neuron sets, in ascending order.
    """
    resid, h = entering(config, params, tokens, layers)
    logits = forward(config, params, resid, start_at_layer=layers[0]).logits
    assert logits is not None
    log_p = jax.nn.log_softmax(logits)
    return Unscaled(resid, h, log_p), unchanged(log_p)


@functools.partial(jax.jit, static_argnames="config")
def scaled(
    config: DecoderConfig,
    params: Params,
    before: Unscaled,
    target: jax.Array,
    sets: dict[int, jax.Array],
    factor: jax.Array,
) -> tuple[Predicted, Change]:
    """The predictions when the activations of each set are `factor` times the unscaled ones, and their change, [c b t].

    `target`: the token that follows, int [b t]. `sets`: layer → which of its neurons each set has, bool [c n].
    """

    def one(members: dict[int, jax.Array]) -> tuple[Predicted, Change]:
        edits = {
            f"blocks.{layer}.mlp.hook_post": Ablate(members[layer], factor * value)
            for layer, value in before.activations.items()
        }
        first = min(before.activations)
        logits = forward(config, params, before.resid, edits=edits, start_at_layer=first).logits
        assert logits is not None
        after = jax.nn.log_softmax(logits)
        return predicted(after, target), change(before.log_p, after)

    return jax.vmap(one)(sets)

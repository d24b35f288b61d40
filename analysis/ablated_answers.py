"""The steps of answering prompts with sets of the last layer's neurons ablated; sets share runs of the model.

Letters: p prompt, t position, j given answer, a token of an answer, c set, k neuron of a set, u neuron that is in any
set, r text that is being continued, v vocabulary. Up to the last layer's activations a model depends only on the
tokens, so the sets that have generated the same text share its forward pass. Only the logits
(`jaxconf.analysis.ablated_sets`) differ from set to set.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from jaxconf.analysis.ablated_sets import Ablations, States, Writes, set_logits, states, writes
from jaxconf.analysis.effects import LastLayer, last_layer
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Cache, Params, empty_cache


@struct.dataclass
class Reading:
    """The readout, and the writes of the neurons that are in any set."""

    readout: Readout
    neurons: jax.Array  # int u
    writes: Writes


@functools.partial(jax.jit, static_argnames="config")
def reading(config: DecoderConfig, readout: Readout, neurons: jax.Array) -> Reading:
    """The reading of `neurons` of the last layer, int [u]. `readout`: in the paper's convention."""
    return Reading(readout, neurons, writes(config, readout, neurons))


@functools.partial(jax.jit, static_argnames=("config", "slots"))
def begin(
    config: DecoderConfig,
    slots: int,
    params: Params,
    read: Reading,
    tokens: jax.Array,
    padding: jax.Array,
    given: jax.Array,
) -> tuple[Cache, States, States]:
    """Run prompts, int [p t], and answers that may follow them, int [p j a].

    `padding` [p]: how many tokens at the start of each prompt are padding. `slots`: how many tokens the cache has room
    for. Returns the cache, the states at the prompts' ends [p], and those before each token of an answer [p·j·a].
    """
    last, cache = last_layer(config, params, tokens, empty_cache(config, params, padding, slots))
    ends = jax.tree.map(lambda x: x[:, -1:], last)
    assert cache is not None

    def before(answer: jax.Array) -> LastLayer:
        after, _ = last_layer(config, params, answer, cache)
        return jax.tree.map(lambda end, x: jnp.concatenate([end, x[:, :-1]], 1), ends, after)

    along = jax.tree.map(lambda x: x.swapaxes(0, 1), jax.lax.map(before, given.swapaxes(0, 1)))
    return cache, states(config, read.readout, read.neurons, ends), states(config, read.readout, read.neurons, along)


@jax.jit
def branched(cache: Cache, parent: jax.Array) -> Cache:
    """A cache of r texts, which begin as those with the indices `parent`, int [r], in the given cache."""
    return Cache(jax.tree.map(lambda x: x[:, parent], cache.past), cache.filled, cache.padding[parent])


@functools.partial(jax.jit, static_argnames="config")
def advance(
    config: DecoderConfig, params: Params, read: Reading, cache: Cache, token: jax.Array
) -> tuple[Cache, States]:
    """Add a token [r] to each text of the cache. Returns the new cache and the states at the new ends."""
    last, more = last_layer(config, params, token[:, None], cache)
    assert more is not None
    return more, states(config, read.readout, read.neurons, last)


@functools.partial(jax.jit, static_argnames="config")
def likeliest(config: DecoderConfig, read: Reading, seen: States, text: jax.Array, sets: Ablations) -> jax.Array:
    """The most likely next token with each set ablated, int32 [c p]. The logits of one set at a time are held.

    `text`: the index of the state of each set and prompt, int [c p].
    """

    def one(with_texts: tuple[jax.Array, Ablations]) -> jax.Array:
        rows, of_set = with_texts
        here = jax.tree.map(lambda x: x[rows], seen)
        return jnp.argmax(set_logits(config, read.readout, read.writes, here, of_set), -1).astype(jnp.int32)

    return jax.lax.map(one, (text, sets))


@functools.partial(jax.jit, static_argnames="config")
def judged(
    config: DecoderConfig,
    read: Reading,
    along: States,
    sets: Ablations,
    given: jax.Array,
    lengths: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The log-probabilities of each given answer and of its first token, [c p j], and the entropy of the latter's
    prediction, [c p].

    All are in nats. The logits of one set at a time are held. `along`: from `begin`. `given`: int [p j a], of which the
    first `lengths` [p j] tokens count.
    """
    counted = jnp.arange(given.shape[2]) < lengths[..., None]

    def one(of_set: Ablations) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits = set_logits(config, read.readout, read.writes, along, of_set)
        lp = jax.nn.log_softmax(logits).reshape(*given.shape, -1)
        own = jnp.take_along_axis(lp, given[..., None], -1)[..., 0]
        first = lp[:, 0, 0]
        return jnp.where(counted, own, 0).sum(-1), own[..., 0], -jnp.sum(jnp.exp(first) * first, -1)

    return jax.lax.map(one, sets)

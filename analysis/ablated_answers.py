"""The steps of answering prompts with sets of the last layer's neurons ablated; sets share runs of the model.

Letters: p prompt, t position, j given answer, a token of an answer, s token of any answer to a prompt but the answers'
first ones, c set, k neuron of a set, u neuron that is in any set, r text that is being continued, v vocabulary. Up to
the last layer's activations a model depends only on the tokens, so the sets that have generated the same text share its
forward pass. Only the logits (`jaxconf.analysis.ablated_sets`) differ from set to set. All answers to a prompt share
the prediction of their first token.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from jaxconf.analysis.ablated_sets import Ablations, States, Writes, set_logits, states, writes
from jaxconf.analysis.dictionaries import Dictionary
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
    dictionary: Dictionary | None  # if the sets are of its directions instead of neurons


@functools.partial(jax.jit, static_argnames="config")
def reading(
    config: DecoderConfig, readout: Readout, neurons: jax.Array, dictionary: Dictionary | None = None
) -> Reading:
    """The reading of `neurons` of the last layer, int [u]. `readout`: in the paper's convention.

    `dictionary`: if these are directions of it, which `readout` then has in the neurons' place.
    """
    return Reading(readout, neurons, writes(config, readout, neurons), dictionary)


@struct.dataclass
class Given:
    """Answers that may follow prompts, and their tokens one by one."""

    tokens: jax.Array  # int p j a: the answers; what is behind an answer's end does not count
    later: jax.Array  # int p s: its token
    owner: jax.Array  # int p s: the answer that it belongs to; -1 where there is no further token
    place: jax.Array  # int p s: where the token before it is, in the axes j a as one


@functools.partial(jax.jit, static_argnames=("config", "slots"))
def begin(
    config: DecoderConfig,
    slots: int,
    params: Params,
    read: Reading,
    tokens: jax.Array,
    padding: jax.Array,
    given: Given,
) -> tuple[Cache, States, States]:
    """Run prompts, int [p t], and answers that may follow them.

    `padding` [p]: how many tokens at the start of each prompt are padding. `slots`: how many tokens the cache has room
    for. Returns the cache, the states at the prompts' ends [p], and both these and the states before each later token
    of an answer, [p·(1 + s)].
    """
    last, cache = last_layer(config, params, tokens, empty_cache(config, params, padding, slots), read.dictionary)
    ends = jax.tree.map(lambda x: x[:, -1:], last)
    assert cache is not None

    def after(answer: jax.Array) -> LastLayer:
        return last_layer(config, params, answer, cache, read.dictionary)[0]

    def chosen(end: jax.Array, x: jax.Array) -> jax.Array:
        of_prompt = jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, x.shape[-1])
        return jnp.concatenate([end, jnp.take_along_axis(of_prompt, given.place[..., None], 1)], 1)

    along = jax.tree.map(chosen, ends, jax.lax.map(after, given.tokens.swapaxes(0, 1)))
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
    last, more = last_layer(config, params, token[:, None], cache, read.dictionary)
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
    given: Given,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The log-probabilities of each given answer and of its first token, [c p j], and the entropy of the latter's
    prediction, [c p].

    All are in nats. The logits of one set at a time are held. `along`: from `begin`.
    """
    owned = given.owner[:, None] == jnp.arange(given.tokens.shape[1])[:, None]  # p j s

    def one(of_set: Ablations) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits = set_logits(config, read.readout, read.writes, along, of_set)
        lp = jax.nn.log_softmax(logits).reshape(len(given.later), -1, logits.shape[-1])
        at_end = lp[:, 0]
        first = jnp.take_along_axis(at_end, given.tokens[..., 0], -1)
        later = jnp.take_along_axis(lp[:, 1:], given.later[..., None], -1)[..., 0]
        whole = first + jnp.where(owned, later[:, None], 0).sum(-1)
        return whole, first, -jnp.sum(jnp.exp(at_end) * at_end, -1)

    return jax.lax.map(one, sets)

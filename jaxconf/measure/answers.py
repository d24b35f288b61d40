"""What a model answers with sets of its last layer's neurons ablated: many sets side by side, and what they share is run once.

Letters: p prompt, t position, j given answer, a token of an answer, n new token, c set, k neuron of a set, r text that is being continued,
u neuron that is in any set, v vocabulary. Below the last MLP the model sees only tokens, and so do the keys and values of all its layers: a
prompt is run once for all sets, and so is every text that sets have gone on to together. To each set belong only its predictions, which
`jaxconf.analysis.ablated_sets` makes of what they share.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.ablated_sets import Ablations, States, Writes, set_logits, states, writes
from jaxconf.analysis.effects import LastLayer, last_layer
from jaxconf.analysis.unembedding import Readout, readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Cache, Params, empty_cache
from jaxconf.models.generate import padded
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.memory import usable
from jaxconf.runtime.progress import Progress

SETS = 128  # sets that go through the steps of a generation together


class Answers(NamedTuple):
    tokens: np.ndarray  # int32 [c p n]: the greedy continuation
    log_p: np.ndarray  # float32 [c p j]: of each given answer, of all its tokens, in nats
    entropy: np.ndarray  # float32 [c p]: of the prediction of the first new token, in nats


def unablated() -> Ablations:
    """The model as it is, and nothing else."""
    return Ablations(np.zeros((1, 1), np.int64), np.zeros((1, 1), np.float32), np.zeros(1, bool))


def ablated_answers(
    lm: LanguageModel,
    prompts: Sequence[np.ndarray],
    given: Sequence[Sequence[np.ndarray]],
    sets: Ablations,
    n_new: int,
    memory: int,
    progress: Progress,
    what: str,
) -> Answers:
    """How each set goes on from every prompt, greedily, with its neurons ablated at every position, and what it thinks of given answers.

    `prompts`: token ids of each; `given`: as many answers for each prompt, token ids that might follow it. `n_new`: new tokens, which may
    be 0; a set goes on after the end of a text. `memory`: bytes that texts which are worked on together may take. Raises InputError for
    prompts that do not fit the model together with the new tokens or an answer.
    """
    config, (C, P) = lm.config, (len(sets.members), len(prompts))
    n_answers, longest = len(given[0]), max(len(ids) for of_prompt in given for ids in of_prompt)
    tokens, padding = padded(config, prompts, max(n_new, longest))
    lengths = np.array([[len(ids) for ids in of_prompt] for of_prompt in given])
    answers = np.stack([[np.pad(ids, (0, longest - len(ids))) for ids in of_prompt] for of_prompt in given]).astype(np.int32)
    slots = tokens.shape[1] + max(n_new, longest)
    neurons, members = np.unique(sets.members, return_inverse=True)
    read = readout(config, lm.params)
    written = _writes(config, read, neurons)
    found = Answers(np.zeros((C, P, n_new), np.int32), np.zeros((C, P, n_answers), np.float32), np.zeros((C, P), np.float32))
    chunk, each = min(C, SETS), n_new + n_answers * longest
    size = _prompts_at_once(lm, slots, n_answers * longest, chunk, P, memory)
    progress(what, 0, C * P * each)
    for begin in range(0, P, size):
        rows = np.minimum(np.arange(begin, begin + size), P - 1)
        real = slice(begin, min(begin + size, P))
        given_here, lengths_here = lm.over_data(answers[rows]), lm.over_data(lengths[rows])
        cache, ends, along = _begin(
            config, slots, read, neurons, lm.params, lm.over_data(tokens[rows]), lm.over_data(padding[rows]), given_here
        )
        for first in range(0, C, chunk):
            some = np.minimum(np.arange(first, first + chunk), C - 1)
            here = Ablations(members.reshape(sets.members.shape)[some], sets.values[some], sets.ablated[some])
            kept = slice(first, min(first + chunk, C))
            at_once = _sets_at_once(config, given_here.size, memory)
            log_p, entropy = _judged(config, at_once, read, written, along, here, given_here, lengths_here)
            new = _continued(lm, read, neurons, written, cache, ends, here, size, n_new, memory)
            for of_all, of_some in zip(found, (new, *fetched((log_p, entropy))), strict=True):
                of_all[kept, real] = of_some[: kept.stop - first, : real.stop - begin]
            progress(what, (begin * C + kept.stop * (real.stop - begin)) * each, C * P * each)
    return found


def _prompts_at_once(lm: LanguageModel, slots: int, given: int, sets: int, count: int, memory: int) -> int:
    """How many, as many on each device: at worst every set goes on to a text of its own, and needs its own keys and values for it."""
    config, devices = lm.config, lm.mesh.shape["data"]
    a_text = 4 * (2 * config.n_layers * 2 * slots * config.n_kv_heads * config.d_head + 4 * config.vocab_size)
    a_prompt = sets * a_text + 4 * given * 4 * config.vocab_size
    return devices * int(np.clip(memory * 3 // 4 // a_prompt, 1, -(-count // devices)))


def _sets_at_once(config: DecoderConfig, predictions: int, memory: int) -> int:
    """How many sets' logits are held at once, in a quarter of the memory: of so many predictions each."""
    return max(1, usable(memory // 4) // (4 * 4 * predictions * config.vocab_size))


def _continued(
    lm: LanguageModel,
    read: Readout,
    neurons: np.ndarray,
    written: Writes,
    cache: Cache,
    seen: States,
    sets: Ablations,
    size: int,
    n_new: int,
    memory: int,
) -> np.ndarray:
    """The new tokens, int32 [c p n]; p prompts are `size`."""
    text = np.broadcast_to(np.arange(size), (len(sets.members), size))  # which of the texts each set has come to
    new = np.zeros((*text.shape, n_new), np.int32)
    at_once = _sets_at_once(lm.config, size, memory)
    for step in range(n_new):
        token = new[:, :, step] = fetched(_likeliest(lm.config, at_once, read, written, seen, text, sets))
        if step + 1 < n_new:
            # Sets that went on from one text with one token still have one text.
            different, at = np.unique(text * np.int64(lm.config.vocab_size) + token, return_inverse=True)
            text = at.reshape(text.shape)
            filled = size * min(len(text), 4 ** math.ceil(math.log(max(1, len(different) / size), 4)))  # few sizes, for each is compiled
            parent, token = np.divmod(np.pad(different, (0, filled - len(different)), mode="edge"), lm.config.vocab_size)
            cache = _branched(cache, lm.over_data(parent))
            cache, seen = _advance(lm.config, read, neurons, lm.params, cache, lm.over_data(token.astype(np.int32)))
    return new


@functools.partial(jax.jit, static_argnames="config")
def _writes(config: DecoderConfig, read: Readout, neurons: jax.Array) -> Writes:
    return writes(config, read, neurons)


@functools.partial(jax.jit, static_argnames=("config", "slots"))
def _begin(
    config: DecoderConfig,
    slots: int,
    read: Readout,
    neurons: jax.Array,
    params: Params,
    tokens: jax.Array,
    padding: jax.Array,
    given: jax.Array,
) -> tuple[Cache, States, States]:
    """The prompts in a cache, the states at their ends [p], and those that each token of a given answer is predicted from [p·j·a]."""
    last, cache = last_layer(config, params, tokens, empty_cache(config, params, padding, slots))
    ends = jax.tree.map(lambda x: x[:, -1:], last)
    assert cache is not None

    def before(answer: jax.Array) -> LastLayer:
        after, _ = last_layer(config, params, answer, cache)
        return jax.tree.map(lambda end, x: jnp.concatenate([end, x[:, :-1]], 1), ends, after)

    along = jax.tree.map(lambda x: x.swapaxes(0, 1), jax.lax.map(before, given.swapaxes(0, 1)))
    return cache, states(config, read, neurons, ends), states(config, read, neurons, along)


@jax.jit
def _branched(cache: Cache, parent: jax.Array) -> Cache:
    """The texts `parent`, int [r], of those in the cache."""
    return Cache(jax.tree.map(lambda x: x[:, parent], cache.past), cache.filled, cache.padding[parent])


@functools.partial(jax.jit, static_argnames="config")
def _advance(
    config: DecoderConfig, read: Readout, neurons: jax.Array, params: Params, cache: Cache, token: jax.Array
) -> tuple[Cache, States]:
    """The texts of the cache, each with a token [r] more."""
    last, more = last_layer(config, params, token[:, None], cache)
    assert more is not None
    return more, states(config, read, neurons, last)


@functools.partial(jax.jit, static_argnames=("config", "at_once"))
def _likeliest(
    config: DecoderConfig, at_once: int, read: Readout, written: Writes, seen: States, text: jax.Array, sets: Ablations
) -> jax.Array:
    """The token that each set finds most likely after its text, int32 [c p]."""

    def one(with_texts: tuple[jax.Array, Ablations]) -> jax.Array:
        rows, of_set = with_texts
        return jnp.argmax(set_logits(config, read, written, jax.tree.map(lambda x: x[rows], seen), of_set), -1).astype(jnp.int32)

    return jax.lax.map(one, (text, sets), batch_size=at_once)


@functools.partial(jax.jit, static_argnames=("config", "at_once"))
def _judged(
    config: DecoderConfig,
    at_once: int,
    read: Readout,
    written: Writes,
    along: States,
    sets: Ablations,
    given: jax.Array,
    lengths: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The log-probability of each given answer, [c p j], and the entropy of the first token's prediction, [c p]; nats."""
    counted = jnp.arange(given.shape[2]) < lengths[..., None]

    def one(of_set: Ablations) -> tuple[jax.Array, jax.Array]:
        lp = jax.nn.log_softmax(set_logits(config, read, written, along, of_set)).reshape(*given.shape, -1)
        own = jnp.take_along_axis(lp, given[..., None], -1)[..., 0]
        first = lp[:, 0, 0]
        return jnp.where(counted, own, 0).sum(-1), -jnp.sum(jnp.exp(first) * first, -1)

    return jax.lax.map(one, sets, batch_size=at_once)

"""The answers of a model with sets of its last layer's neurons ablated, for many sets together.

A prompt is run once for all sets, and so is a continuation that several sets have in common. Only the predictions are
computed for each set separately (`jaxconf.analysis.ablated_answers`). Letters: p prompt, j given answer, n new token, c
set.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxconf.analysis.ablated_answers import Given, Reading, advance, begin, branched, judged, likeliest, reading
from jaxconf.analysis.ablated_sets import Ablations, States
from jaxconf.analysis.unembedding import readout
from jaxconf.measure.activations import COPIES
from jaxconf.measure.named_sets import NamedSet, Population
from jaxconf.measure.treated_sets import Together, Treated, together
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Cache
from jaxconf.models.generate import padded
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches
from jaxconf.runtime.progress import Progress

SETS = 128  # sets whose continuations are generated together


class Answers(NamedTuple):
    tokens: np.ndarray  # int32 [c p n]: the greedy continuation
    log_p: np.ndarray  # float32 [c p j]: log-probability of each given answer, summed over its tokens, in nats
    log_p_first: np.ndarray  # float32 [c p j]: log-probability of the first token of each given answer, in nats
    entropy: np.ndarray  # float32 [c p]: of the prediction of the first new token, in nats


def unablated(config: DecoderConfig) -> list[Together]:
    """A single set that ablates nothing: the model as it is."""
    none = NamedSet("no ablation", "none", [(config.n_layers - 1, 0)], Population.of_neurons(config))
    return together([Treated(none, 0, 0)])


def ablated_answers(
    lm: LanguageModel,
    prompts: Sequence[np.ndarray],
    given: Sequence[Sequence[np.ndarray]],
    sets: Ablations,
    n_new: int,
    memory: int,
    progress: Progress,
    what: str,
    population: Population | None = None,
) -> Answers:
    """With each set ablated at every position: how the model continues every prompt, and how likely it finds answers.

    `prompts`: token ids of each. `given`: the answers of each prompt whose log-probability is measured, as token ids;
    every prompt has the same number of them. `n_new`: how many new tokens are generated, greedily, 0 or more; the end
    of a text does not stop the generation. `memory`: bytes for the texts that are worked on together. `progress`:
    called with `what` as the stage. `population`: what the sets are of, by default the last layer's neurons. Raises
    InputError for prompts that are too long for the model's context together with the new tokens or an answer.
    """
    config, (C, P) = lm.config, (len(sets.members), len(prompts))
    lengths = np.array([[len(ids) for ids in of_prompt] for of_prompt in given])
    n_answers, longest = lengths.shape[1], int(lengths.max())
    tokens, padding = padded(config, prompts, max(n_new, longest))
    order = np.argsort(lengths.max(1), kind="stable")  # answers of about one length are worked on together
    neurons, numbered = np.unique(sets.members, return_inverse=True)
    sets = sets._replace(members=numbered.reshape(sets.members.shape))
    of = population or Population.of_neurons(config)
    job = _Job(lm, reading(config, of.readout(config, readout(config, lm.params)), neurons, of.dictionary), n_new)
    slots = tokens.shape[1] + max(n_new, longest)
    branches = min(C, SETS) if n_new > 1 else 1
    states = 1 + _filled(int((lengths - 1).sum(1).max()))
    coefficients = 0 if of.dictionary is None else of.count
    size = _prompts_at_once(lm, slots, states, branches, P, memory, coefficients)
    whole, first = np.zeros((2, C, P, n_answers), np.float32)
    found = Answers(np.zeros((C, P, n_new), np.int32), whole, first, np.zeros((C, P), np.float32))
    each = n_new + n_answers
    progress(what, 0, C * P * each)
    for places, real in batches(P, size):
        rows = order[places]
        texts = [lm.over_data(x[rows]) for x in (tokens, padding)]
        answers = Given(*map(lm.over_data, token_by_token([given[p] for p in rows], longest)))
        cache, ends, along = begin(config, slots, lm.params, job.read, *texts, answers)
        for some, real_sets in batches(C, min(C, SETS)):
            of_some = Ablations(*(x[some] for x in sets))
            new = job.continued(cache, ends, of_some, size)
            rest = fetched(judged(config, job.read, along, of_some, answers))
            place = np.ix_(some[real_sets], rows[real])
            for of_all, of_batch in zip(found, (new, *rest), strict=True):
                of_all[place] = of_batch[: real_sets.sum(), : real.sum()]
            done = places[0] * C + (some[-1] + 1) * real.sum()
            progress(what, int(done) * each, C * P * each)
    return found


def answers_together(
    lm: LanguageModel,
    prompts: Sequence[np.ndarray],
    given: Sequence[Sequence[np.ndarray]],
    sets: Sequence[Together],
    n_new: int,
    memory: int,
    progress: Progress,
    what: str,
) -> Answers:
    """`ablated_answers` of the sets of all populations, in the order of their rows."""
    every = [ablated_answers(lm, prompts, given, of.sets, n_new, memory, progress, what, of.population) for of in sets]
    order = np.argsort(np.concatenate([of.rows for of in sets]))
    return Answers(*(np.concatenate(parts)[order] for parts in zip(*every, strict=True)))


def token_by_token(
    given: Sequence[Sequence[np.ndarray]], longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arrays of `jaxconf.analysis.ablated_answers.Given` for the answers of each prompt, int32.

    The lengths of the axes a and s are powers of 4, since a program is compiled for each length; that of a is at most
    `longest`, for which the cache has room.
    """
    J = len(given[0])
    A = min(longest, _filled(max(len(ids) for of_prompt in given for ids in of_prompt)))
    S = _filled(max(sum(len(ids) - 1 for ids in of_prompt) for of_prompt in given))
    tokens, (later, owner, place) = np.zeros((len(given), J, A), np.int32), np.zeros((3, len(given), S), np.int32)
    owner -= 1
    for p, of_prompt in enumerate(given):
        s = 0
        for j, ids in enumerate(of_prompt):
            tokens[p, j, : len(ids)] = ids
            more = slice(s, s := s + len(ids) - 1)
            later[p, more], owner[p, more], place[p, more] = ids[1:], j, j * A + np.arange(len(ids) - 1)
    return tokens, later, owner, place


def _filled(length: int) -> int:
    """The next power of 4, at least 1."""
    return 4 ** math.ceil(math.log(max(1, length), 4))


def _prompts_at_once(
    lm: LanguageModel, slots: int, states: int, branches: int, count: int, memory: int, coefficients: int = 0
) -> int:
    """How many prompts are worked on together, the same number on each device.

    `states`: how many predictions the answers to a prompt need. `branches`: how many texts continue a prompt, each
    with its own keys and values. In the worst case, every set continues it with a different one. `coefficients`: how
    many a dictionary gives at each token.
    """
    config, devices = lm.config, lm.mesh.shape["data"]
    a_text = 4 * (2 * config.n_layers * 2 * slots * config.n_kv_heads * config.d_head + 4 * config.vocab_size)
    a_prompt = branches * a_text + 4 * states * 4 * config.vocab_size + COPIES * 4 * slots * coefficients
    most = devices * int(max(1, memory * 3 // 4 // a_prompt))
    batches = -(-count // most)
    return devices * -(-count // (batches * devices))  # as many in each batch, so that none is filled up


@dataclasses.dataclass(frozen=True)
class _Job:
    lm: LanguageModel
    read: Reading
    n_new: int

    def continued(self, cache: Cache, seen: States, sets: Ablations, prompts: int) -> np.ndarray:
        """The new tokens, int32 [c p n], of each set after each prompt.

        `cache` holds the prompts, `seen` are the states at their ends, and `prompts` is their number.
        """
        config, lm = self.lm.config, self.lm
        text = np.broadcast_to(np.arange(prompts), (len(sets.members), prompts))  # which text each set has so far
        new = np.zeros((*text.shape, self.n_new), np.int32)
        for step in range(self.n_new):
            next_token = likeliest(config, self.read, seen, text, sets)
            token = new[:, :, step] = fetched(next_token)
            if step + 1 == self.n_new:
                break
            # Sets that had the same text and now chose the same token still share one text.
            different, at = np.unique(text * np.int64(config.vocab_size) + token, return_inverse=True)
            text = at.reshape(text.shape)
            # The number of texts is padded to one of few sizes, since a program is compiled for each size.
            filled = prompts * min(len(text), 4 ** math.ceil(math.log(max(1, len(different) / prompts), 4)))
            parent, token = np.divmod(np.pad(different, (0, filled - len(different)), mode="edge"), config.vocab_size)
            cache = branched(cache, lm.over_data(parent))
            cache, seen = advance(config, lm.params, self.read, cache, lm.over_data(token.astype(np.int32)))
        return new

"""Induction heads: their scores, and how the model and the chosen neurons change if heads attend to BOS alone.

Letters: b sequence, t position, l layer, h head, n neuron, c set of heads. Source: Stolfo et al. 2024 (arXiv
2406.16254), section 5.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.induction import head_scores, random_heads
from jaxconf.analysis.neuron_sets import Neurons
from jaxconf.analysis.observation import Totals, entered
from jaxconf.analysis.observation import at_bos as at_bos_of_sets
from jaxconf.analysis.unembedding import readout
from jaxconf.measure.named_sets import Members, NamedSet, table_of_sets
from jaxconf.measure.neuron_sets import check_once, check_places
from jaxconf.measure.set_runs import groups_of_windows
from jaxconf.models.config import DecoderConfig
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.progress import Progress
from jaxconf.studies.induction.setting import Setting

MOST_HEADS = 4
THRESHOLD = 0.7  # the paper's: its induction heads have a higher score on random tokens


def check_heads(config: DecoderConfig, heads: Members) -> None:
    """Raises InputError for heads that the model does not have, and for a head that is given twice."""
    check_places("head", heads, config.n_layers, config.n_heads)
    check_once("head", heads, "the list of heads")


def table_of_scores(scores: np.ndarray, on_random: np.ndarray) -> pd.DataFrame:
    """The table `Induction.heads`, from the scores on the study's sequences and on random tokens, [l h] each."""
    layer, head = (index.ravel() for index in np.indices(scores.shape))
    highest = highest_scores(scores)
    return pd.DataFrame(
        {
            "layer": layer,
            "head": head,
            "score": scores.ravel(),
            "is_highest": [pair in highest for pair in zip(layer.tolist(), head.tolist(), strict=True)],
            "score_random": on_random.ravel(),
            "is_above_threshold": on_random.ravel() > THRESHOLD,
        }
    )


def highest_scores(scores: np.ndarray) -> list[tuple[int, int]]:
    """The heads with the highest scores [l h], the highest first.

    There are MOST_HEADS of them, but at most a quarter of all heads, and at least one.
    """
    most = max(1, min(MOST_HEADS, scores.size // 4))
    layer, head = np.unravel_index(np.argsort(-scores, axis=None)[:most], scores.shape)
    return list(zip(layer.tolist(), head.tolist(), strict=True))


def sets_of_heads(config: DecoderConfig, heads: Members, controls: int, seed: int) -> list[NamedSet]:
    """Each of the heads alone; the first two, three and so on up to all; and random sets of as many heads as all."""
    single = [NamedSet(f"{layer}.{head}", "single", [(layer, head)]) for layer, head in heads]
    first = [NamedSet(f"top {size}", "cumulative", heads[:size]) for size in range(2, len(heads) + 1)]
    drawn = random_heads(config, heads, controls, np.random.default_rng([seed, 1]))
    return [*single, *first, *(NamedSet(f"random {i + 1}", "random", members) for i, members in enumerate(drawn))]


def tables_at_bos(
    setting: Setting, sets: Sequence[NamedSet], chosen: NamedSet, means: Totals
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `Induction.head_sets` and `Induction.head_activations`.

    `sets`: the sets of heads that attend to BOS alone. `chosen`: the set whose activations are given. `means`: of
    the unablated model.
    """
    tokens, repeat = setting.texts.repeated, setting.texts.repeat
    members, dictionary = chosen.members, chosen.population.dictionary
    found: AtBos = setting.fitted(at_bos, tokens, [one.members for one in sets], members, dictionary, repeat)
    before = [means.activations[layer][repeat, n].mean() for layer, n in members]
    of_neurons = pd.DataFrame(
        {
            "heads": np.repeat([one.name for one in sets], len(members)),
            "kind": np.repeat([one.kind for one in sets], len(members)),
            "neuron": chosen.names * len(sets),
            "activation": np.tile(before, len(sets)),
            "activation_ablated": found.activations.ravel(),
        }
    )
    draws = setting.bootstrap_draws, setting.seed
    return table_of_sets(sets, found.changes, found.before, int(repeat.sum()), *draws), of_neurons


def scores_of_heads(lm: LanguageModel, tokens: np.ndarray, memory: int, progress: Progress) -> np.ndarray:
    """The induction score of every head, float64 [l h], on repeated sequences, int32 [b t]."""
    T = tokens.shape[1]
    total = np.zeros((lm.config.n_layers, lm.config.n_heads))
    progress("induction heads", 0, tokens.size)
    for rows, real in batches_in_memory(len(tokens), 8 * lm.config.n_heads * T * T, memory, lm.mesh.shape["data"]):
        found = head_scores(lm.config, lm.params, lm.over_data(tokens[rows]), lm.over_data(real.astype(np.float32)))
        total += fetched(found).astype(np.float64)
        progress("induction heads", (int(rows[-1]) + 1) * T, tokens.size)
    return total / len(tokens)


class AtBos(NamedTuple):
    """What changes if the heads of each set attend to BOS alone; float64.

    Entropy and loss are in nats, summed over the positions of each sequence that count.
    """

    changes: dict[str, np.ndarray]  # "entropy" and "loss" → b c
    before: dict[str, np.ndarray]  # the same of the unablated model, b 1
    activations: np.ndarray  # c chosen: the mean activation of every chosen neuron over these positions


def at_bos(
    lm: LanguageModel,
    tokens: np.ndarray,
    sets: Sequence[Members],
    chosen: Neurons,
    dictionary: Dictionary | None,
    repeat: np.ndarray,
    memory: int,
    progress: Progress,
) -> AtBos:
    """What changes on tokens, int32 [b t], if the heads of each set attend to BOS alone.

    `chosen`: the neurons, or the directions of the `dictionary`, whose activations are given. `repeat`: the positions
    that count, bool [t].
    """
    config, read, positions = lm.config, readout(lm.config, lm.params), np.flatnonzero(repeat)
    masks = np.zeros((len(sets), config.n_layers, config.n_heads), bool)
    for row, members in enumerate(sets):
        masks[row, *np.transpose(members)] = True
    edited = tuple(np.flatnonzero(masks.any((0, 2))).tolist())
    neurons = {layer: np.array([n for of, n in chosen if of == layer]) for layer in sorted({of for of, _ in chosen})}
    order = np.argsort([layer for layer, _ in chosen], kind="stable")  # the chosen neurons, layer by layer
    sums: list[dict[str, np.ndarray]] = []  # b 1+c each, the unablated model first
    activations = np.zeros((len(sets), len(chosen)))
    T = tokens.shape[1]
    progress("heads that attend to BOS", 0, tokens.size)
    for rows, real in groups_of_windows(lm, memory, len(tokens), T, T):
        seen, before = entered(config, lm.params, read, lm.over_data(tokens[rows]), positions, neurons, edited)
        after, h = fetched(at_bos_of_sets(config, lm.params, read, seen, positions, neurons, edited, masks, dictionary))
        unablated = fetched(before)
        both = {of: np.concatenate([getattr(unablated, of)[None], getattr(after, of)]) for of in ("entropy", "loss")}
        sums.append({of: x[:, real].sum(-1, dtype=np.float64).T for of, x in both.items()})
        of_neurons = np.concatenate([h[layer] for layer in neurons], -1)[:, real].mean(2, dtype=np.float64).sum(1)
        activations[:, order] += of_neurons
        progress("heads that attend to BOS", (rows[-1] + 1) * T, tokens.size)
    of_sequences = {name: np.concatenate([part[name] for part in sums]) for name in sums[0]}
    before_all = {name: x[:, :1] for name, x in of_sequences.items()}
    changes = {name: x[:, 1:] - before_all[name] for name, x in of_sequences.items()}
    return AtBos(changes, before_all, activations / len(tokens))

"""Induction in text as it is: windows in which six tokens occur exactly twice, and what the model makes of the second time.

Letters: m pair of places, one pair in each window; t position; n neuron. With A the six tokens, the first place is the last token of the first
A, which B follows, and the second place the last token of the second A, which X follows. X may be B again.
Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5 and its appendix on natural induction.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.neuron_sets import Neurons
from jaxconf.analysis.ngrams import repeated_once
from jaxconf.analysis.whole_logits import Prediction, prediction
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_set
from jaxconf.runtime.progress import Progress
from jaxconf.studies.induction.clip_ablation import clip_ablation, name_of, summary_of

GRAM = 6  # tokens of A
MOST_PAIRS = 128


@dataclasses.dataclass
class Natural:
    """What was found; losses and entropies in nats.

    pairs: a row per window with `window`, `first` and `second` (the places), the tokens `B` and `X`, `repeats` (whether they are the same),
    `induced` (whether the model's most likely token at the second place is B), `correct` (whether it is X), and `entropy` and `loss` at each
    place, `_first` and `_second`. activations: of every neuron that was asked for, the mean over the windows at each `offset` from the two
    places, `activation_first` and `activation_second`. sets: a row per set, what its clip mean-ablation, at the means over the first A,
    changes at the second place: `entropy`, `loss`, each also `_ln_frozen`, with intervals over windows.
    """

    pairs: pd.DataFrame
    activations: pd.DataFrame
    sets: pd.DataFrame


def natural_places(lm: LanguageModel, windows: np.ndarray) -> np.ndarray:
    """The first 128 of the windows int [s t] in which six tokens occur exactly twice: int [m 3], the window and the two places.

    Raises InputError if there is none.
    """
    excluded = lm.special_ids
    if lm.has_tokenizer:
        excluded |= {i for i in (lm.tokenizer.newline_id, lm.tokenizer.unknown_id) if i is not None}
    places = repeated_once(windows, GRAM, excluded)[:MOST_PAIRS]
    if not len(places):
        raise InputError(f"no {GRAM} tokens occur exactly twice in any window of the {windows.size:,} tokens searched; give other text")
    return places


def natural_induction(
    lm: LanguageModel,
    windows: np.ndarray,
    places: np.ndarray,
    named: Mapping[str, Neurons],
    kinds: list[str],
    shown: list[tuple[tuple[int, int], str]],
    bootstrap_draws: int,
    seed: int,
    memory: int,
    progress: Progress,
) -> Natural:
    """Of windows int [s t] those with `places`, as `natural_places` gives them; `named`: the sets of neurons that are ablated, `kinds`: what
    each is, `shown`: neurons whose activations are given, and what each is.
    """
    at, first, second = places.T
    tokens, m = windows[at], np.arange(len(at))
    layers = tuple(sorted({layer for members in named.values() for layer, _ in members} | {layer for (layer, _), _ in shown}))
    offsets = np.arange(-GRAM + 1, 1)
    seen: list[Prediction] = []
    copies: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}  # [2 m offset n]
    for group, real in batches_in_memory(len(tokens), bytes_of_a_set(lm.config, tokens.shape[1]), memory, lm.mesh.shape["data"]):
        of, h = fetched(_look(lm.config, layers, lm.params, lm.over_data(tokens[group])))
        rows = group[real]
        seen.append(jax.tree.map(lambda x, real=real: x[real], of))
        for layer in layers:
            own = h[layer][real]
            where = [place[rows][:, None] + offsets for place in (first, second)]
            copies[layer].append(np.stack([own[np.arange(len(rows))[:, None], places_of] for places_of in where]))
        progress("natural induction", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    found = jax.tree.map(lambda *x: np.concatenate(x), *seen)
    activations = {layer: np.concatenate(parts, 1).astype(np.float64) for layer, parts in copies.items()}
    means = {layer: x[0].mean((0, 1)) for layer, x in activations.items()}
    rises = {layer: x[1].mean((0, 1)) > means[layer] for layer, x in activations.items()}
    where = np.arange(tokens.shape[1]) == second[:, None]
    _, sums = clip_ablation(lm, tokens, list(named.values()), means, rises, where, memory, progress)
    B, X = tokens[m, first + 1], tokens[m, second + 1]
    pairs = {"window": at, "first": first, "second": second, "B": B, "X": X, "repeats": B == X}
    top = found.top[m, second]
    pairs |= {"induced": top == B, "correct": top == X}
    for name in ("entropy", "loss"):
        pairs |= {f"{name}_{which}": getattr(found, name)[m, place] for which, place in (("first", first), ("second", second))}
    frames = [
        pd.DataFrame(
            {
                "neuron": name_of((layer, n)),
                "kind": kind,
                "offset": offsets,
                "activation_first": activations[layer][0, :, :, n].mean(0),
                "activation_second": activations[layer][1, :, :, n].mean(0),
            }
        )
        for (layer, n), kind in shown
    ]
    sets = summary_of(sums, dict(named), kinds, 1, bootstrap_draws, seed)
    return Natural(pd.DataFrame(pairs), pd.concat(frames, ignore_index=True), sets)


@functools.partial(jax.jit, static_argnames=("config", "layers"))
def _look(config: DecoderConfig, layers: tuple[int, ...], params: Params, tokens: jax.Array) -> tuple[Prediction, dict[int, jax.Array]]:
    """Predictions [b t] and the layers' activations [b t n]."""
    sites = {layer: f"blocks.{layer}.mlp.hook_post" for layer in layers}
    output = forward(config, params, tokens, capture=list(sites.values()))
    assert output.logits is not None
    of = prediction(output.logits, frequency(np.zeros(config.vocab_size)), jnp.roll(tokens, -1, 1))
    return of, {layer: output.captured[site] for layer, site in sites.items()}

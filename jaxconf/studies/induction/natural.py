"""Natural induction: windows of text in which six tokens A occur exactly twice, and what the model does at both places.

Letters: m window with such tokens, t position, n neuron. A is a sequence of six tokens. The first place is the position
of its last token when A occurs first; the token B follows there. The second place is that of its last token when A
occurs again; the token X follows there, and X may be B again.
Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5 and its appendix on natural induction.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.clip_ablation import Clip
from jaxconf.analysis.ngrams import repeated_once
from jaxconf.analysis.observation import activation_sites, observed
from jaxconf.analysis.whole_logits import Prediction
from jaxconf.measure.named_sets import NamedSet, table_of_sets
from jaxconf.measure.neuron_sets import neuron_name
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_set
from jaxconf.runtime.progress import Progress
from jaxconf.studies.induction.clip_ablation import Clipped, clip_ablation
from jaxconf.studies.induction.repeated_text import Shown

GRAM = 6  # tokens of A
MOST_PAIRS = 128
OFFSETS = np.arange(-GRAM + 1, 1)  # the positions of A's tokens, relative to a place


@dataclasses.dataclass
class Natural:
    """The result of natural induction. Losses and entropies are in nats.

    pairs: a row per window. `window`; `first` and `second`, the two places; the tokens `B` and `X`; `repeats`, whether
    B is X; `induced`, whether the model's most likely token at the second place is B; `correct`, whether it is X;
    `entropy` and `loss` at each place, with `_first` and `_second`.
    activations: a row per neuron and `offset` from a place. The means over windows, `activation_first` and
    `activation_second`.
    sets: a row per neuron set. Its clip ablation clips at the mean activations over the first A. The changes at the
    second place are `entropy` and `loss`, also `_ln_frozen`, with intervals from a bootstrap over windows.
    """

    pairs: pd.DataFrame
    activations: pd.DataFrame
    sets: pd.DataFrame


def natural_places(lm: LanguageModel, windows: np.ndarray) -> np.ndarray:
    """The first 128 windows, or fewer, in which six tokens occur exactly twice: int [m 3].

    Each row has the number of the window and the two places. `windows`: int32 [s t]. Raises InputError if there is no
    such window.
    """
    excluded = lm.special_ids
    if lm.has_tokenizer:
        excluded |= {i for i in (lm.tokenizer.newline_id, lm.tokenizer.unknown_id) if i is not None}
    places = repeated_once(windows, GRAM, excluded)[:MOST_PAIRS]
    if not len(places):
        raise InputError(
            f"no {GRAM} tokens occur exactly twice in a window of the {windows.size:,} tokens searched; give other text"
        )
    return places


def natural_induction(
    lm: LanguageModel,
    windows: np.ndarray,
    places: np.ndarray,
    sets: Sequence[NamedSet],
    shown: Shown,
    bootstrap_draws: int,
    seed: int,
    memory: int,
    progress: Progress,
) -> Natural:
    """The predictions, activations and clip ablations at the `places` from `natural_places` in windows, int32 [s t].

    `sets`: the neuron sets that are ablated. `shown`: the neurons whose activations are given.
    """
    at, first, second = places.T
    tokens = windows[at]
    named = {layer for one in sets for layer, _ in one.members} | {layer for (layer, _), _ in shown}
    found, activations = _observed(lm, tokens, places, tuple(sorted(named)), memory, progress)
    means = {layer: x.mean((1, 2)) for layer, x in activations.items()}  # 2 n
    clips = {layer: Clip(at_first, at_second > at_first) for layer, (at_first, at_second) in means.items()}
    counted = np.arange(tokens.shape[1]) == second[:, None]
    clipped: Clipped = clip_ablation(lm, tokens, sets, clips, counted, memory, progress)
    return Natural(
        _table_of_pairs(at, tokens, first, second, found),
        _table_of_activations(activations, shown),
        table_of_sets(sets, clipped.sums, 1, bootstrap_draws, seed),
    )


def _observed(
    lm: LanguageModel, tokens: np.ndarray, places: np.ndarray, layers: tuple[int, ...], memory: int, progress: Progress
) -> tuple[Prediction, dict[int, np.ndarray]]:
    """The predictions [m t]; and layer → the activations on the tokens of A both times, float64 [2 m offset n]."""
    predictions: list[Prediction] = []
    sites = activation_sites(layers)
    along: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    each, D = bytes_of_a_set(lm.config, tokens.shape[1]), lm.mesh.shape["data"]
    progress("natural induction", 0, tokens.size)
    for group, real in batches_in_memory(len(tokens), each, memory, D):
        seen, h = fetched(observed(lm.config, lm.params, lm.over_data(tokens[group]), tuple(sites.values())))
        rows = group[real]
        predictions.append(jax.tree.map(lambda x, real=real: x[real], seen))
        where = places[rows, 1:].T[:, :, None] + OFFSETS  # 2 m offset
        for layer, site in sites.items():
            along[layer].append(h[site][real][np.arange(len(rows))[:, None], where])
        progress("natural induction", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    found: Prediction = jax.tree.map(lambda *x: np.concatenate(x), *predictions)
    return found, {layer: np.concatenate(parts, 1).astype(np.float64) for layer, parts in along.items()}


def _table_of_pairs(
    window: np.ndarray, tokens: np.ndarray, first: np.ndarray, second: np.ndarray, found: Prediction
) -> pd.DataFrame:
    m = np.arange(len(tokens))
    B, X, top = tokens[m, first + 1], tokens[m, second + 1], found.top[m, second]
    pairs = {"window": window, "first": first, "second": second, "B": B, "X": X}
    pairs |= {"repeats": B == X, "induced": top == B, "correct": top == X}
    for name in ("entropy", "loss"):
        values = getattr(found, name)
        pairs |= {f"{name}_first": values[m, first], f"{name}_second": values[m, second]}
    return pd.DataFrame(pairs)


def _table_of_activations(activations: dict[int, np.ndarray], shown: Shown) -> pd.DataFrame:
    frames = []
    for (layer, n), kind in shown:
        at_first, at_second = activations[layer][:, :, :, n].mean(1)
        of_neuron = {"activation_first": at_first, "activation_second": at_second}
        frames.append(pd.DataFrame({"neuron": neuron_name(layer, n), "kind": kind, "offset": OFFSETS, **of_neuron}))
    return pd.concat(frames, ignore_index=True)

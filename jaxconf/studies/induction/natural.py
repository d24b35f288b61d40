"""Natural induction: windows of text in which six tokens A occur exactly twice, and what the model does at both places.

Letters: m window with such tokens, t position, n neuron. A is a sequence of six tokens. The first place is the position
of its last token when A occurs first; the token B follows there. The second place is that of its last token when A
occurs again; the token X follows there, and X may be B again.
Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5 and its appendix on natural induction.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.mean_ablation import clipped_at, set_to
from jaxconf.analysis.ngrams import repeated_once
from jaxconf.analysis.observation import activation_sites, observed, read_activations
from jaxconf.analysis.whole_logits import Prediction
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.named_sets import NamedSet
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_set
from jaxconf.runtime.progress import Progress
from jaxconf.studies.induction.mean_ablation import mean_ablations, table_of_ablation
from jaxconf.studies.induction.repeated_text import Shown

GRAM = 6  # tokens of A
MOST_WINDOWS = 128
OFFSETS = np.arange(-GRAM + 1, 2)  # the positions of A's tokens and of B or X, relative to a place


@dataclasses.dataclass
class Natural:
    """The result of natural induction. Losses and entropies are in nats.

    There are two protocols: "ours" and that of the "paper", which drops windows with a BOS or EOS behind their first
    position, ablates without clipping, and takes the means of other text.

    pairs: a row per window. `window`; `first` and `second`, the two places; the tokens `B` and `X`; `repeats`, whether
    B is X; `induced`, whether the model's most likely token at the second place is B; `correct`, whether it is X;
    `entropy` and `loss` at each place, with `_first` and `_second`; and which protocols have the window, `is_ours` and
    `is_paper`.
    activations: a row per `protocol`, neuron and `offset` from a place; at the offset 1 are B and X. The means over
    windows, `activation_first` and `activation_second`.
    sets: a row per `protocol` and neuron set. `ablation` is "clip" at the mean activations over the first A (ours), or
    "full", which sets activations to their means over other text (paper). The changes at the second place are
    `entropy` and `loss`, also `_ln_frozen`, each with a `_ratio` of after to before, and with intervals from a
    bootstrap over windows.
    counts: how many windows have such tokens (`windows_with_repeats`), how many of them the paper's protocol drops
    (`windows_dropped`), and over how many windows the means of other text are (`windows_of_other_text`).
    """

    pairs: pd.DataFrame
    activations: pd.DataFrame
    sets: pd.DataFrame
    counts: dict[str, int]


class Places(NamedTuple):
    """Where six tokens occur exactly twice: a row per window, with its number and the two places, int [m 3] each."""

    ours: np.ndarray
    paper: np.ndarray  # of the windows without inner BOS and EOS; there may be none
    found: int  # windows with a place
    dropped: int  # those of them with an inner BOS or EOS

    @property
    def all(self) -> np.ndarray:
        """Those of either, in the order of the windows."""
        return np.unique(np.concatenate([self.ours, self.paper]), axis=0)


def natural_places(lm: LanguageModel, windows: np.ndarray) -> Places:
    """The places in the first 128 windows, or fewer, in which six tokens occur exactly twice. `windows`: int32 [s t].

    Raises InputError if there is no such window.
    """
    excluded = lm.special_ids
    if lm.has_tokenizer:
        excluded |= {i for i in (lm.tokenizer.newline_id, lm.tokenizer.unknown_id) if i is not None}
    places = repeated_once(windows, GRAM, excluded)
    if not len(places):
        raise InputError(
            f"no {GRAM} tokens occur exactly twice in a window of the {windows.size:,} tokens searched; give other text"
        )
    whole = ~np.isin(windows[places[:, 0], 1:], list(lm.end_ids)).any(1)
    return Places(places[:MOST_WINDOWS], places[whole][:MOST_WINDOWS], len(places), int((~whole).sum()))


def natural_induction(
    lm: LanguageModel,
    windows: np.ndarray,
    places: Places,
    text: np.ndarray,
    sets: Sequence[NamedSet],
    shown: Sequence[Shown],
    bootstrap_draws: int,
    seed: int,
    memory: int,
    progress: Progress,
) -> Natural:
    """The predictions, activations and ablations at the `places` from `natural_places` in windows, int32 [s t].

    `text`: windows that are the other text if all of `windows` have places, int32 [s T]. `sets`: the neuron sets that
    are ablated. `shown`: the neurons whose activations are given.
    """
    both, dictionary = places.all, sets[0].population.dictionary
    named = {layer for one in sets for layer, _ in one.members} | {one.member[0] for one in shown}
    layers = tuple(sorted(named))
    found, activations = _observed(lm, windows[both[:, 0]], both, layers, dictionary, memory, progress)
    unmeasured = np.setdiff1d(np.arange(len(windows)), both[:, 0])[:MOST_WINDOWS]
    other = windows[unmeasured] if len(unmeasured) else text
    frames, tables = [], []
    for protocol, own in (("ours", places.ours), ("paper", places.paper)):
        if not len(own):
            continue
        h = {layer: x[:, np.isin(both[:, 0], own[:, 0])] for layer, x in activations.items()}
        frames.append(_table_of_activations(protocol, h, shown))
        ablation = "clip" if protocol == "ours" else "full"
        ablations = _clips(h) if protocol == "ours" else _of_other_text(lm, other, h, dictionary, memory, progress)
        tokens = windows[own[:, 0]]
        counted = np.arange(tokens.shape[1]) == own[:, 2:]
        [ablated] = mean_ablations(lm, tokens, [(sets, ablations)], counted, memory, progress)
        table = table_of_ablation(sets, ablation, ablated, 1, bootstrap_draws, seed)
        table.insert(0, "protocol", protocol)
        tables.append(table)
    return Natural(
        _table_of_pairs(windows, places, found),
        pd.concat(frames, ignore_index=True),
        pd.concat(tables, ignore_index=True),
        {
            "windows_with_repeats": places.found,
            "windows_dropped": places.dropped,
            "windows_of_other_text": len(other),
        },
    )


def _clips(activations: dict[int, np.ndarray]) -> dict[int, LayerAblation]:
    """Ours: activations, [2 m offset n], are clipped at their means over the first A."""
    of_A = {layer: x[:, :, OFFSETS <= 0].mean((1, 2)) for layer, x in activations.items()}  # 2 n
    return {layer: clipped_at(at_first, at_second > at_first) for layer, (at_first, at_second) in of_A.items()}


def _of_other_text(
    lm: LanguageModel,
    other: np.ndarray,
    layers: Iterable[int],
    dictionary: Dictionary | None,
    memory: int,
    progress: Progress,
) -> dict[int, LayerAblation]:
    """The paper's: activations are set to their means over all tokens of the `other` text, int32 [s t]."""
    every = {layer: LayerActivations(lm, other, layer, memory, dictionary) for layer in layers}
    return {layer: set_to(activation_statistics(of, progress).mean) for layer, of in every.items()}


def _observed(
    lm: LanguageModel,
    tokens: np.ndarray,
    places: np.ndarray,
    layers: tuple[int, ...],
    dictionary: Dictionary | None,
    memory: int,
    progress: Progress,
) -> tuple[Prediction, dict[int, np.ndarray]]:
    """The predictions [m t]; and layer → the activations at the OFFSETS from both places, float64 [2 m offset n]."""
    predictions: list[Prediction] = []
    sites = activation_sites(layers, dictionary)
    along: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    each, D = bytes_of_a_set(lm.config, tokens.shape[1]), lm.mesh.shape["data"]
    progress("natural induction", 0, tokens.size)
    for group, real in batches_in_memory(len(tokens), each, memory, D):
        seen, h = fetched(observed(lm.config, lm.params, lm.over_data(tokens[group]), tuple(sites.values())))
        rows = group[real]
        predictions.append(jax.tree.map(lambda x, real=real: x[real], seen))
        where = places[rows, 1:].T[:, :, None] + OFFSETS  # 2 m offset
        for layer, site in sites.items():
            value = h[site][real][np.arange(len(rows))[:, None], where]
            along[layer].append(fetched(read_activations(value, dictionary)))
        progress("natural induction", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    found: Prediction = jax.tree.map(lambda *x: np.concatenate(x), *predictions)
    return found, {layer: np.concatenate(parts, 1).astype(np.float64) for layer, parts in along.items()}


def _table_of_pairs(windows: np.ndarray, places: Places, found: Prediction) -> pd.DataFrame:
    window, first, second = places.all.T
    tokens, m = windows[window], np.arange(len(window))
    B, X, top = tokens[m, first + 1], tokens[m, second + 1], found.top[m, second]
    pairs = {"window": window, "first": first, "second": second, "B": B, "X": X}
    pairs |= {"repeats": B == X, "induced": top == B, "correct": top == X}
    for name in ("entropy", "loss"):
        values = getattr(found, name)
        pairs |= {f"{name}_first": values[m, first], f"{name}_second": values[m, second]}
    protocols = {"is_ours": places.ours, "is_paper": places.paper}
    return pd.DataFrame(pairs | {name: np.isin(window, own[:, 0]) for name, own in protocols.items()})


def _table_of_activations(protocol: str, activations: dict[int, np.ndarray], shown: Sequence[Shown]) -> pd.DataFrame:
    frames = []
    for one in shown:
        layer, n = one.member
        at_first, at_second = activations[layer][:, :, :, n].mean(1)
        of_neuron = {"protocol": protocol, "neuron": one.name, "kind": one.kind, "offset": OFFSETS}
        frames.append(pd.DataFrame(of_neuron | {"activation_first": at_first, "activation_second": at_second}))
    return pd.concat(frames, ignore_index=True)

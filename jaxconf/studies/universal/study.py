"""Which neurons of a model act like neurons of others that were trained apart from it, and what kind of neurons these are.

Letters: s window, t position, l layer, n neuron, h head, d width, v vocabulary, k best matches. "The first model" is the one whose neurons are
matched, each with those of every other model.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
import scipy.stats

from jaxconf.analysis.bos_attention import bos_directions
from jaxconf.analysis.correlation import CONSTANT, Best, add, best, moments, no_sums
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.unembedding import Readout, Spectrum, at_layer, readout, spectrum
from jaxconf.analysis.weights import chance_rho, null_space_size, vocabulary_statistics
from jaxconf.data.windows import digest, kept_positions
from jaxconf.measure.analyze import analyze
from jaxconf.measure.facts import facts_of
from jaxconf.measure.inputs import prepared
from jaxconf.measure.weights import weight_columns
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched, wait_on_cpus
from jaxconf.models.norms import centre
from jaxconf.results.neuron_table import Rules
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import MEMORY, bytes_of_a_window, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing

MATCHES = 5
BOS_WINDOWS = 8
EFFECTS = ("ln_mediated", "freq_mediated", "entropy_delta", "loss_abs_delta", "kl_freq_abs_delta")
EXAMPLES = (
    "prediction",
    "suppression",
    "partition",
    "null_space",
)  # families of which one neuron's whole effect on the vocabulary is given
NAMED_TOKENS = 8  # of the most and of the least promoted tokens of an example


@dataclasses.dataclass(frozen=True)
class FamilyRules:
    """When a neuron is universal, and of which families it is.

    min_excess: least excess correlation of a universal neuron. min_position_r2: least share of the activation's variance that lies between
    positions. min_bos_change: least change of a head's mean attention to BOS as the activation rises by a standard deviation.
    """

    min_excess: float = 0.5
    min_position_r2: float = 0.5
    min_bos_change: float = 0.01

    def describe(self) -> dict[str, str]:
        """Family → its rule in words."""
        drawn = "above the largest of as many random directions as a layer has neurons"
        bos = f"as the activation rises by a standard deviation, the head that it moves most attends {self.min_bos_change:g} or more"
        chance = "to BOS, and its cosine with that head's direction is beyond chance"
        return {
            "prediction": f"vocab_kurtosis {drawn}, and vocab_skew positive",
            "suppression": f"vocab_kurtosis {drawn}, and vocab_skew negative",
            "partition": f"logit_var {drawn}, and vocab_kurtosis not",
            "null_space": "rho above chance: the neuron writes where the unembedding sees little, as entropy neurons do, whatever it causes",
            "entropy": f"in the last layer, rho above chance and ln_mediated of at least {Rules().min_ln_mediated:g}",
            "along_frequency": f"|cos_freq| {drawn}",
            "frequency": f"in the last layer, freq_mediated of at least {Rules().min_freq_mediated:g} and kl_freq_abs_delta among the largest "
            f"{100 * Rules().kl_top:g}%",
            "position": f"a share of at least {self.min_position_r2:g} of the activation's variance lies between positions",
            "attention_deactivating": f"{bos} more {chance}",
            "attention_activating": f"{bos} less {chance}",
        }

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of `frame` with a boolean column is_…_neuron for each family that it has the figures for. NaN never passes."""
        peaked = frame["vocab_kurtosis"] > frame["vocab_kurtosis_chance"]
        moved = (frame["bos_change"].abs() >= self.min_bos_change) & (frame["bos_cosine"].abs() > frame["bos_cosine_chance"])
        families = {
            "prediction": peaked & (frame["vocab_skew"] > 0),
            "suppression": peaked & (frame["vocab_skew"] < 0),
            "partition": (frame["logit_var"] > frame["logit_var_chance"]) & ~peaked,
            "null_space": frame["rho"] > frame["rho_chance"],
            "along_frequency": frame["cos_freq"].abs() > frame["cos_freq_chance"],
            "position": frame["position_r2"] >= self.min_position_r2,
            "attention_deactivating": moved & (frame["bos_change"] > 0),
            "attention_activating": moved & (frame["bos_change"] < 0),
        }
        return frame.assign(**{f"is_{name}_neuron": found for name, found in families.items()})


@dataclasses.dataclass
class Universality:
    """What was found. Models are counted from 0, the first.

    neurons: a row per neuron of every model, with `model`, `layer`, `neuron`; the weight statistics of `jaxconf.weight_statistics`, and beside
    `vocab_kurtosis`, `logit_var` and `cos_freq` the largest of as many random directions as a layer has neurons (`_chance`; of `cos_freq` its
    size); `activation_mean`, `_std`, `_skew`, `_kurtosis`; `position_r2`, the share of the activation's variance that lies between positions;
    `bos_head`, of the layers above the head whose mean attention to BOS it changes most, `bos_change`, that change as the activation rises by
    a standard deviation, to first order, `bos_cosine` of its write with that head's direction, and `bos_cosine_chance`, the 99% quantile of the
    largest of as many random directions as there are pairs of the layer's neurons and these heads; where effects were measured, those of
    `jaxconf.analyze` in the last layer; a column is_…_neuron for each family. Of the first model also, means over the other models,
    `correlation` with the best match, `baseline`, the largest with their rotated layers, `excess`, the difference, and `is_universal`.
    matches: for each neuron of the first model and each other `model` its best five matches by `rank`, `match_layer`, `match_neuron` and
    `correlation`, with the model's `baseline`; a constant neuron has none.
    layers: a row per layer of the first model with its `neurons`, how many are `universal`, and their `share`.
    families: a row per family, its `neurons` in the first model, how many are `universal`, their `share`, `share_of_others` (of neurons outside
    it, in the layers where the family is judged), and `p`, Fisher's exact, two-sided; `excess` and `excess_of_others`, the medians; `recurs`, how
    often the best match in another model is of the same family, and `recurs_of_others`, how often that of a neuron outside it is.
    vocabulary: of one neuron of each of EXAMPLES, the one with the largest excess, the cosine of its write with each token's unembedding:
    `family`, `neuron`, `token` (id), `cosine`, and of the extreme ones `word`.
    """

    facts: dict[str, Any]
    neurons: pd.DataFrame
    matches: pd.DataFrame
    layers: pd.DataFrame
    families: pd.DataFrame
    vocabulary: pd.DataFrame


def universal(
    lms: Sequence[LanguageModel],
    tokens: np.ndarray,
    *,
    kept: np.ndarray | None = None,
    effects: int = 0,
    rules: FamilyRules | None = None,
    k: int | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Universality:
    """Each neuron of the first model beside its best matches, by the correlation of activations, in every other model, and its families.

    `tokens`: windows, int [s t], of the vocabulary that all models share. `kept`: bool [s t], the positions that count (by default as in
    `jaxconf.analyze`, special tokens of any of the models left out). `effects`: tokens that the effects of ablating each neuron of the last
    layers are measured on, for entropy and frequency neurons by the project's rules; 0 for none. `k`: size of the null space, for ρ. `memory`:
    bytes that sums and windows may take on a device; with less, the models run over the text more often. `facts`: what else the result should
    state. Source: Gurnee et al. 2024 (arXiv 2401.12181), sections 4 and 5. Raises InputError for fewer than two models, models of different
    vocabularies or on different meshes, and tokens that do not fit them.
    """
    timing = Timing()
    rules = rules or FamilyRules()
    check_models(lms)
    check_options(effects, rules, seed)
    special = frozenset().union(*(lm.special_ids for lm in lms))
    kept = kept_positions(np.asarray(tokens), special) if kept is None else kept
    frames, means = [], []
    for index, lm in enumerate(lms):
        own = _named(progress, index)
        tokens, counted, _, freq = prepared(lm, tokens, kept, None)
        frame, mean = fitting(functools.partial(_described, lm, tokens, counted, freq, k, seed, own), memory, own)
        if effects:
            frame = _with_effects(lm, frame, tokens, counted, effects, k, seed, memory, own)
        frames.append(rules.apply(frame).assign(model=index))
        means.append(mean)
    matches = []
    for index, lm in enumerate(lms[1:], 1):
        own, key = _named(progress, index), jax.random.fold_in(jax.random.key(seed), index)
        found = fitting(functools.partial(_matched, lms[0], lm, tokens, counted, means[0], means[index], key, own), memory, own)
        matches.append(_match_rows(found).assign(model=index))
    table = pd.concat(matches, ignore_index=True)
    best_of = table[table["rank"] == 0].groupby(["layer", "neuron"])[["correlation", "baseline", "excess"]].mean()
    frames[0] = frames[0].join(best_of, on=["layer", "neuron"])
    frames[0]["is_universal"] = frames[0]["excess"] >= rules.min_excess
    neurons = pd.concat(frames, ignore_index=True)
    neurons["is_universal"] = neurons["is_universal"].astype("boolean")
    by_layer = frames[0].groupby("layer")["is_universal"].agg(neurons="size", universal="sum", share="mean").reset_index()
    first = lms[0]
    return Universality(
        facts=facts_of(
            first,
            {
                "data_sha256": digest(tokens),
                "windows": len(tokens),
                "tokens": int(tokens.size),
                "positions": int(counted.sum()),
                "effects": effects,
                **dataclasses.asdict(rules),
                "position_r2_chance": (int(counted.any(0).sum()) - 1) / max(1, int(counted.sum()) - 1),
                "k": null_space_size(first.config.d_model, k),
                "seed": seed,
            },
            timing,
            int(counted.sum()) * len(frames[0]),
            facts,
            named={"model": first.name, "models": [lm.name for lm in lms], "revisions": [lm.revision for lm in lms]},
        ),
        neurons=neurons[["model", *neurons.columns.drop("model")]],
        matches=table[["model", *table.columns.drop("model")]],
        layers=by_layer,
        families=_families(neurons, table, rules),
        vocabulary=_examples(first, frames[0]),
    )


def check_models(lms: Sequence[LanguageModel]) -> None:
    """Raises InputError unless these are at least two models that can be run, of one vocabulary and on one mesh."""
    if len(lms) < 2:
        raise InputError(f"{len(lms)} model is named; give at least two, the first of which is compared with the others")
    for lm in lms:
        check_runnable(lm.params)
    first = lms[0]
    for other in lms[1:]:
        with_tokenizers = first.has_tokenizer and other.has_tokenizer
        same = first.config.vocab_size == other.config.vocab_size
        if with_tokenizers:  # one tokenizer may stand beside vocabularies that were padded to different sizes
            same = first.tokenizer.vocabulary == other.tokenizer.vocabulary
        if not same:
            raise InputError(
                f"{first.name} and {other.name} have different vocabularies, of {first.config.vocab_size:,} and {other.config.vocab_size:,} "
                "tokens; give models with the same tokenizer"
            )
        if dict(first.mesh.shape) != dict(other.mesh.shape):
            raise InputError(f"{first.name} and {other.name} lie on different meshes; name one for both with --mesh")


def check_options(effects: int, rules: FamilyRules, seed: int) -> None:
    """Raises InputError for what `universal` does not take."""
    if effects < 0 or seed < 0:
        raise InputError(f"effects is {effects} and seed {seed}; give 0 or more for each")
    if not -1 <= rules.min_excess <= 1:
        raise InputError(f"min_excess is {rules.min_excess:g}; give a difference of correlations from -1 to 1")


def _named(progress: Progress, index: int) -> Progress:
    return lambda what, done, total: progress(f"model {index + 1}: {what}", done, total)


def _described(
    lm: LanguageModel, tokens: np.ndarray, counted: np.ndarray, freq: Frequency, k: int | None, seed: int, progress: Progress, memory: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """A row per neuron of the model with what its weights and its activations say, and the mean activations, float64 [l n]."""
    config = lm.config
    seen, values = readout(config, lm.params), spectrum(config, lm.params)
    k = null_space_size(config.d_model, k)
    activity, mean = _activity(lm, tokens, counted, memory, progress)
    directions = np.mean([fetched(bos_directions(config, lm.params, window[None])) for window in tokens[:BOS_WINDOWS]], 0)
    if config.norm_place == "sum":  # a norm stands between what a neuron writes and the stream that the next layer reads
        directions[:] = np.nan
    drawn = _random_directions(lm, seen, freq, seed)
    frames = []
    for layer in range(config.n_layers):
        here = at_layer(config, lm.params, seen, "paper", layer)
        columns = weight_columns(config, lm.params, here, freq, values, k, layer)
        columns |= {f"{name}_chance": np.full(config.d_mlp, largest) for name, largest in drawn.items()}
        columns |= {name: x[layer] for name, x in activity.items()}
        columns |= _bos_columns(here, values, directions, columns["activation_std"], layer)
        frames.append(pd.DataFrame({"layer": layer, "neuron": np.arange(config.d_mlp), **columns}))
        progress("weights", layer + 1, config.n_layers)
    return pd.concat(frames, ignore_index=True), mean


def _random_directions(lm: LanguageModel, seen: Readout, freq: Frequency, seed: int) -> dict[str, float]:
    """The largest of each statistic among as many random directions as a layer has neurons."""
    drawn = jax.random.normal(jax.random.key(seed), (lm.config.d_mlp, lm.config.d_model))
    found = fetched(vocabulary_statistics(lm.mesh, dataclasses.replace(seen, w_out=centre(lm.config, drawn)), freq.u))
    return {name: float(np.abs(found[name]).max()) for name in ("vocab_kurtosis", "logit_var", "cos_freq")}


def _activity(
    lm: LanguageModel, tokens: np.ndarray, counted: np.ndarray, memory: int, progress: Progress
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Column → [l n], from the moments of the activations at the positions that count, float64; and the means."""
    config, T = lm.config, tokens.shape[1]
    each = bytes_of_a_window(config, T) + 3 * 4 * T * config.n_layers * config.d_mlp

    def of_group(rows: np.ndarray, real: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = fetched(moments(config, lm.params, lm.over_data(tokens[rows]), lm.over_data(counted[rows] & real[:, None]), shift))
        return found.by_position.astype(np.float64), found.powers.astype(np.float64)

    shift = np.zeros((config.n_layers, config.d_mlp), np.float32)
    by_position: Any = 0
    powers: Any = 0
    for rows, real in batches_in_memory(len(tokens), each, memory, lm.mesh.shape["data"]):
        if not rows[0]:
            shift = (of_group(rows, real, shift)[0].sum(1) / max(1, counted[rows[real]].sum())).astype(np.float32)
        more, more_powers = of_group(rows, real, shift)
        by_position, powers = by_position + more, powers + more_powers
        progress("activations", int(rows[real][-1] + 1) * T, tokens.size)
    count, at = counted.sum(), counted.sum(0)
    away = by_position.sum(1) / count  # of the mean from the shift
    second, third, fourth = powers / count
    variance = second - away**2
    with np.errstate(divide="ignore", invalid="ignore"):
        between = ((by_position[:, at > 0] / at[at > 0][:, None] - away[:, None]) ** 2 * at[at > 0][:, None]).sum(1) / count
        varies = np.where(variance > (CONSTANT * (shift + away)) ** 2, variance, np.nan)
        columns = {
            "activation_mean": shift + away,
            "activation_std": np.sqrt(np.maximum(variance, 0)),
            "activation_skew": (third - 3 * away * second + 2 * away**3) / varies**1.5,
            "activation_kurtosis": (fourth - 4 * away * third + 6 * away**2 * second - 3 * away**4) / varies**2,
            "position_r2": between / varies,
        }
    return columns, shift + away


def _bos_columns(here: Readout, values: Spectrum, directions: np.ndarray, std: np.ndarray, layer: int) -> dict[str, Any]:
    """Of each neuron of a layer the head above it whose attention to BOS it changes most. `directions` [l h d]."""
    N, H = len(std), directions.shape[1]
    above = directions[layer + 1 :].reshape(-1, directions.shape[-1])  # (l h) d
    if not len(above) or np.isnan(above).any():
        return {"bos_head": [None] * N, **dict.fromkeys(("bos_change", "bos_cosine", "bos_cosine_chance"), np.full(N, np.nan))}
    writes = fetched(here.w_out).astype(np.float64)
    moved = writes @ above.T.astype(np.float64)  # n (l h), for a rise of 1
    head = np.abs(moved).argmax(1)
    strongest = moved[np.arange(N), head]
    length = np.linalg.norm(writes, axis=1) * np.linalg.norm(above, axis=1)[head]
    return {
        "bos_head": [f"{layer + 1 + i // H}.{i % H}" for i in head],
        "bos_change": strongest * std,
        "bos_cosine": strongest / np.where(length > 0, length, np.nan),
        "bos_cosine_chance": np.full(N, chance_rho(1, len(values.values), N * len(above))[0]),
    }


def _with_effects(
    lm: LanguageModel,
    frame: pd.DataFrame,
    tokens: np.ndarray,
    counted: np.ndarray,
    effects: int,
    k: int | None,
    seed: int,
    memory: int,
    progress: Progress,
) -> pd.DataFrame:
    """The frame with the effects of ablating each neuron of the last layer, on the first windows that hold so many tokens."""
    some = slice(max(1, effects // tokens.shape[1]))
    table = analyze(lm, tokens[some], kept=counted[some], k=k, bootstrap_draws=0, seed=seed, memory=memory, progress=progress).frame
    named = ["is_entropy_neuron", "is_frequency_neuron"]
    joined = frame.merge(table[["layer", "neuron", *EFFECTS, *named]], on=["layer", "neuron"], how="left")
    return joined.assign(**{name: joined[name].eq(True) for name in named})


def _matched(
    lm: LanguageModel,
    other: LanguageModel,
    tokens: np.ndarray,
    counted: np.ndarray,
    means: np.ndarray,
    other_means: np.ndarray,
    key: jax.Array,
    progress: Progress,
    memory: int,
) -> Best:
    """`Best` of all layers of both models, in blocks of layers whose sums fit into half of the memory; the other half is for windows."""
    config, others = lm.config, other.config
    (L, n), (M, m) = (config.n_layers, config.d_mlp), (others.n_layers, others.d_mlp)
    keys = jax.random.split(key, M)
    i, j = block_layers(L, n, M, m, memory // 2)
    T = tokens.shape[1]
    each = bytes_of_a_window(config, T) + bytes_of_a_window(others, T) + 2 * 4 * T * (L * n + M * m)
    blocks = list(itertools.product(range(0, L, i), range(0, M, j)))
    found = []
    for run, (first, other_first) in enumerate(blocks):
        layers = np.minimum(np.arange(first, first + i), L - 1)  # the last block repeats a layer
        other_layers = np.minimum(np.arange(other_first, other_first + j), M - 1)
        ours = (config, lm.params, layers, means.astype(np.float32))
        theirs = (others, other.params, other_layers, other_means.astype(np.float32))
        sums = no_sums(lm.mesh, i, n, j, m)
        for rows, real in batches_in_memory(len(tokens), each, memory // 2, lm.mesh.shape["data"]):
            sums = add(*ours, *theirs, lm.over_data(tokens[rows]), lm.over_data(counted[rows] & real[:, None]), sums)
            wait_on_cpus(lm.mesh, sums)
            done = run * tokens.size + int(rows[real][-1] + 1) * T
            progress("correlations", done, len(blocks) * tokens.size)
        of_block = fetched(best(sums, counted.sum(), means[layers], other_means[other_layers], keys[other_layers], min(MATCHES, m)))
        found.append(jax.tree.map(lambda x, i=L - first, j=M - other_first: x[:j, :i], of_block))
    across = -(-M // j)
    of_layers = [jax.tree.map(lambda *x: np.concatenate(x), *found[first : first + across]) for first in range(0, len(found), across)]
    return jax.tree.map(lambda *x: np.concatenate(x, 1), *of_layers)


def block_layers(L: int, n: int, M: int, m: int, memory: int) -> tuple[int, int]:
    """How many of L layers of n neurons are correlated at once with how many of M layers of m, so that their sums, and as much that is added
    to them, fit into so many bytes, if one layer and one layer do.
    """
    pair, own = 8 * n * m, 8 * m * m
    i = int(np.clip((memory - own) // pair, 1, L))
    return i, int(np.clip(memory // (i * pair + own), 1, M))


def _match_rows(found: Best) -> pd.DataFrame:
    """The best matches among the neurons of all layers: a row for each neuron and rank."""
    # l n L k, L being the other model's layers.
    correlation, match = (np.moveaxis(np.asarray(x), 0, 2) for x in (found.correlation, found.neuron))
    *shape, k = correlation.shape
    correlation, match = correlation.reshape(*shape[:2], -1), match.reshape(*shape[:2], -1)
    order = np.argsort(-correlation, -1, kind="stable")[..., :k]
    layer, neuron, rank = (x.ravel() for x in np.indices(order.shape))
    frame = pd.DataFrame(
        {
            "layer": layer,
            "neuron": neuron,
            "rank": rank,
            "match_layer": (order // k).ravel(),
            "match_neuron": np.take_along_axis(match, order, -1).ravel(),
            "correlation": np.take_along_axis(correlation, order, -1).ravel(),
            "baseline": np.repeat(found.baseline.max(0).ravel(), k),
        }
    )
    return frame[frame["correlation"].notna()].assign(excess=frame["correlation"] - frame["baseline"])


def judged(layer: np.ndarray, last: int, family: str) -> np.ndarray:
    """In which of the layers the family's rule judges neurons at all."""
    if family in ("entropy", "frequency"):
        return layer == last
    return (layer < last) | (not family.startswith("attention"))


def _families(neurons: pd.DataFrame, matches: pd.DataFrame, rules: FamilyRules) -> pd.DataFrame:
    every = neurons.set_axis(pd.MultiIndex.from_arrays([neurons[name].to_numpy() for name in ("model", "layer", "neuron")]))
    first, top = every[every["model"] == 0], matches[matches["rank"] == 0]
    matched = every.reindex(pd.MultiIndex.from_arrays([np.zeros(len(top), int), top["layer"], top["neuron"]]))
    match = every.reindex(pd.MultiIndex.from_frame(top[["model", "match_layer", "match_neuron"]]))
    last, rows = first["layer"].max(), []
    for family in rules.describe():
        column = f"is_{family}_neuron"
        if column not in every:
            continue
        of_layers = first[judged(first["layer"].to_numpy(), last, family)]
        member, is_universal = of_layers[column].to_numpy(bool), of_layers["is_universal"].to_numpy(bool)
        own, same, here = matched[column].to_numpy(bool), match[column].to_numpy(bool), judged(matched["layer"].to_numpy(), last, family)
        counts = [[int((is_universal[some] == hit).sum()) for hit in (True, False)] for some in (member, ~member)]
        rows.append(
            {
                "family": family,
                "neurons": int(member.sum()),
                "universal": counts[0][0],
                "share": _share(is_universal[member]),
                "share_of_others": _share(is_universal[~member]),
                "p": float(scipy.stats.fisher_exact(counts).pvalue) if member.any() else np.nan,
                "excess": of_layers["excess"][member].median(),
                "excess_of_others": of_layers["excess"][~member].median(),
                "recurs": _share(same[own & here]),
                "recurs_of_others": _share(same[~own & here]),
            }
        )
    return pd.DataFrame(rows)


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if len(which) else np.nan


def _examples(lm: LanguageModel, frame: pd.DataFrame) -> pd.DataFrame:
    seen = readout(lm.config, lm.params)
    W_U = fetched(seen.W_U).astype(np.float64)
    lengths = np.linalg.norm(W_U, axis=0)
    found = []
    for family in EXAMPLES:
        members = frame[frame[f"is_{family}_neuron"]]
        if members["excess"].isna().all():
            continue
        layer, neuron = (int(members.loc[members["excess"].idxmax(), name]) for name in ("layer", "neuron"))
        w = fetched(at_layer(lm.config, lm.params, seen, "paper", layer).w_out)[neuron].astype(np.float64)
        cosine = w @ W_U / np.where(lengths > 0, lengths, np.inf) / np.linalg.norm(w)
        order = np.argsort(cosine)
        extreme = {*order[:NAMED_TOKENS], *order[-NAMED_TOKENS:]}
        words = [(lm.tokenizer.token(i) if lm.has_tokenizer else str(i)) if i in extreme else None for i in range(len(cosine))]
        columns = {"family": family, "neuron": f"{layer}.{neuron}", "token": np.arange(len(cosine)), "cosine": cosine, "word": words}
        found.append(pd.DataFrame(columns))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["family", "neuron", "token", "cosine", "word"])

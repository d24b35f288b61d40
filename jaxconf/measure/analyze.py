"""The main job: every neuron of a layer, measured. Letters: s window, t position in it, n neuron, d width, v vocabulary."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.ablated_softmax import BLOCK_T, compiler_options
from jaxconf.analysis.ablation import MEAN, Ablation, LayerAblation
from jaxconf.analysis.adaptive_softmax import HEAD, entries_held
from jaxconf.analysis.effects import Adaptive, Audit, PostNorm, last_layer, sharded_effects
from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.analysis.intervals import bootstrap
from jaxconf.analysis.metrics import COLUMNS, EFFECTS, SHARES, UNABLATED
from jaxconf.analysis.rerun import Frozen
from jaxconf.analysis.unembedding import Convention, Readout, Spectrum, at_layer, convention_notes, readout, spectrum
from jaxconf.analysis.weights import chance_rho, cosines, null_space_size, rho, vocabulary_statistics, weight_cost
from jaxconf.data.windows import digest, kept_positions
from jaxconf.measure.activations import activation_statistics
from jaxconf.measure.facts import ablation_facts, facts_of
from jaxconf.measure.reruns import one_by_one, rerun_parts
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, check_runnable, check_tokens
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched, mesh_of
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Rules
from jaxconf.runtime.memory import MEMORY, bytes_of_a_window, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.resume import Part, kept_part, partial_folder
from jaxconf.runtime.timing import Timing
from jaxconf.runtime.version import __version__

Engine = Literal["auto", "exact", "adaptive"]
ADAPTIVE_FROM = 16384  # tokens of a vocabulary from which the adaptive engine is the faster one, measured on a CPU (docs/benchmarks.md)
AUDITED = 8, 64  # rows and neurons of each group that the adaptive engine is held against the exact one on


def analyze(
    lm: LanguageModel,
    tokens: np.ndarray,
    *,
    kept: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    ablation: Ablation = MEAN,
    convention: Convention = "paper",
    layer: int | Literal["last", "all"] = "last",
    frozen: Frozen = "final",
    engine: Engine = "auto",
    tolerance: float = 1e-4,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    rules: Rules | None = None,
    facts: Mapping[str, Any] | None = None,
    partial: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> NeuronTable:
    """Weight statistics and ablation effects of every neuron of a layer, with bootstrap intervals over windows.

    `tokens`: windows, int [s t]. `kept`: bool [s t], the positions whose next-token prediction counts (by default as in the paper,
    `jaxconf.data.windows.kept_positions`); a window's last position never counts, since nothing follows it. `counts`: int [v] token counts (by
    default those of `tokens` without BOS and EOS). `ablation`: what an activation becomes.
    `layer`: its number from 0, "last" or "all"; below the last one everything above is run again for each neuron, which takes far longer.
    `frozen`: which norms keep their scale in the effects with the norm frozen, the "final" one or "all" above the neuron.
    `engine`: for the last layer; "exact" takes every token of the vocabulary; "adaptive" the likely ones, estimates the rest and is within
    `tolerance` nats of it at every position, rounding apart (`jaxconf.analysis.adaptive_softmax`); "auto" is adaptive for large vocabularies, where
    that is faster. `k`: size of the effective null space (default 1% of the width). `memory`: bytes that positions and neurons which are
    worked on together may take on a device, beside the weights and the folded unembedding; where there are fewer, half is tried, and so
    on. `facts`: what else the result should state. `partial`: a folder in which finished groups of windows are kept, so that the same call goes on where an interrupted one stopped. `progress`: called with
    what is being done, the tokens done and the tokens in all. All losses, entropies and divergences are in nats. Raises InputError for token ids outside the vocabulary, shapes that do not match, or no position left.
    """
    timing = Timing()
    check_runnable(lm.params)  # before the weights, which can take minutes
    config = lm.config
    rules = rules or Rules()
    layers, k, chosen_tolerance = check_options(config, layer, k, engine, tolerance, bootstrap_draws, seed)
    tokens, kept, counts, freq = prepared(lm, tokens, kept, counts)

    progress("weights", 0, 0)
    seen, values = readout(config, lm.params, convention), spectrum(config, lm.params, convention)

    def measured(number: int, memory: int) -> tuple[pd.DataFrame, list[Part]]:
        here = at_layer(config, lm.params, seen, convention, number)
        columns = weight_columns(config, lm.params, here, freq, values, k, number)
        statistics = activation_statistics(lm, tokens, number, memory, progress, ordered=ablation.ordered)
        here_ablated = ablation.of_layer(statistics)
        folder = None
        if partial:
            of_weights = [columns[name] for name in sorted(columns)]
            how = (number, frozen, memory, lm.mesh.shape, ablation, chosen_tolerance, seed, *statistics)
            folder = partial_folder(partial, __version__, config, tokens, kept, counts, *how, values.values, *of_weights)
        if streams(config, number, frozen):
            paper = seen if convention == "paper" else readout(config, lm.params)
            parts = _effect_parts(lm, paper, freq, tokens, kept, here_ablated, chosen_tolerance, seed, memory, folder, progress)
        else:
            every = {number: one_by_one(config)}
            parts = rerun_parts(lm, freq, tokens, kept, every, {number: here_ablated}, frozen, memory, folder, progress)
        notes: list[Part] = []

        def sums() -> Iterator[dict[str, np.ndarray]]:
            for part in parts:
                notes.append(part._replace(sums={}))  # which are many, and only their totals are needed
                yield part.sums

        columns |= {"activation_mean": statistics.mean, "activation_std": statistics.std}
        for name, (estimate, low, high) in bootstrap(sums(), kept.sum(1), SHARES, bootstrap_draws, seed).items():
            columns |= {name: estimate, f"{name}_lo": low, f"{name}_hi": high}
        return pd.DataFrame({"layer": np.full(config.d_mlp, number), "neuron": np.arange(config.d_mlp), **columns}), notes

    frames, notes = zip(*(fitting(functools.partial(measured, number), memory, progress) for number in layers), strict=True)
    audits = [part.audit for of_layer in notes for part in of_layer if part.audit]
    frame = rules.apply(pd.concat(frames, ignore_index=True))
    positions = in_words(lm, pd.concat([part.positions for part in notes[0]], ignore_index=True))
    frame = frame[[*COLUMNS, *(name for name in frame if name not in COLUMNS)]]
    chosen = _spectrum_neurons(frame)
    own = {
        "layer": layers if layer == "all" else layers[0],
        "frozen_norms": frozen,
        "data": "tokens",
        "data_sha256": digest(tokens),
        "windows": int(tokens.shape[0]),
        "tokens": int(tokens.size),
        "positions": int(kept.sum()),
        "convention": convention,
        "convention_notes": convention_notes(config) if convention == "paper" else [],
        **ablation_facts(ablation),
        **_engine_facts(chosen_tolerance if audits else None, audits, lm.mesh.size, int(kept.sum()) * config.d_mlp),
        "k": k,
        "seed": seed,
        "bootstrap": bootstrap_draws,
        "counts": "the analysed windows",
        "counts_sha256": hashlib.sha256(counts.astype("<i8").tobytes()).hexdigest(),
        "rho_chance_of_one": chance_rho(k, len(values.values), config.d_mlp)[1],
        "rules": dataclasses.asdict(rules),
        "loss": float(positions["loss"].mean()),
        "entropy": float(positions["entropy"].mean()),
        "dtype": ", ".join(sorted({str(w.dtype) for w in jax.tree.leaves(lm.params)})),
    }
    all_facts = facts_of(lm, own, timing, int(kept.sum()) * config.d_mlp * len(layers), facts)
    of_layer = {number: fetched(at_layer(config, lm.params, seen, convention, number).w_out) for number in {layer for layer, _ in chosen}}
    writes = [of_layer[number][neuron] for number, neuron in chosen]
    names = [f"{number}.{neuron}" for number, neuron in chosen]
    return NeuronTable(frame, all_facts, values.values, cosines(np.stack(writes), values), names, positions)


def check_options(
    config: DecoderConfig,
    layer: int | Literal["last", "all"],
    k: int | None,
    engine: Engine,
    tolerance: float,
    bootstrap_draws: int,
    seed: int,
) -> tuple[list[int], int, float | None]:
    """The layers, the size of the null space, and what the adaptive engine is to keep to, or None for the exact one.

    Raises InputError for what `analyze` does not take.
    """
    if seed < 0 or bootstrap_draws < 0:
        raise InputError(f"seed is {seed} and bootstrap_draws {bootstrap_draws}; give 0 or more for each")
    return _layers(config, layer), null_space_size(config.d_model, k), _tolerance(config, engine, tolerance)


def _layers(config: DecoderConfig, layer: int | Literal["last", "all"]) -> list[int]:
    if layer == "all":
        return list(range(config.n_layers))
    number = config.n_layers - 1 if layer == "last" else layer
    if not isinstance(number, int) or not 0 <= number < config.n_layers:
        raise InputError(f"layer is {layer!r}; give a number from 0 to {config.n_layers - 1}, last or all")
    return [number]


def prepared(
    lm: LanguageModel, tokens: np.ndarray, kept: np.ndarray | None, counts: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Frequency]:
    """Windows, kept positions with a token after them, token counts and frequencies, as `analyze` takes them, checked or by default."""
    tokens = np.asarray(tokens, np.int32)
    _check_tokens(lm.config, tokens)
    kept = with_target(tokens, kept_positions(tokens, lm.special_ids) if kept is None else np.asarray(kept, bool))
    counts = _counts_of(lm, tokens) if counts is None else _checked_counts(lm.config, counts)
    return tokens, kept, counts, frequency(counts)


def _tolerance(config: DecoderConfig, engine: Engine, tolerance: float) -> float | None:
    """What the adaptive engine is to keep to, or None for the exact one."""
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance}; give a number of nats above 0, or choose the exact engine")
    if engine == "adaptive" and config.vocab_size <= HEAD:
        raise InputError(f"the adaptive engine takes the {HEAD} likeliest tokens exactly, and the model has no more; choose exact or auto")
    return tolerance if engine == "adaptive" or (engine == "auto" and config.vocab_size >= ADAPTIVE_FROM) else None


def _engine_facts(tolerance: float | None, audits: list[dict[str, np.ndarray]], devices: int, pairs: int) -> dict[str, Any]:
    """What a result states of the engine: a pair is a position and a neuron."""
    if tolerance is None:
        return {"engine": "exact"}
    audit = {name: np.concatenate([part[name] for part in audits]) for name in Audit._fields}
    return {
        "engine": "adaptive",
        "tolerance": tolerance,
        "pairs": pairs,
        "pairs_redone": int(audit["redone"].sum()),
        "largest_bound": float(audit["bound"].max()),
        "largest_rr_bound": float(audit["rr_bound"].max()),
        "audit_pairs": len(audit["error"]) * devices * AUDITED[0] * AUDITED[1],
        "audit_error": float(audit["error"].max()),
    }


def _check_tokens(config: DecoderConfig, tokens: np.ndarray) -> None:
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise InputError(f"tokens have shape {list(tokens.shape)}; give windows of token ids as [windows, length]")
    check_tokens(config, tokens)


def _counts_of(lm: LanguageModel, tokens: np.ndarray) -> np.ndarray:
    counts = np.bincount(tokens.ravel(), minlength=lm.config.vocab_size)
    counts[[i for i in lm.end_ids if i < len(counts)]] = 0
    return counts


def _checked_counts(config: DecoderConfig, counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.shape != (config.vocab_size,):
        raise InputError(f"counts have shape {list(counts.shape)}; give one count for each of the model's {config.vocab_size} tokens")
    return counts


def with_target(tokens: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The kept positions that a token follows."""
    if kept.shape != tokens.shape:
        raise InputError(f"kept has shape {list(kept.shape)} and tokens {list(tokens.shape)}; give a bool for each token")
    kept = kept & (np.arange(tokens.shape[1]) < tokens.shape[1] - 1)
    if not kept.any():
        raise InputError("no position is left to measure after dropping special tokens; give longer windows or other text")
    return kept


def weight_statistics(
    lm: LanguageModel, counts: np.ndarray | None = None, convention: Convention = "paper", k: int | None = None
) -> pd.DataFrame:
    """What the weights alone say of every neuron of the last layer, without running the model: a row per neuron, in their order.

    Columns `layer`, `neuron`, and as docs/measures.md defines them `w_norm`, `weight_cost` (weights as stored, squared), `logit_var`,
    `vocab_skew`, `vocab_kurtosis`, `rho`, `rho_chance` (pure numbers), and with `counts`, int [v] token counts, `cos_freq` too. `lm` may
    be loaded with `layers="last"`. `convention`: "paper" folds and centres the weights, "raw" takes them as they stand. `k`: size of the
    effective null space (default 1% of the width). Source: Stolfo et al. 2024 (arXiv 2406.16254), section 3.1. Raises InputError for
    counts of another length than the vocabulary's and a `k` that does not fit.
    """
    config = lm.config
    k = null_space_size(config.d_model, k)
    freq = frequency(np.zeros(config.vocab_size) if counts is None else _checked_counts(config, counts))
    values = spectrum(config, lm.params, convention)
    columns = weight_columns(config, lm.params, readout(config, lm.params, convention), freq, values, k)
    if counts is None:
        del columns["cos_freq"]
    return pd.DataFrame({"layer": config.n_layers - 1, "neuron": np.arange(config.d_mlp), **columns})


def weight_columns(
    config: DecoderConfig, params: Params, seen: Readout, freq: Frequency, values: Spectrum, k: int, layer: int = -1
) -> dict[str, np.ndarray]:
    """What the weights alone say of a layer, whose readout is `seen`: column → [n], named as in `jaxconf.analysis.metrics.COLUMNS`."""
    columns = fetched(vocabulary_statistics(mesh_of(params), seen, freq.u))
    columns["rho"] = rho(fetched(seen.w_out), values, k)
    columns["rho_chance"] = np.full(config.d_mlp, chance_rho(k, len(values.values), config.d_mlp)[0])
    columns["weight_cost"] = fetched(weight_cost(config, params, layer))
    return columns


def windows_at_once(config: DecoderConfig, length: int, memory: int) -> int:
    """How many windows a device runs together: a quarter of the memory is theirs."""
    return max(1, memory // 4 // bytes_of_a_window(config, length))


def group_of_a_device(config: DecoderConfig, length: int, count: int, memory: int, adaptive: bool) -> tuple[int, int]:
    """How many of its `count` windows a device runs together in the last layer, and how many of their positions it ablates together."""
    rows = _rows_at_once(config, memory, adaptive)
    return min(windows_at_once(config, length, memory), max(1, rows // length), count), rows


def _rows_at_once(config: DecoderConfig, memory: int, adaptive: bool) -> int:
    """How many positions a device ablates together, in three quarters of the memory."""
    fixed = bytes_of_rows(config, 0, adaptive)
    rows = (memory * 3 // 4 - fixed) // (bytes_of_rows(config, 1, adaptive) - fixed)
    return max(1, rows if rows < BLOCK_T else rows // BLOCK_T * BLOCK_T)


def bytes_of_rows(config: DecoderConfig, rows: int, adaptive: bool) -> int:
    """What ablating every neuron at so many positions takes; the numbers are XLA's plans, rounded up."""
    fixed = 4 * config.d_mlp * config.d_model + (16 * entries_held(config.vocab_size, config.d_mlp) if adaptive else 0)
    return fixed + rows * 4 * (10 * config.vocab_size + 4 * len(EFFECTS) * config.d_mlp)


def streams(config: DecoderConfig, layer: int, frozen: Frozen) -> bool:
    """Whether the effects of a layer's neurons are sums over the vocabulary, for which nothing is run again."""
    return layer == config.n_layers - 1 and (frozen == "final" or config.norm_place not in ("post", "both"))


def _groups(tokens: np.ndarray, group: int) -> list[np.ndarray]:
    return [tokens[i : i + group] for i in range(0, len(tokens), group)]


def _padded(rows: Any, size: int) -> Any:
    """Rows repeated up to `size`, so that every group has one shape and compiles once."""
    if len(rows) == size:
        return rows
    return (np if isinstance(rows, np.ndarray) else jnp).pad(rows, [(0, size - len(rows)), *[(0, 0)] * (rows.ndim - 1)], mode="edge")


def _effect_parts(
    lm: LanguageModel,
    paper: Readout,
    freq: Frequency,
    tokens: np.ndarray,
    kept: np.ndarray,
    ablation: LayerAblation,
    tolerance: float | None,
    seed: int,
    memory: int,
    partial: Path | None,
    progress: Progress,
) -> Iterator[Part]:
    """What ablating each neuron changes, EFFECTS of each [s n], in one group of windows after the other.

    Groups that lie finished in the folder `partial` are read from there, the others are computed and put there.
    """
    config, mesh, length = lm.config, lm.mesh, tokens.shape[1]
    D, neurons = mesh.shape["data"], -(-config.d_mlp // mesh.shape["model"])
    windows, rows = group_of_a_device(config, length, -(-len(tokens) // D), memory, tolerance is not None)
    group = windows * D
    most = max(int(mask.sum()) for mask in _groups(kept, windows))
    rows = min(rows, most)

    def compute(begin: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, begin])
        batch, mask = tokens[begin : begin + group], kept[begin : begin + group]
        places, counts = np.zeros((D, most, 3), np.int64), []  # window of the device, position, the token that follows
        for i in range(D):
            window, position = np.nonzero(mask[i * windows : (i + 1) * windows])
            places[i, : len(window)] = np.stack([window, position, batch[i * windows + window, position + 1]], 1)
            counts.append(len(window))
        where = lm.over_data(places)
        tokens_here = lm.over_data(_padded(batch, group))
        x, delta, post = _rows(config, lm.params, tokens_here, where[..., :2], ablation)

        def block(first: int) -> Any:
            some = np.minimum(np.arange(first, first + rows), most - 1)  # the last block repeats a row
            member = np.zeros((D, group, rows), np.float32)
            for i, count in enumerate(counts):
                real = np.arange(max(0, min(rows, count - first)))
                member[i, i * windows + places[i, first + real, 0], real] = 1
            adaptive = None
            if tolerance is not None:
                adaptive = Adaptive(
                    tolerance, (rng.integers(max(1, min(rows, counts[0] - first)), size=AUDITED[0]), rng.integers(neurons, size=AUDITED[1]))
                )
            x_some, delta_some, target, post_some = jax.tree.map(lambda y: y[:, some], (x, delta, where[..., 2], post))
            return fetched(
                _compiled_effects()(mesh, config, paper, freq, x_some, delta_some, target, lm.over_data(member), post_some, adaptive)
            )

        sums, before, audits = zip(*(block(first) for first in range(0, max(1, *counts), rows)), strict=True)
        found = {name: np.sum([part[name] for part in sums], 0)[: len(batch)] for name in EFFECTS}
        for name in UNABLATED:
            of_rows = np.concatenate([part[name] for part in before], 1)
            found[name] = np.concatenate([of_device[:count] for of_device, count in zip(of_rows, counts, strict=True)])
        if tolerance is not None:
            worst = {name: np.max([getattr(part, name) for part in audits], keepdims=True) for name in Audit._fields}
            found |= {**worst, "redone": np.sum([part.redone for part in audits], keepdims=True)}
        return found

    progress("effects", 0, tokens.size)
    for begin in range(0, len(tokens), group):
        batch, mask = tokens[begin : begin + group], kept[begin : begin + group]
        found = kept_part(partial / f"{begin}.npz" if partial else None, functools.partial(compute, begin))
        window, position = np.nonzero(mask)
        place = {"window": begin + window, "position": position, "token": batch[window, position], "target": batch[window, position + 1]}
        positions = pd.DataFrame({**place, **{name: found[name] for name in UNABLATED}})
        audit = {} if tolerance is None else {name: found[name] for name in Audit._fields}
        yield Part({name: found[name] for name in EFFECTS}, positions, audit)
        progress("effects", min(begin + group, len(tokens)) * tokens.shape[1], tokens.size)


@functools.partial(jax.jit, static_argnames="config")
def _rows(
    config: DecoderConfig, params: Params, tokens: jax.Array, places: jax.Array, ablation: LayerAblation
) -> tuple[jax.Array, jax.Array, PostNorm | None]:
    """At the places [D r (window, position)] of each of D equal parts of a group: the stream that enters the final norm [D r d], the
    activations' change [D r n], and what a norm behind the MLP did.
    """

    def at(site: jax.Array) -> jax.Array:
        of_parts = site.reshape(len(places), -1, *site.shape[1:])
        return jax.vmap(lambda part, place: part[place[:, 0], place[:, 1]])(of_parts, places)

    last = jax.tree.map(at, last_layer(config, params, tokens)[0])
    return last.x, ablation.ablated(last.h) - last.h, last.post


@functools.cache
def _compiled_effects() -> Callable[..., tuple[dict[str, jax.Array], dict[str, jax.Array], Audit | None]]:
    return jax.jit(sharded_effects, static_argnames=("mesh", "config"), compiler_options=compiler_options())


def in_words(lm: LanguageModel, positions: pd.DataFrame) -> pd.DataFrame:
    """With the columns token and target as text, if the model has a tokenizer."""
    if not lm.has_tokenizer:
        return positions
    ids = set(positions["token"]) | set(positions["target"])
    words = {token: lm.tokenizer.token(token) for token in ids}
    return positions.assign(token=positions["token"].map(words), target=positions["target"].map(words))


def _spectrum_neurons(frame: pd.DataFrame) -> list[tuple[int, int]]:
    """(layer, neuron) of those whose cosines with the singular vectors are kept: entropy neurons by ρ, filled up to six with the highest ρ."""
    ranked = frame.sort_values(["is_entropy_neuron", "rho"], ascending=False)
    top = ranked.head(max(6, int(frame["is_entropy_neuron"].sum())))
    return list(zip(top["layer"].tolist(), top["neuron"].tolist(), strict=True))

"""The main job: every neuron of the last layer, measured. Letters: s window, t position in it, n neuron, d width, v vocabulary."""

import dataclasses
import datetime
import functools
import hashlib
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf import __version__
from jaxconf.analysis.ablated_softmax import compiler_options
from jaxconf.analysis.ablation import Ablation, ablated
from jaxconf.analysis.adaptive_softmax import HEAD
from jaxconf.analysis.effects import METRICS, Adaptive, Audit, Position, PostNorm, effects
from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.analysis.intervals import bootstrap
from jaxconf.analysis.unembedding import Convention, Readout, Spectrum, convention_notes, readout, spectrum
from jaxconf.analysis.weights import chance_rho, cosines, null_space_size, rho, vocabulary_statistics, weight_cost
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, check_runnable, check_tokens, forward
from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.models.language_model import LanguageModel
from jaxconf.progress import Progress
from jaxconf.table import COLUMNS, NeuronTable, Rules
from jaxconf.text import digest, kept_positions

Engine = Literal["auto", "exact", "adaptive"]
ADAPTIVE_FROM = 16384  # tokens of a vocabulary from which the adaptive engine is the faster one, measured on a CPU (docs/benchmarks.md)
AUDITED = 8, 64  # rows and neurons of each group that the adaptive engine is held against the exact one on
MEMORY = 256 * 2**20  # bytes that the unablated logits, or the effects, of one group of windows may take
SHARES = {
    "ln_mediated": ("loss_abs_delta_ln_frozen", "loss_abs_delta"),
    "freq_mediated": ("loss_abs_delta_freq_frozen", "loss_abs_delta"),
}


def analyze(
    lm: LanguageModel,
    tokens: np.ndarray,
    *,
    kept: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    ablation: Ablation = "mean",
    ablation_value: float = 0.0,
    convention: Convention = "paper",
    engine: Engine = "auto",
    tolerance: float = 1e-4,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    rules: Rules | None = None,
    facts: Mapping[str, Any] | None = None,
    partial: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> NeuronTable:
    """Weight statistics and ablation effects of every neuron of the last layer, with bootstrap intervals over windows.

    `tokens`: windows, int [s t]. `kept`: bool [s t], the positions whose next-token prediction counts (by default as in the paper,
    `jaxconf.text.kept_positions`); a window's last position never counts, since nothing follows it. `counts`: int [v] token counts (by
    default those of `tokens` without BOS and EOS). `ablation`: what an activation is set to, `ablation_value` for "fixed" and "scale".
    `engine`: "exact" takes every token of the vocabulary; "adaptive" takes the likely ones, estimates the rest and is within `tolerance`
    nats of it at every position, rounding apart (`jaxconf.analysis.adaptive_softmax`); "auto" is adaptive for large vocabularies, where
    that is faster. `k`: size of the effective null space (default 1% of the width). `facts`: what else the result should state. `partial`: a folder in
    which finished groups of windows are kept, so that the same call goes on where an interrupted one stopped. `progress`: called with
    what is being done, the tokens done and the tokens in all. All losses, entropies and divergences are in nats. Raises InputError for token ids outside the vocabulary, shapes that do not match, or no position left.
    """
    begun = time.perf_counter()
    check_runnable(lm.params)  # before the weights, which can take minutes
    config = lm.config
    tokens = np.asarray(tokens, np.int32)
    k = null_space_size(config.d_model, k)
    rules = rules or Rules()
    if seed < 0 or bootstrap_draws < 0:
        raise InputError(f"seed is {seed} and bootstrap_draws {bootstrap_draws}; give 0 or more for each")
    _check_tokens(config, tokens)
    chosen_tolerance = _tolerance(config, engine, tolerance)
    kept = _with_target(tokens, kept_positions(tokens, lm.special_ids) if kept is None else np.asarray(kept, bool))
    counts = _counts_of(lm, tokens) if counts is None else _checked_counts(config, counts)

    freq = frequency(counts)
    paper = readout(config, lm.params)
    seen = paper if convention == "paper" else readout(config, lm.params, convention)
    values = spectrum(config, lm.params, convention)
    columns = weight_columns(config, lm.params, seen, freq, values, k)

    group = _group_size(config.vocab_size, config.d_mlp, tokens.shape[1])
    mean, std = _activation_moments(lm, tokens, group, progress)
    if partial:
        statistics = [columns[name] for name in sorted(columns)]
        identity = (
            __version__,
            config,
            tokens,
            kept,
            counts,
            group,
            ablation,
            ablation_value,
            chosen_tolerance,
            seed,
            mean,
            std,
            values.values,
            *statistics,
        )
        partial = _partial_folder(partial, *identity)
    sums, positions, audit = _effect_sums(
        lm, paper, freq, tokens, kept, group, ablation, ablation_value, mean, chosen_tolerance, seed, partial, progress
    )
    columns |= {"activation_mean": mean, "activation_std": std}
    per_window = kept.sum(1)
    for name, (estimate, low, high) in bootstrap(sums, per_window, SHARES, bootstrap_draws, seed).items():
        columns |= {name: estimate, f"{name}_lo": low, f"{name}_hi": high}

    n = config.d_mlp
    frame = pd.DataFrame({"layer": np.full(n, config.n_layers - 1), "neuron": np.arange(n), **columns})
    frame = rules.apply(frame)
    if lm.has_tokenizer:
        positions = positions.assign(token=_in_words(lm, positions["token"]), target=_in_words(lm, positions["target"]))
    frame = frame[[*COLUMNS, *(name for name in frame if name not in COLUMNS)]]
    chosen = _spectrum_neurons(frame)
    all_facts = {
        "model": lm.name,
        "revision": lm.revision,
        **shape_facts(config),
        "data": "tokens",
        "data_sha256": digest(tokens),
        "windows": int(tokens.shape[0]),
        "tokens": int(tokens.size),
        "positions": int(kept.sum()),
        "convention": convention,
        "convention_notes": convention_notes(config) if convention == "paper" else [],
        "ablation": ablation,
        "ablation_value": ablation_value,
        **_engine_facts(chosen_tolerance, audit, int(kept.sum()) * config.d_mlp),
        "k": k,
        "seed": seed,
        "bootstrap": bootstrap_draws,
        "counts": "the analysed windows",
        "counts_sha256": hashlib.sha256(counts.astype("<i8").tobytes()).hexdigest(),
        "rho_chance_of_one": chance_rho(k, len(values.values), n)[1],
        "rules": dataclasses.asdict(rules),
        "loss": float(positions["loss"].mean()),
        "entropy": float(positions["entropy"].mean()),
        "dtype": ", ".join(sorted({str(w.dtype) for w in jax.tree.leaves(lm.params)})),
        "seconds": time.perf_counter() - begun,
        "versions": {"jaxconf": __version__, "python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__},
        "device": jax.devices()[0].device_kind,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **(facts or {}),
    }
    directions = cosines(np.asarray(seen.w_out)[chosen], values)
    names = [f"{config.n_layers - 1}.{i}" for i in chosen]
    return NeuronTable(frame, all_facts, values.values, directions, names, positions)


def _tolerance(config: DecoderConfig, engine: Engine, tolerance: float) -> float | None:
    """What the adaptive engine is to keep to, or None for the exact one."""
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance}; give a number of nats above 0, or choose the exact engine")
    if engine == "adaptive" and config.logit_softcap is not None:
        raise InputError("the adaptive engine does not know soft-capped logits; choose exact or auto")
    if engine == "adaptive" and config.vocab_size <= HEAD:
        raise InputError(f"the adaptive engine takes the {HEAD} likeliest tokens exactly, and the model has no more; choose exact or auto")
    large = config.vocab_size >= ADAPTIVE_FROM and config.logit_softcap is None
    return tolerance if engine == "adaptive" or (engine == "auto" and large) else None


def _engine_facts(tolerance: float | None, audit: Mapping[str, np.ndarray], pairs: int) -> dict[str, Any]:
    """What a result states of the engine: a pair is a position and a neuron."""
    if tolerance is None:
        return {"engine": "exact"}
    return {
        "engine": "adaptive",
        "tolerance": tolerance,
        "pairs": pairs,
        "pairs_redone": int(audit["redone"].sum()),
        "largest_bound": float(audit["bound"].max()),
        "largest_rr_bound": float(audit["rr_bound"].max()),
        "audit_pairs": len(audit["error"]) * AUDITED[0] * AUDITED[1],
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


def _with_target(tokens: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The kept positions that a token follows."""
    if kept.shape != tokens.shape:
        raise InputError(f"kept has shape {list(kept.shape)} and tokens {list(tokens.shape)}; give a bool for each token")
    kept = kept & (np.arange(tokens.shape[1]) < tokens.shape[1] - 1)
    if not kept.any():
        raise InputError("no position is left to measure after dropping special tokens; give longer windows or other text")
    return kept


def shape_facts(config: DecoderConfig) -> dict[str, Any]:
    """What every result states of the model's shape, and the layer that was measured."""
    return {
        "model_type": config.model_type,
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "n_neurons": config.d_mlp,
        "vocab_size": config.vocab_size,
        "layer": config.n_layers - 1,
    }


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
    config: DecoderConfig, params: Params, seen: Readout, freq: Frequency, values: Spectrum, k: int
) -> dict[str, np.ndarray]:
    """What the weights alone say of the last layer: column → [n], named as in `jaxconf.table.COLUMNS`."""
    columns = {name: np.asarray(value) for name, value in vocabulary_statistics(seen, freq.u).items()}
    columns["rho"] = rho(np.asarray(seen.w_out), values, k)
    columns["rho_chance"] = np.full(config.d_mlp, chance_rho(k, len(values.values), config.d_mlp)[0])
    columns["weight_cost"] = np.asarray(weight_cost(config, params))
    return columns


def _group_size(vocab_size: int, n_neurons: int, length: int) -> int:
    """Windows that are worked on together: as many as keep their logits and their effects within MEMORY."""
    return max(1, MEMORY // (4 * length * max(vocab_size, len(METRICS) * n_neurons)))


def _groups(tokens: np.ndarray, group: int) -> list[np.ndarray]:
    return [tokens[i : i + group] for i in range(0, len(tokens), group)]


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows repeated up to `size`, so that every group has one shape and compiles once."""
    return np.pad(rows, [(0, size - len(rows)), *[(0, 0)] * (rows.ndim - 1)], mode="edge")


@functools.partial(jax.jit, static_argnames="config")
def _last_layer(config: DecoderConfig, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array, PostNorm | None]:
    """The stream that enters the final norm [s t d], the last layer's activations [s t n], and a norm behind it; float32."""
    last = f"blocks.{config.n_layers - 1}."
    sites = [last + "hook_resid_post", last + "mlp.hook_post"]
    if config.norm_place in ("post", "both"):
        sites += [last + "ln2_post.hook_normalized", last + "ln2_post.hook_scale"]
    captured = forward(config, params, tokens, capture=sites, stop_at_layer=config.n_layers).captured
    x, h, *post = (captured[site].astype(jnp.float32) for site in sites)
    return x, h, PostNorm(*post) if post else None


@functools.partial(jax.jit, static_argnames="config")
def _moments(config: DecoderConfig, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    h = _last_layer(config, params, tokens)[1].reshape(-1, config.d_mlp)
    mean = h.mean(0)
    return mean, jnp.square(h - mean).sum(0)


def _activation_moments(lm: LanguageModel, tokens: np.ndarray, group: int, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (population) standard deviation of every neuron over all tokens, float64 [n]; groups are merged by Chan's formula."""
    count, mean, squares = 0, np.zeros(lm.config.d_mlp), np.zeros(lm.config.d_mlp)
    for rows in _groups(tokens, group):
        more, more_mean, more_squares = rows.size, *(np.asarray(a, np.float64) for a in _moments(lm.config, lm.params, rows))
        away = more_mean - mean
        squares += more_squares + away**2 * count * more / (count + more)
        mean += away * more / (count + more)
        count += more
        progress("activations", count, tokens.size)
    return mean, np.sqrt(squares / count)


def _effect_sums(
    lm: LanguageModel,
    paper: Readout,
    freq: Frequency,
    tokens: np.ndarray,
    kept: np.ndarray,
    group: int,
    ablation: Ablation,
    ablation_value: float,
    mean: np.ndarray,
    tolerance: float | None,
    seed: int,
    partial: Path | None,
    progress: Progress,
) -> tuple[dict[str, np.ndarray], pd.DataFrame, dict[str, np.ndarray]]:
    """Each metric's sum over the kept positions of every window, [s n], the unablated figures of every kept position, and each group's
    Audit, if there is a tolerance.

    Groups that lie finished in the folder `partial` are read from there, the others are computed and put there.
    """
    group = min(group, len(tokens))
    rows = max(int(mask.sum()) for mask in _groups(kept, group))
    mean32 = jnp.asarray(mean, jnp.float32)

    def compute(batch: np.ndarray, window: np.ndarray, position: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        target = batch[window, position + 1]
        member = np.zeros((group, rows), np.float32)
        member[window, np.arange(len(window))] = 1
        places = _padded(np.stack([window, position, target], 1), rows) if len(window) else np.zeros((rows, 3), np.int64)
        x, delta, post = _rows(lm.config, lm.params, _padded(batch, group), places[:, :2], mean32, ablation, ablation_value)
        audited = rng.integers(max(1, len(window)), size=AUDITED[0]), rng.integers(lm.config.d_mlp, size=AUDITED[1])
        adaptive = None if tolerance is None else Adaptive(tolerance, audited)
        total, before, audit = _compiled_effects()(lm.config, paper, freq, x, delta, places[:, 2], member, post, adaptive)
        sums = {name: np.asarray(value)[: len(batch)] for name, value in total.items()}
        sums |= {name: np.asarray(value)[: len(window)] for name, value in before._asdict().items()}
        return sums | ({} if audit is None else {name: np.asarray(value)[None] for name, value in audit._asdict().items()})

    found, places = [], []
    for begin in range(0, len(tokens), group):
        batch, mask = tokens[begin : begin + group], kept[begin : begin + group]
        window, position = np.nonzero(mask)
        file = partial / f"{begin}.npz" if partial else None
        if file and file.is_file():
            with np.load(file) as saved:
                found.append(dict(saved))
        else:
            found.append(compute(batch, window, position, np.random.default_rng([seed, begin])))
            if file:
                with replacing(file) as path, path.open("wb") as out:
                    np.savez(out, **found[-1])
        token, target = batch[window, position], batch[window, position + 1]
        places.append(pd.DataFrame({"window": begin + window, "position": position, "token": token, "target": target}))
        progress("effects", min(begin + group, len(tokens)) * tokens.shape[1], tokens.size)
    joined = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    positions = pd.concat(places, ignore_index=True).assign(**{name: joined[name] for name in Position._fields})
    audit = {} if tolerance is None else {name: joined[name] for name in Audit._fields}
    return {name: joined[name] for name in METRICS}, positions, audit


def _partial_folder(parent: Path, *parts: Any) -> Path:
    """A folder in `parent` named after everything that the effects depend on, so that no other run's groups are ever taken for these."""
    key = hashlib.sha256()
    for part in parts:
        key.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    folder = parent / key.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.partial(jax.jit, static_argnames=("config", "ablation"))
def _rows(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    places: jax.Array,
    mean: jax.Array,
    ablation: Ablation,
    ablation_value: float,
) -> tuple[jax.Array, jax.Array, PostNorm | None]:
    """At the places [r (window, position)] of a group: the stream that enters the final norm [r d], the activations' change [r n], and
    what a norm behind the MLP did.
    """
    window, position = places.T
    x, h, post = jax.tree.map(lambda site: site[window, position], _last_layer(config, params, tokens))
    return x, ablated(ablation, h, mean, ablation_value) - h, post


@functools.cache
def _compiled_effects() -> Callable[..., tuple[dict[str, jax.Array], Position, Audit | None]]:
    return jax.jit(effects, static_argnames="config", compiler_options=compiler_options())


def _in_words(lm: LanguageModel, ids: pd.Series) -> pd.Series:
    return ids.map({token: lm.tokenizer.token(token) for token in ids.unique()})


def _spectrum_neurons(frame: pd.DataFrame) -> list[int]:
    """The neurons whose cosines with the singular vectors are kept: entropy neurons by ρ, filled up to six with the highest ρ."""
    ranked = frame.sort_values(["is_entropy_neuron", "rho"], ascending=False)
    return ranked["neuron"].head(max(6, int(frame["is_entropy_neuron"].sum()))).tolist()

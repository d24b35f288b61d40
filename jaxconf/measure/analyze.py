"""The main measurement: weight statistics and ablation effects of every neuron of a layer, beside their nulls.

Letters: s window, t position, m chosen neuron, D singular value, v vocabulary.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import MEAN, Ablation, LayerAblation
from jaxconf.analysis.activations import ActivationStatistics
from jaxconf.analysis.intervals import Rows, bootstrap, columns_of, share, signs
from jaxconf.analysis.metrics import COLUMNS, EFFECTS, ROUTED, SHARES
from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.analysis.nulls import LEAST, Nulls, check_nulls, draw_nulls, p_values, q_values, tail_p_values, with_nulls
from jaxconf.analysis.rerun import Frozen, streams
from jaxconf.analysis.unembedding import Convention, Readout, Spectrum, at_layer, convention_notes, readout, spectrum
from jaxconf.analysis.weights import chance_rho, cosines, knee, null_space_size, null_spaces, rho
from jaxconf.data.own_text import OWN
from jaxconf.data.windows import Windows, digest
from jaxconf.measure.activations import activation_correlations, activation_statistics
from jaxconf.measure.facts import ablation_facts, facts_of
from jaxconf.measure.gates import Gates, gate_columns, gates_of
from jaxconf.measure.inputs import check_amounts, in_words, text_of
from jaxconf.measure.last_layer import Ablations, Engine, chosen_tolerance, engine_facts, last_layer_parts
from jaxconf.measure.reruns import neuron_parts
from jaxconf.measure.token_changes import token_changes
from jaxconf.measure.weights import weight_columns
from jaxconf.measure.work import Part, Work, work_on
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError, between
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.models.mlp import expert_of_each
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Rules
from jaxconf.results.words import counted
from jaxconf.runtime.memory import MEMORY, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing

SHOWN = 6  # the cosines of at least this many neurons with the singular vectors are kept


def analyze(
    lm: LanguageModel,
    tokens: np.ndarray | Windows | int = 16384,
    *,
    data: str = OWN,
    kept: np.ndarray | None = None,
    counts: np.ndarray | str | Path | None = None,
    ablation: Ablation = MEAN,
    convention: Convention = "paper",
    layer: int | Literal["last", "all"] = "last",
    frozen: Frozen = "final",
    engine: Engine = "auto",
    tolerance: float = 1e-4,
    k: int | None = None,
    nulls: int = LEAST,
    token_changes: int = 0,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    rules: Rules | None = None,
    facts: Mapping[str, Any] | None = None,
    resume_folder: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> NeuronTable:
    """Weight statistics and ablation effects of every neuron of a layer, with bootstrap intervals over documents.

    `tokens`: windows, as `jaxconf.windows` gives them or a plain int [s t], each window of which counts as a
    document; or how many tokens to read of the text `data`. `data`: as for `jaxconf.documents`, or "own", which is
    what the model was trained on if its folder says so, and else stdlib; synthetic text is read by models that were
    trained on it, and they read no other. `kept`: bool [s t], the positions at which the prediction of the next token
    is measured, by default those of `jaxconf.kept_positions`, as in the paper; the last position of a window never
    counts. `counts`: token counts, int [v], or a file of them; by default those of the first 40 million characters of
    `data`. `ablation`: what an activation is set to.
    `convention` of the weight statistics: "paper" (weights folded and centred) or "raw". `layer`: a number from 0,
    "last" or "all"; for a neuron below the last layer, the layers above it are run again, which takes far longer.
    `frozen`: the norms that keep their scale in the effects with the norm frozen: the "final" one, or "all" above
    the neuron. `engine` for the last layer: "exact" computes with every token of the vocabulary; "adaptive"
    computes with the likely tokens and estimates the others, with an error of at most `tolerance` nats at every
    position, apart from rounding; "auto" is adaptive for large vocabularies. `k`: size of the effective null space
    (by default that of Stolfo et al. for a model of theirs, or else 1% of the width). `nulls`: how many random
    write directions are measured beside the neurons, with the same activations and norms, as a baseline for the
    mediated shares; 0 for none, without which no neuron is named. `token_changes`: at about how many positions the
    changes of the loss are kept one by one, for the neurons that Figures 2c and 3c show; 0 for none.
    `bootstrap_draws`: resamples of the documents behind each interval. `memory`: bytes of a device that a batch may
    take, beside the weights and the folded unembedding; half as many are tried whenever a device runs out of
    memory. `rules`: when a neuron counts as an entropy or frequency neuron. `facts`: further facts for the result.
    `resume_folder`: a folder for finished windows, from which the same call resumes after an interruption.
    `progress`: called with the stage, the tokens done and the tokens in all.

    Losses, entropies and divergences are in nats. Source: Stolfo et al. 2024 (arXiv 2406.16254), sections 3 and 4.
    Raises InputError for options and tokens that the model does not have, for shapes that do not match, and if no
    position is left to measure.
    """
    timing = Timing()
    check_runnable(lm.params)  # before the weight statistics, which can take minutes
    layers, k, adaptive = check_options(lm.config, layer, k, engine, tolerance, nulls, bootstrap_draws, seed)
    text = text_of(lm, tokens, data, counts, progress)
    work = work_on(lm, text, kept, memory, progress, resume_folder)
    how = _How(layers, ablation, convention, frozen, adaptive, k, nulls, token_changes, bootstrap_draws, seed)
    return _table(
        work, how, rules or Rules(), {"layer": layers if layer == "all" else layers[0], **text.facts}, facts, timing
    )


def check_options(
    config: DecoderConfig,
    layer: int | Literal["last", "all"],
    k: int | None,
    engine: Engine,
    tolerance: float,
    nulls: int,
    bootstrap_draws: int,
    seed: int,
) -> tuple[list[int], int, float | None]:
    """The layers, the size of the null space, and the tolerance of the adaptive engine, or None for the exact engine.

    Raises InputError for values that `analyze` does not accept.
    """
    check_amounts(0, seed=seed, nulls=nulls, bootstrap_draws=bootstrap_draws)
    check_nulls(nulls)
    layers = _layers(config, layer)
    return layers, null_space_size(config, k), chosen_tolerance(config, engine, tolerance)


def _layers(config: DecoderConfig, layer: int | Literal["last", "all"]) -> list[int]:
    if layer == "all":
        return list(range(config.n_layers))
    number = config.n_layers - 1 if layer == "last" else layer
    if not isinstance(number, int) or not 0 <= number < config.n_layers:
        have = counted(config.n_layers, "layer")
        raise InputError(
            f"layer is {layer!r}, but the model has {have}; give {between(0, config.n_layers - 1)}, last or all"
        )
    return [number]


class _How(NamedTuple):
    """The checked arguments of `analyze` that say how to measure."""

    layers: list[int]
    ablation: Ablation
    convention: Convention
    frozen: Frozen
    tolerance: float | None  # of the adaptive engine, or None for the exact engine
    k: int
    nulls: int
    token_changes: int
    bootstrap_draws: int
    seed: int


def _table(
    work: Work, how: _How, rules: Rules, own_facts: dict[str, Any], given: Mapping[str, Any] | None, timing: Timing
) -> NeuronTable:
    lm, config = work.lm, work.lm.config
    work.progress("weights", 0, 0)
    seen, values = readout(config, lm.params, how.convention), spectrum(config, lm.params, how.convention)
    paper = seen if how.convention == "paper" else readout(config, lm.params)
    of_layer = functools.partial(_layer, work, how, seen, paper, values)
    found = [fitting(functools.partial(of_layer, number), work.memory, work.progress) for number in how.layers]
    frame = rules.apply(pd.concat([of.frame for of in found], ignore_index=True))
    positions = in_words(lm, pd.concat([part.positions for part in found[0].parts], ignore_index=True))
    audits = [part.audit for of in found for part in of.parts if part.audit]
    kept, rows, gated = int(work.kept.sum()), config.d_mlp + how.nulls, int(frame["gate_norm_delta"].notna().sum())
    own = {
        "layer": own_facts["layer"],
        "frozen_norms": how.frozen,
        "data": own_facts["data"],
        "data_sha256": digest(work.tokens),
        "windows": len(work.tokens),
        "tokens": int(work.tokens.size),
        "positions": kept,
        "convention": how.convention,
        "convention_notes": convention_notes(config) if how.convention == "paper" else [],
        **ablation_facts(how.ablation),
        **engine_facts(how.tolerance, audits, lm.mesh.size, kept * (rows + gated)),
        "k": how.k,
        "seed": how.seed,
        "nulls": how.nulls,
        "bootstrap": how.bootstrap_draws,
        **work.unit_facts(),
        **{name: fact for name, fact in own_facts.items() if name.startswith("counts")},
        "null_spaces": _null_spaces(config, values),
        "knee": dict(zip(("k", "ratio"), knee(values.values), strict=True)),
        "rho_chance_of_one": chance_rho(how.k, len(values.values), config.d_mlp)[1],
        "rules": dataclasses.asdict(rules),
        "loss": float(positions["loss"].mean()),
        "entropy": float(positions["entropy"].mean()),
        "dtype": ", ".join(sorted({str(w.dtype) for w in jax.tree.leaves(lm.params)})),
    }
    table = NeuronTable(
        frame[[*COLUMNS, *(name for name in frame if name not in COLUMNS)]],
        facts_of(lm, own, timing, kept * (len(how.layers) * rows + gated), given),
        values.values,
        *_shown_cosines(lm, seen, values, how.convention, frame),
        positions,
        pd.concat([of.nulls for of in found], ignore_index=True),
    )
    if how.token_changes:
        ablations = {number: of.ablation for number, of in zip(how.layers, found, strict=True)}

        def changes(memory: int) -> pd.DataFrame:
            of_memory = dataclasses.replace(work, memory=memory)
            return token_changes(of_memory, table, ablations, how.frozen, how.token_changes)

        table.token_changes = fitting(changes, work.memory, work.progress)
    return table


def _null_spaces(config: DecoderConfig, values: Spectrum) -> dict[str, dict[str, float]]:
    """Column of rho at another k → that k and its chance level, as rho_chance."""
    return {
        name: {"k": k, "chance": chance_rho(k, len(values.values), config.d_mlp)[0]}
        for name, k in null_spaces(config).items()
    }


class _Layer(NamedTuple):
    frame: pd.DataFrame  # the layer's rows of the neuron table, without the columns that the rules add
    nulls: pd.DataFrame  # as `NeuronTable.nulls`
    parts: list[Part]  # without their sums, which are large
    ablation: LayerAblation


def _layer(work: Work, how: _How, seen: Readout, paper: Readout, values: Spectrum, number: int, memory: int) -> _Layer:
    """`seen`: the readout in the convention of the weight statistics. `paper`: that in the paper's, for the effects."""
    lm, config = work.lm, work.lm.config
    here = at_layer(config, lm.params, seen, how.convention, number)
    paper = here if how.convention == "paper" else at_layer(config, lm.params, paper, "paper", number)
    columns = weight_columns(config, lm.params, here, work.freq, values, how.k, number)
    statistics = activation_statistics(lm, work.tokens, number, memory, work.progress, ordered=how.ablation.ordered)
    of_weights = (values.values, *(columns[name] for name in sorted(columns)))
    which = (number, how.ablation, how.frozen, how.tolerance, how.nulls, how.seed)
    work = work.resuming(memory, *which, *statistics, *of_weights)
    w_out, ablation = fetched(paper.w_out), how.ablation.of_layer(statistics)
    nulls = draw_nulls(config, w_out, how.nulls, how.seed)
    gates = None
    if streams(config, number, how.frozen):
        gates = gates_of(work, number, columns["null_proxy"], statistics.mean)
        parts = last_layer_parts(work, *_rows(paper, w_out, ablation, nulls, gates), how.tolerance, how.seed)
    else:
        parts = neuron_parts(work, number, paper, ablation, nulls, how.frozen)
    notes: list[Part] = []
    others: dict[str, np.ndarray] = {}

    def sums() -> Iterator[Rows]:
        for part in parts:
            notes.append(part._replace(sums={}))
            for name, value in part.sums.items():
                others[name] = others.get(name, 0) + value[:, config.d_mlp :].sum(0, dtype=np.float64)
            yield part.units, {name: value[:, : config.d_mlp] for name, value in part.sums.items()}

    columns |= {"activation_mean": statistics.mean, "activation_std": statistics.std}
    columns |= columns_of(bootstrap(sums(), work.unit_counts, SHARES, how.bootstrap_draws, how.seed))
    columns["confidence_sign"] = signs(columns["entropy_delta_lo"], columns["entropy_delta_hi"])
    found, routed = _correlations(work, number, statistics, pd.concat([part.positions for part in notes]))
    columns |= found
    count = len(nulls.neurons)
    null_columns = _null_columns(nulls, {name: value[:count] / work.kept.sum() for name, value in others.items()})
    columns |= gate_columns(gates, {name: value[count:] for name, value in others.items()}, config.d_mlp)
    for name in ("ln_mediated", "freq_mediated"):
        columns[f"{name}_p"] = p_values(columns[name], null_columns[name])
        columns[f"{name}_q"] = q_values(tail_p_values(columns[name], null_columns[name]))
    known = null_columns["freq_mediated"][~np.isnan(null_columns["freq_mediated"])]
    chance = np.quantile(known, 0.99) if len(known) else np.nan
    columns["freq_mediated_chance"] = np.full(config.d_mlp, chance)
    null_columns["rho"] = rho(nulls.directions, values, how.k)
    place = {"layer": np.full(config.d_mlp, number), "neuron": np.arange(config.d_mlp)}
    if config.experts:
        where = {f"{name}{ROUTED}": columns[name] / np.where(routed > 0, routed, np.nan) for name in EFFECTS}
        columns |= {"expert": expert_of_each(config), "routed_share": routed, **where}
    return _Layer(pd.DataFrame({**place, **columns}), pd.DataFrame({"layer": number, **null_columns}), notes, ablation)


def _null_columns(nulls: Nulls, effects: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of `NeuronTable.nulls` but `layer` and `rho`."""
    shares = {name: share(effects[part], effects[whole]) for name, (part, whole) in SHARES.items()}
    return {"neuron": nulls.neurons, "w_norm": np.linalg.norm(nulls.directions, axis=1), **effects, **shares}


def _correlations(
    work: Work, number: int, statistics: ActivationStatistics, positions: pd.DataFrame
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The correlations of each neuron's activation with the unablated model's entropy and loss, float64 [n].

    Beside them, the share of the kept positions at which each neuron's expert is chosen, [n]; 1 without experts.
    """
    values = np.zeros((2, *work.kept.shape), np.float32)
    values[:, positions["window"], positions["position"]] = positions[["entropy", "loss"]].T
    found, routed = activation_correlations(
        work.lm, work.tokens, number, statistics.mean, work.kept, values, work.memory, work.progress
    )
    return dict(zip(("entropy_corr", "loss_corr"), found, strict=True)), routed / work.kept.sum()


def _rows(
    paper: Readout, w_out: np.ndarray, ablation: LayerAblation, nulls: Nulls, gates: Gates
) -> tuple[Readout, Ablations]:
    """The rows of the last layer: its neurons, whose write directions are `w_out` [n d], their nulls, and the gates."""
    further = Nulls(
        np.concatenate([nulls.neurons, gates.neurons]), np.concatenate([nulls.directions, w_out[gates.neurons]])
    )
    ablated = np.concatenate([np.arange(len(w_out)), nulls.neurons])
    return with_nulls(paper, further), [(ablation, ablated), (gates.ablation, gates.neurons)]


def _shown_cosines(
    lm: LanguageModel, seen: Readout, values: Spectrum, convention: Convention, frame: pd.DataFrame
) -> tuple[np.ndarray, list[str]]:
    """Cosines of the m chosen neurons' write directions with the singular vectors, float64 [m D], and their names.

    Chosen are the entropy neurons; if these are fewer than SHOWN, the other neurons with the highest ρ are added.
    """
    ranked = frame.sort_values(["is_entropy_neuron", "rho"], ascending=False)
    shown = ranked.head(max(SHOWN, int(frame["is_entropy_neuron"].sum())))
    chosen = list(zip(shown["layer"].tolist(), shown["neuron"].tolist(), strict=True))
    of_layer = {
        number: fetched(at_layer(lm.config, lm.params, seen, convention, number).w_out)
        for number in {number for number, _ in chosen}
    }
    writes = np.stack([of_layer[number][neuron] for number, neuron in chosen])
    return cosines(writes, values), [neuron_name(*pair, lm.config.experts) for pair in chosen]

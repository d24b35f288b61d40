"""The main measurement: weight statistics and ablation effects of every neuron of a layer, beside their nulls.

Other components that write into the last stream are measured in the same way: heads, biases, the latents of an
autoencoder, directions. Letters: s window, t position, m chosen neuron, D singular value, v vocabulary.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import MEAN, Ablation
from jaxconf.analysis.metrics import COLUMNS
from jaxconf.analysis.nulls import LEAST, check_nulls
from jaxconf.analysis.rerun import Frozen
from jaxconf.analysis.unembedding import Convention, Spectrum, convention_notes
from jaxconf.analysis.weights import chance_rho, cosines, knee, null_space_size, null_spaces
from jaxconf.data.own_text import OWN
from jaxconf.data.windows import Windows, digest
from jaxconf.measure.components import check_fit, groups_of, read_components
from jaxconf.measure.facts import ablation_facts, facts_of
from jaxconf.measure.groups import Group, HeadAblation, How, Measured, Seen, measured, seen_by
from jaxconf.measure.heads import measured_heads
from jaxconf.measure.inputs import check_amounts, in_words, text_of
from jaxconf.measure.last_layer import Engine, chosen_tolerance, engine_facts
from jaxconf.measure.token_changes import token_changes
from jaxconf.measure.work import Work, work_on
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError, between
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
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
    components: str = "neurons",
    ablation: Ablation = MEAN,
    head_ablation: HeadAblation = "mean",
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
    `data`. `components`: what is measured, as `jaxconf.measure.components` names it, with commas between: neurons, and
    of the last layer heads, biases, null, pc=8, sae=FOLDER and directions=FILE. `ablation`: what an activation,
    or a coefficient, is set to; biases are set to 0. `head_ablation`: what a head's output is set to: its mean, zero,
    or with "resample" its value at the same position of another window.
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
    memory. The host keeps a layer's activations in up to a quarter of these bytes. `rules`: when a neuron is an
    entropy or frequency neuron. `facts`: further facts for the result. `resume_folder`: for finished windows, from
    which the same call resumes after an interruption. `progress`: called with the stage and the tokens done and in all.

    Losses, entropies and divergences are in nats. Source: Stolfo et al. 2024 (arXiv 2406.16254), sections 3 and 4.
    Raises InputError for options and tokens that the model does not have, for shapes that do not match, and if no
    position is left to measure.
    """
    timing = Timing()
    check_runnable(lm.params)  # before the weight statistics, which can take minutes
    layers, k, adaptive = check_options(lm.config, layer, k, engine, tolerance, nulls, bootstrap_draws, seed)
    check_fit(lm.config, names := read_components(components), layers, frozen)
    text = text_of(lm, tokens, data, counts, progress)
    work = work_on(lm, text, kept, memory, progress, resume_folder)
    how = How(ablation, head_ablation, convention, frozen, adaptive, k, nulls, bootstrap_draws, seed, token_changes)
    progress("weights", 0, 0)
    seen = seen_by(lm, convention)
    groups = groups_of(work, names, layers, seen.spectrum, k)
    of_text = {"layer": layers if layer == "all" else layers[0], "components": components, **text.facts}
    return _table(work, how, seen, groups, rules or Rules(), of_text, facts, timing)


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


def _table(
    work: Work,
    how: How,
    seen: Seen,
    groups: Sequence[Group],
    rules: Rules,
    own_facts: dict[str, Any],
    given: Mapping[str, Any] | None,
    timing: Timing,
) -> NeuronTable:
    lm, config, values = work.lm, work.lm.config, seen.spectrum
    runs = [functools.partial(_measured, work, how, seen, group) for group in groups]
    found = [fitting(run, work.memory, work.progress) for run in runs]
    frame = rules.apply(pd.concat([of.frame for of in found], ignore_index=True).copy())
    nulls = pd.concat([of.nulls for of in found], ignore_index=True)
    if all(group.component == "neuron" for group in groups):
        frame, nulls = frame.drop(columns=["component", "name"]), nulls.drop(columns="component")
    positions = in_words(lm, pd.concat([part.positions for part in found[0].parts], ignore_index=True))
    audits = [part.audit for of in found for part in of.parts if part.audit]
    kept, gated = int(work.kept.sum()), int(frame["gate_norm_delta"].notna().sum())
    pairs = kept * (len(frame) + len(nulls) + gated)
    own = {
        "layer": own_facts["layer"],
        "components": own_facts["components"],
        "frozen_norms": how.frozen,
        "data": own_facts["data"],
        "data_sha256": digest(work.tokens),
        "windows": len(work.tokens),
        "tokens": int(work.tokens.size),
        "positions": kept,
        "convention": how.convention,
        "convention_notes": convention_notes(config) if how.convention == "paper" else [],
        **ablation_facts(how.ablation),
        **({"head_ablation": how.head_ablation} if any(group.attention for group in groups) else {}),
        **engine_facts(how.tolerance, audits, lm.mesh.size, pairs),
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
        facts_of(lm, own, timing, pairs, given),
        values.values,
        np.zeros((0, len(values.values))),
        [],
        positions,
        nulls,
    )
    table.cosines, table.cosine_neurons = _shown_cosines(lm, seen, how.convention, groups, table)
    if how.token_changes:

        def changes(memory: int) -> pd.DataFrame:
            of_memory = dataclasses.replace(work, memory=memory)
            return token_changes(of_memory, how, seen, table, groups, found)

        table.token_changes = fitting(changes, work.memory, work.progress)
        table.facts |= {**timing.facts(pairs), **(given or {})}  # the time is now that of the changes too
    return table


def _measured(work: Work, how: How, seen: Seen, group: Group, memory: int) -> Measured:
    return (measured_heads if group.attention else measured)(work, how, seen, group, memory)


def _null_spaces(config: DecoderConfig, values: Spectrum) -> dict[str, dict[str, float]]:
    """Column of rho at another k → that k and its chance level, as rho_chance."""
    return {
        name: {"k": k, "chance": chance_rho(k, len(values.values), config.d_mlp)[0]}
        for name, k in null_spaces(config).items()
    }


def _shown_cosines(
    lm: LanguageModel, seen: Seen, convention: Convention, groups: Sequence[Group], table: NeuronTable
) -> tuple[np.ndarray, list[str]]:
    """Cosines of the m chosen components' write directions with the singular vectors, float64 [m D], and their names.

    Chosen are the entropy neurons; if these are fewer than SHOWN, the other components with the highest ρ are added.
    Heads, and the bias of attention, do not take part: they have no single direction.
    """
    frame, directed = table.to_pandas(), [group for group in groups if not group.attention]
    ranked = frame[frame.index.isin([name for group in directed for name in group.names])]
    ranked = ranked.sort_values(["is_entropy_neuron", "rho"], ascending=False)
    shown = list(ranked.index[: max(SHOWN, int(ranked["is_entropy_neuron"].sum()))])
    writes, chosen = dict[str, np.ndarray](), set(shown)
    for group in directed:
        if own := {name: index for index, name in enumerate(group.names) if name in chosen}:
            w_out = fetched(group.readout(lm, seen.own, convention).w_out)
            writes |= {name: w_out[index] for name, index in own.items()}
    found = [writes[name] for name in shown]
    return cosines(np.reshape(found, (len(found), lm.config.d_model)), seen.spectrum), shown

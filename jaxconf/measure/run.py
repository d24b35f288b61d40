"""The whole of `jaxconf analyze`: from the names of a model and a text to a finished run folder."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import Ablation
from jaxconf.data.documents import documents
from jaxconf.data.own_text import source_for
from jaxconf.data.sources import in_column
from jaxconf.data.token_counts import read_counts
from jaxconf.data.windows import kept_positions
from jaxconf.data.worlds import world_of
from jaxconf.measure.analyze import analyze, check_options
from jaxconf.measure.component_sets import ablate_component_sets, check_component_sets, per_component_token
from jaxconf.measure.components import check_fit, read_components
from jaxconf.measure.inputs import Text, config_of, text_of, tokens_counted, window_length, with_target
from jaxconf.measure.neuron_sets import ablate_sets, check_form, check_set, per_token, read_sets
from jaxconf.measure.optimum import beside_optimum
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel, find, text_folder
from jaxconf.report.run import save_run
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS, Rules
from jaxconf.results.run_folder import OPTIMUM, OPTIMUM_NEURONS, PER_TOKEN, SETS, claim, traced
from jaxconf.runtime.hosts import only_first_writes
from jaxconf.runtime.memory import read_size
from jaxconf.runtime.placement import load_placed
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.resume import RESUME

SHOWN_POSITIONS = 1024  # positions that figures 2c and 3c show of each neuron
CONTROLS = 100  # random sets beside each set of named neurons, where the best possible predictions are known


class Parsed(NamedTuple):
    """The options that `parse` has turned into other types."""

    sets: list[Sequence[Sequence[int]]]  # of --set, those of neurons
    component_sets: list[str]  # of --set, the others
    single: Sequence[Sequence[int]]  # of --per-token, if it names neurons
    component_single: str  # of --per-token, if it names others
    memory: int  # bytes
    rules: Rules
    ablation: Ablation
    components: tuple[str, ...]


def run(
    options: AnalyzeOptions,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
    kept_counts: Path | None = None,
) -> NeuronTable:
    """Measure the neurons of a model, write the run folder, and return the neuron table, as `jaxconf analyze` does.

    An interrupted run is resumed from the windows that it had finished. `progress`: as for `jaxconf.analyze`. `say`:
    called with a sentence about the mesh, if that has several devices. `kept_counts`: a folder for the token counts of
    texts that several runs share. Raises InputError for options that do not fit the model, the text or the folder, if
    possible before the weights are loaded.
    """
    parsed = parse(options)
    with (
        only_first_writes(options.folder(options.model)) as out,
        claim(out, "neurons.parquet", options.force),
        traced(options.profile),
    ):
        progress("loading the model", 0, 0)
        # Mistakes are found before the weights are loaded, which can take minutes.
        config = config_of(options.model, options.revision, options.accept)
        check(config, options, parsed)
        folder = text_folder(find(options.model, options.revision, weights=False)[0])
        data = in_column(options.data, options.text_column)
        documents(source_for(data, folder))
        if options.counts:
            read_counts(options.counts, config.vocab_size, tokens_counted(folder))
        lm = load_placed(options.model, options.revision, options.mesh, say, options.accept)
        text = text_of(lm, options.tokens, data, options.counts, progress, kept_counts)
        table, kept, extra = _measured(lm, text, options, parsed, out, progress)
        progress("figures and report", 0, 0)
        save_run(table, text.windows.tokens, kept, out, extra)
        shutil.rmtree(out / RESUME)
    return table


def parse(options: AnalyzeOptions) -> Parsed:
    """Turn texts among the options into other types. Raises InputError for options that are wrong for every model."""
    if options.tokens < 1:
        raise InputError(f"--tokens is {options.tokens}; give at least 1")
    if options.ablation in ("fixed", "scale") and options.ablation_value is None:
        raise InputError(f"--ablation {options.ablation} needs a number; give --ablation-value, such as 0.5")
    sets = read_sets(options.set)
    single = read_sets([options.per_token], "--per-token")[0] if options.per_token else []
    return Parsed(
        [one for one in sets if not isinstance(one, str)],
        [one for one in sets if isinstance(one, str)],
        [] if isinstance(single, str) else single,
        single if isinstance(single, str) else "",
        read_size(options.memory, "--memory"),
        Rules(options.min_ln_mediated, options.max_q, options.min_change),
        Ablation(options.ablation, options.ablation_value),
        read_components(options.components),
    )


def check(config: DecoderConfig, options: AnalyzeOptions, parsed: Parsed) -> tuple[list[int], float | None]:
    """The layers, and the tolerance of the adaptive engine in nats, or None for the exact engine.

    Raises InputError for options that a model of this shape does not fit.
    """
    window_length(options.tokens, config)
    layers, _, tolerance = check_options(
        config,
        options.layer,
        options.k,
        options.engine,
        options.tolerance,
        options.nulls,
        options.bootstrap_draws,
        options.seed,
    )
    check_fit(config, parsed.components, layers, options.frozen)
    check_component_sets(config, parsed.component_sets, options.components, options.controls, options.k)
    for neurons in parsed.sets:
        check_form(config, neurons, "--set")
        check_set(config, neurons, options.controls, "--set")
    if parsed.component_single:
        check_component_sets(config, [parsed.component_single], options.components, 0, options.k)
    if parsed.single:
        check_form(config, parsed.single, "--per-token")
        check_set(config, parsed.single, 0, "--per-token")
    return layers, tolerance


def _sets(lm: LanguageModel, text: Text, options: AnalyzeOptions, parsed: Parsed, how: dict[str, Any]) -> pd.DataFrame:
    """The effects of the sets of neurons, and then of those of other components."""
    tables, controls = [], options.controls
    if parsed.sets:
        tables.append(ablate_sets(lm, text.windows, parsed.sets, controls=controls, **how))
    if parsed.component_sets:
        given = _without_frozen(how) | {"k": options.k}
        which = (parsed.component_sets, options.components)
        found = ablate_component_sets(lm, text.windows, *which, controls=controls, **given)
        tables.append(found.assign(set=found["set"] + len(parsed.sets)))
    return pd.concat(tables, ignore_index=True)


def _without_frozen(how: dict[str, Any]) -> dict[str, Any]:
    """For directions and latents, above which there is no norm but the final one."""
    return {name: value for name, value in how.items() if name != "frozen"}


def _measured(
    lm: LanguageModel,
    text: Text,
    options: AnalyzeOptions,
    parsed: Parsed,
    out: Path,
    progress: Progress,
) -> tuple[NeuronTable, np.ndarray, dict[str, pd.DataFrame]]:
    """The neuron table, the kept positions, bool [s t], and the other tables that are asked for, by file name.

    These are the tables of neuron sets and of single tokens.
    """
    kept = kept_positions(text.windows.tokens, lm.special_ids)
    how: dict[str, Any] = {
        "kept": kept,
        "counts": text.counts,
        "ablation": parsed.ablation,
        "frozen": options.frozen,
        "memory": parsed.memory,
        "progress": progress,
    }
    resampling: dict[str, Any] = {
        "bootstrap_draws": options.bootstrap_draws,
        "seed": options.seed,
        "resume_folder": out / RESUME,
    }
    table = analyze(
        lm,
        text.windows,
        components=options.components,
        head_ablation=options.head_ablation,
        convention=options.convention,
        layer=options.layer,
        engine=options.engine,
        tolerance=options.tolerance,
        k=options.k,
        nulls=options.nulls,
        token_changes=SHOWN_POSITIONS,
        rules=parsed.rules,
        facts={"model": options.model, **text.facts},
        **how,
        **resampling,
    )
    extra: dict[str, pd.DataFrame] = {}
    if world := world_of(text.facts["data"]):
        neurons = table.neurons
        members = {str(kind): neurons.loc[neurons[f"is_{kind}_neuron"], ["layer", "neuron"]] for kind in KINDS}
        named = {
            kind: [(layer, neuron) for layer, neuron in rows.to_numpy().tolist()] for kind, rows in members.items()
        }
        layer, counted = int(table.frame["layer"].max()), with_target(text.windows.tokens, kept)
        given: dict[str, Any] = {
            "controls": CONTROLS,
            "seed": options.seed,
            "memory": parsed.memory,
            "progress": progress,
        }
        beside = beside_optimum(lm, text.windows.tokens, counted, world, named, layer, **given)
        extra |= {OPTIMUM: beside.sets, OPTIMUM_NEURONS: beside.neurons}
    if options.set:
        extra[SETS] = _sets(lm, text, options, parsed, how | resampling)
    if parsed.single:
        extra[PER_TOKEN] = per_token(lm, text.windows, parsed.single, **how)
    if parsed.component_single:
        which = parsed.component_single, options.components
        extra[PER_TOKEN] = per_component_token(lm, text.windows, *which, k=options.k, **_without_frozen(how))
    return table, kept, extra

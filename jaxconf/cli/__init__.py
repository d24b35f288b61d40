"""The command line. Heavy imports wait until a command runs, so that `jaxconf --help` answers at once."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import tyro

from jaxconf.analysis.kinds import VALUED, Kind
from jaxconf.models.errors import InputError, nearest
from jaxconf.runtime.hosts import Hosts, alone, join, leave, of_a_lost_host, part
from jaxconf.training.config import PRESETS, TrackConfig, TrainConfig

if TYPE_CHECKING:
    from rich.console import Console

    from jaxconf.runtime.progress import Progress

Model = Annotated[str, tyro.conf.Positional]


@dataclasses.dataclass(frozen=True)
class Analyze:
    """Measure every neuron of a model's last layer, or of others, and write a run folder with a table, figures and a report."""

    model: Model = "bundled"
    """a folder in Hugging Face layout, a hub id such as openai-community/gpt2, or "bundled", the small model that comes along"""
    revision: str | None = None
    """the hub's branch, tag or commit"""
    data: str = "stdlib"
    """text: .txt, .jsonl(.gz/.zst), .parquet, a folder of these, hf://datasets/OWNER/NAME, or "stdlib", Python's own library"""
    tokens: int = 16384
    """how many tokens to analyse, in windows of 256 (or of the model's context, if that is shorter)"""
    out: Path | None = None
    """the run folder; runs/MODEL by default"""
    force: bool = False
    """replace the run that the folder holds"""
    counts: Path | None = None
    """token counts as .npy (see `jaxconf unigram`); by default those of --data, its first 40 million characters"""
    ablation: Kind = "mean"
    """what a neuron's activation becomes: a statistic of its activations over the text (mean, median, mode, min, or 3 standard deviations from the
    mean), zero, a fixed value, or a multiple of itself (scale); clip puts activations above the mean back to it"""
    ablation_value: float | None = None
    """the value for --ablation fixed, the factor for scale; for clip 1 (above the mean) or -1 (below it)"""
    convention: Literal["paper", "raw"] = "paper"
    """weights folded and centred as in the paper, or as they stand (weight statistics only; effects do not depend on it)"""
    layer: int | Literal["last", "all"] = "last"
    """which layer's neurons, counted from 0; below the last one everything above is run again for each neuron, which takes far longer"""
    frozen: Literal["final", "all"] = "final"
    """the norms that keep their scale in the effects with the norm frozen: the final one, or all above the neuron"""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """neurons that are also ablated together, such as 11.584,11.2378, or a file with such a set on each line; may be given again"""
    controls: int = 20
    """random sets of as many neurons of the same layers, to compare each --set with"""
    per_token: str | None = None
    """neurons, such as 11.584,11.2378, whose effect at every kept position is written too"""
    engine: Literal["auto", "exact", "adaptive"] = "auto"
    """exact takes every token of the vocabulary for every neuron; adaptive the likely ones, and bounds what the others could change"""
    tolerance: float = 1e-4
    """nats by which the adaptive engine may be off at any position"""
    k: int | None = None
    """size of the unembedding's effective null space; 1% of the width by default"""
    bootstrap_draws: int = 1000
    """resamples of the windows behind each interval"""
    seed: int = 0
    memory: str = "4GB"
    """what positions and neurons that are worked on together may take on a device, beside the weights and the folded unembedding"""
    mesh: str | None = None
    """devices that sequences and weights are split over, such as data=4,model=2; by default all on data, as far as the weights fit"""
    profile: Path | None = None
    """a folder for a trace of what JAX does, which TensorBoard and Perfetto show"""
    min_ln_mediated: float = 0.3
    """entropy neurons: the least share of the effect that passes through the norm"""
    min_freq_mediated: float = 0.15
    """frequency neurons: the least share of the effect along the frequency direction"""
    kl_top: float = 0.05
    """frequency neurons: the top share of the change in D_KL(P_freq || P_model) that they must be in"""
    hosts: tyro.conf.OmitArgPrefixes[Hosts] = dataclasses.field(default_factory=Hosts)


@dataclasses.dataclass(frozen=True)
class Induction:
    """Let text repeat: what entropy neurons, induction heads and calibration do, with tables, figures and a page."""

    model: Model = "bundled"
    """a folder in Hugging Face layout, a hub id such as openai-community/gpt2, or "bundled", the small model that comes along"""
    revision: str | None = None
    """the hub's branch, tag or commit"""
    data: str = "stdlib"
    """text, as for `jaxconf analyze`"""
    sequences: int = 64
    """how many sequences to build: BOS, a piece of text, and the same again"""
    length: int = 100
    """tokens of the piece of text"""
    random: bool = False
    """random tokens instead of text are repeated"""
    natural: bool = False
    """also look for six tokens that the text repeats by itself, in windows of 256 of its first 262,144 tokens"""
    neurons: str | None = None
    """the chosen neurons, such as 11.584,11.2378; by default the ten of the last layer with the highest rho"""
    heads: str | None = None
    """the heads that are made to look at BOS alone, such as 5.1,5.5; by default those with the highest induction score"""
    controls: int = 20
    """random sets, of neurons and of heads, to compare with"""
    tokens: int = 4096
    """how many tokens of text the doses are measured on, besides the repeat"""
    out: Path | None = None
    """the folder; runs/MODEL by default, beside what `jaxconf analyze` writes there"""
    force: bool = False
    """replace what an earlier such command left in the folder"""
    k: int | None = None
    """size of the unembedding's effective null space; 1% of the width by default"""
    bootstrap_draws: int = 1000
    """resamples of the sequences behind each interval"""
    seed: int = 0
    memory: str = "4GB"
    """what sequences and sets that are worked on together may take on a device, beside the weights"""
    mesh: str | None = None
    """devices that sequences and weights are split over, such as data=4,model=2; by default all on data, as far as the weights fit"""
    profile: Path | None = None
    """a folder for a trace of what JAX does, which TensorBoard and Perfetto show"""
    hosts: tyro.conf.OmitArgPrefixes[Hosts] = dataclasses.field(default_factory=Hosts)


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare a model with what further training made of it: entropy-neuron candidates, effects and calibration, with tables, figures and a page."""

    base: Model
    """a folder in Hugging Face layout, a hub id such as openai-community/gpt2, or "bundled", the small model that comes along"""
    tuned: tyro.conf.Positional[tuple[str, ...]]
    """one or more models that were trained on from it, each compared with it"""
    data: str = "stdlib"
    """text, as for `jaxconf analyze`"""
    tokens: int = 16384
    """how many tokens of it to run the models on; a model with another tokenizer is compared by its weights alone"""
    out: Path | None = None
    """the folder; runs/BASE by default, beside what `jaxconf analyze` writes there"""
    force: bool = False
    """replace what an earlier such command left in the folder"""
    k: int | None = None
    """size of the unembedding's effective null space; 1% of the width by default"""
    bootstrap_draws: int = 1000
    """resamples of the windows behind each interval"""
    seed: int = 0
    memory: str = "4GB"
    """what positions and neurons that are worked on together may take on a device, beside the weights and the folded unembedding"""
    mesh: str | None = None
    """devices that sequences and weights are split over, such as data=4,model=2; by default all on data, as far as the weights fit"""
    profile: Path | None = None
    """a folder for a trace of what JAX does, which TensorBoard and Perfetto show"""
    hosts: tyro.conf.OmitArgPrefixes[Hosts] = dataclasses.field(default_factory=Hosts)


@dataclasses.dataclass(frozen=True)
class Universal:
    """Find which neurons of a model recur in others that were trained apart, with tables of every neuron, its families, figures and a page."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """two models or more, with one tokenizer: folders, such as those of a study, hub ids, or "bundled"; the first one's neurons are matched"""
    data: str = "stdlib"
    """text, as for `jaxconf analyze`"""
    tokens: int = 65536
    """how many tokens to correlate activations over, in windows of 256 (or of the shortest context)"""
    effects: int = 4096
    """tokens that the effects of ablating neurons of the last layers are measured on, for entropy and frequency neurons; 0 for none"""
    min_excess: float = 0.5
    """universal neurons: how much more the best match must correlate than the best of the randomly rotated layers"""
    out: Path | None = None
    """the folder; runs/MODEL by default, MODEL being the first"""
    force: bool = False
    """replace what an earlier such command left in the folder"""
    k: int | None = None
    """size of the unembedding's effective null space; 1% of the width by default"""
    seed: int = 0
    """of the rotations and random directions"""
    memory: str = "4GB"
    """what sums of products, and windows that are worked on together, may take on a device, beside the weights"""
    mesh: str | None = None
    """devices that sequences and weights are split over, such as data=4,model=2; by default all on data, as far as the weights fit"""
    profile: Path | None = None
    """a folder for a trace of what JAX does, which TensorBoard and Perfetto show"""
    hosts: tyro.conf.OmitArgPrefixes[Hosts] = dataclasses.field(default_factory=Hosts)


@dataclasses.dataclass(frozen=True)
class Copying:
    """Contradict what a model knows: whether it repeats the context or its memory, with and without its entropy neurons, as tables and a page."""

    model: Model
    """a folder in Hugging Face layout, a hub id such as openai-community/gpt2, or "bundled", the small model that comes along"""
    data: Path
    """statements as CSV, with the columns rel_p_id, statement_subject, statement_relation and statement_object"""
    revision: str | None = None
    """the hub's branch, tag or commit"""
    statements: int = 100
    """how many of the statements to ask, drawn at random; up to three prompts are made of each"""
    neurons: str | None = None
    """the chosen set, such as 11.584,11.2378, of the last layer; by default the ten with the highest rho"""
    controls: int = 100
    """random sets of as many neurons to compare with"""
    text: str = "stdlib"
    """text, as for --data of `jaxconf analyze`, whose activations say what the neurons are set to"""
    tokens: int = 16384
    """how many tokens of that text"""
    out: Path | None = None
    """the folder; runs/MODEL by default, beside what `jaxconf analyze` writes there"""
    force: bool = False
    """replace what an earlier such command left in the folder"""
    k: int | None = None
    """size of the unembedding's effective null space; 1% of the width by default"""
    seed: int = 0
    memory: str = "4GB"
    """what texts that are worked on together may take on a device, beside the weights"""
    mesh: str | None = None
    """devices that prompts and weights are split over, such as data=4,model=2; by default all on data, as far as the weights fit"""
    profile: Path | None = None
    """a folder for a trace of what JAX does, which TensorBoard and Perfetto show"""
    hosts: tyro.conf.OmitArgPrefixes[Hosts] = dataclasses.field(default_factory=Hosts)


@dataclasses.dataclass(frozen=True)
class Unigram:
    """Count the tokens of a corpus with a model's tokenizer and save them as .npy, an integer per token id."""

    model: Model
    """a folder or hub id with a tokenizer"""
    out: Path
    """the .npy file to write"""
    revision: str | None = None
    data: str = "stdlib"
    """text, as for `jaxconf analyze`"""
    force: bool = False
    """replace the file if it exists"""


@dataclasses.dataclass(frozen=True)
class Train:
    """Train small decoders from scratch, measure their neurons on the way, and save them in Hugging Face layout.

    A preset may follow the word train and sets other defaults: tiny (the defaults shown), small (10 million parameters) or
    gpt2-small-shape. With --vary or --seeds it is a study: a model for each combination, trained side by side where their shapes allow it.
    """

    out: Path
    """the folder to write"""
    data: str = "stdlib"
    """text, as for `jaxconf analyze`"""
    tokenizer: str | None = None
    """a folder or hub id with a tokenizer; by default a byte-level BPE is trained on the text"""
    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE,VALUE of one of the options below, such as weight_decay=0,0.1; may be given again for another name"""
    seeds: int = 1
    """models of each kind, with seeds from --seed on"""
    resume: bool = False
    """go on with the run, or study, that the folder holds, from its newest good checkpoint"""
    force: bool = False
    """replace what the folder holds"""
    checkpoint_every: int = 250
    """steps between checkpoints; one is also written when SIGTERM or Ctrl-C asks to stop"""
    mesh: str | None = None
    """devices that models or sequences, and weights, are split over, such as data=4,model=2; by default as many on model as they demand"""
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = dataclasses.field(default_factory=TrainConfig)
    track: TrackConfig = dataclasses.field(default_factory=TrackConfig)
    hosts: tyro.conf.OmitArgPrefixes[Hosts] = dataclasses.field(default_factory=Hosts)


@dataclasses.dataclass(frozen=True)
class Track:
    """Draw what was measured while a model, or a study's models, were trained; or measure the public checkpoints of a hub model."""

    source: Annotated[str, tyro.conf.Positional]
    """the folder of a training run or of a study, or with --revisions a hub id"""
    revisions: str | None = None
    """the hub's branches or tags, in one word: step0,step1000,step2000"""
    effects: bool = False
    """of the hub's revisions, also the effects of ablating every neuron, not only the weights"""
    delete: bool = False
    """delete each revision that was downloaded for this, once it is measured"""
    out: Path | None = None
    """where the hub's revisions are recorded; runs/MODEL by default"""
    data: str = "stdlib"
    """text, as for `jaxconf analyze`"""
    tokens: int = 4096
    """how many tokens to analyse"""
    k: int | None = None
    """size of the unembedding's effective null space; 1% of the width by default"""
    mesh: str | None = None
    """of the hub's revisions: devices that sequences and weights are split over, such as data=4,model=2"""
    force: bool = False
    """replace the track that the folder holds"""
    hosts: tyro.conf.OmitArgPrefixes[Hosts] = dataclasses.field(default_factory=Hosts)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Analyse many models, revisions, texts, ablations and layers: as many workers as you start share the cells of one folder.

    `jaxconf sweep report FOLDER` joins what is finished into one table and one page.
    """

    definition: Annotated[Path, tyro.conf.Positional]
    """a TOML file with lists: models, and if wanted revisions, data, ablations and layers; and what else `jaxconf analyze` takes in [options]"""
    out: Path | None = None
    """the folder that all workers share; runs/NAME by default, NAME being the file's"""
    tries: int = 3
    """how often a cell may fail before it is left"""
    patience: float = 60.0
    """seconds without a sign of life after which a worker counts as dead and its cell is taken over"""
    status: bool = False
    """take no cells, but show how they stand until all are done"""
    plan: bool = False
    """take no cells and load no weights, but estimate what memory and time the cells need, on what the next four options say"""
    devices: int | None = None
    """how many devices a worker has; by default those that JAX sees, as for the next three"""
    device_memory: str | None = None
    """what each of them has, such as 80GB"""
    flops: float | None = None
    """operations of float32 matrix products that each of them does in a second; by default, after some seconds, what is measured here"""
    exponentials: float | None = None
    """exponentials of logits that each of them sums in a second; given with --flops or not at all"""
    hosts: tyro.conf.OmitArgPrefixes[Hosts] = dataclasses.field(default_factory=Hosts)


@dataclasses.dataclass(frozen=True)
class SweepReport:
    """Join the finished cells of a sweep into sweep.parquet and sweep.html."""

    folder: Annotated[Path, tyro.conf.Positional]
    """the sweep's folder"""


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw the figures and the report of a run again."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""


@dataclasses.dataclass(frozen=True)
class Models:
    """List the families of models that are supported, and how far their logits lie from transformers' as last measured."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The `jaxconf` command: exit code 2 and one sentence for what the user can mend, 130 when interrupted."""
    try:
        preset, rest = _preset(list(sys.argv[1:] if arguments is None else arguments))
        if rest[:2] == ["sweep", "report"]:
            rest = ["sweep-report", *rest[2:]]
        # `out` has no default, which tyro's own mark says.
        train = tyro.conf.subcommand("train", default=Train(out=tyro.MISSING, config=PRESETS[preset]))
        commands: Any = (
            Annotated[Analyze, tyro.conf.subcommand("analyze")]
            | Annotated[Induction, tyro.conf.subcommand("induction")]
            | Annotated[Compare, tyro.conf.subcommand("compare")]
            | Annotated[Universal, tyro.conf.subcommand("universal")]
            | Annotated[Copying, tyro.conf.subcommand("copying")]
            | Annotated[Unigram, tyro.conf.subcommand("unigram")]
            | Annotated[Train, train]
            | Annotated[Track, tyro.conf.subcommand("track")]
            | Annotated[Sweep, tyro.conf.subcommand("sweep")]
            | Annotated[SweepReport, tyro.conf.subcommand("sweep-report")]
            | Annotated[Report, tyro.conf.subcommand("report")]
            | Annotated[Models, tyro.conf.subcommand("models")]
        )
        command: Any = tyro.cli(
            commands, args=rest, prog="jaxconf", description="Finds, measures and explains a language model's confidence neurons."
        )
        run: dict[type, Callable[[Any], None]] = {
            Analyze: _analyze,
            Induction: _induction,
            Compare: _compare,
            Universal: _universal,
            Copying: _copying,
            Unigram: _unigram,
            Train: _train,
            Track: _track,
            Sweep: _sweep,
            SweepReport: _sweep_report,
            Report: _report,
            Models: _models,
        }
        if hasattr(command, "hosts"):
            join(command.hosts, by_itself=not isinstance(command, Sweep))
        run[type(command)](command)
        part()
    except InputError as error:
        print(f"jaxconf: {error}", file=sys.stderr)
        leave(2)
    except KeyboardInterrupt:
        print("jaxconf: interrupted; the same command goes on from the last finished windows (analyze) or starts again", file=sys.stderr)
        leave(130)
    except Exception as error:
        if alone():
            raise
        lost = of_a_lost_host(error)
        if not lost:
            traceback.print_exc()
        leave(1, explained=not lost)


def _preset(arguments: list[str]) -> tuple[str, list[str]]:
    """The preset that a train command names, if it does, and the arguments without it."""
    if arguments[:1] != ["train"] or len(arguments) < 2 or arguments[1].startswith("-"):
        return "tiny", arguments
    name = arguments[1]
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}; the nearest is {nearest(name, PRESETS)!r}, and all are {', '.join(PRESETS)}")
    return name, ["train", *arguments[2:]]


@contextlib.contextmanager
def _job(command: Any, model: str, mark: str, quiet: bool = False) -> Iterator[tuple[Path, "Console", "Progress"]]:
    """The folder that a command writes to, `mark` being the file that it must not hold yet, where to speak, and a progress line."""
    from rich.console import Console

    from jaxconf.results.run_folder import claim
    from jaxconf.runtime.hosts import first, only_first_writes
    from jaxconf.runtime.progress import progress as progress_line
    from jaxconf.runtime.timing import traced

    console = Console(quiet=quiet or not first())
    with (
        only_first_writes(command.out or Path("runs") / Path(model).resolve().name) as out,
        claim(out, mark, command.force),
        progress_line(console, "tokens") as progress,
        traced(command.profile),
    ):
        yield out, console, progress


def _say(console: "Console", sentences: Sequence[str], page: Path) -> None:
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    console.print(f"\nPage: {page}", soft_wrap=True, highlight=False)


def _analyze(command: Analyze, quiet: bool = False) -> None:
    from jaxconf.analysis.ablation import Ablation
    from jaxconf.data.documents import documents
    from jaxconf.data.token_counts import COUNTED, count_tokens, first_documents, read_counts
    from jaxconf.data.windows import kept_positions, windows
    from jaxconf.measure.analyze import analyze, check_options
    from jaxconf.measure.neuron_sets import ablate_sets, check_set, per_token
    from jaxconf.report.run import save_run
    from jaxconf.report.terminal import print_sets, print_summary
    from jaxconf.results.rules import Rules
    from jaxconf.results.run_folder import PER_TOKEN, SETS
    from jaxconf.runtime.placement import load_placed

    sets, chosen, memory = _parsed(command)
    ablation = Ablation(command.ablation, command.ablation_value if command.ablation in VALUED else None)
    rules = Rules(command.min_ln_mediated, command.min_freq_mediated, command.kl_top)
    with _job(command, command.model, "neurons.parquet", quiet) as (out, console, progress):
        progress("loading the model", 0, 0)
        lm = load_placed(command.model, command.revision, command.mesh, functools.partial(console.print, highlight=False))
        check_options(lm.config, command.layer, command.k, command.engine, command.tolerance, command.bootstrap_draws, command.seed)
        for neurons in sets:
            check_set(lm.config, neurons, command.controls)
        if chosen:
            check_set(lm.config, chosen, 0)
        V = lm.config.vocab_size
        tokens = windows(documents(command.data), lm.tokenizer, command.tokens, min(256, lm.config.n_positions))
        if command.counts:
            counts, origin = read_counts(command.counts, V), str(command.counts)
        else:
            counts = count_tokens(first_documents(documents(command.data)), lm.tokenizer, V, lambda done: progress("token counts", done, 0))
            origin = f"{command.data}, its first {COUNTED:,} characters at most"
        facts = {"model": command.model, "data": command.data, "counts": origin}
        kept = kept_positions(tokens, lm.special_ids)
        how: dict[str, Any] = {
            "kept": kept,
            "counts": counts,
            "ablation": ablation,
            "frozen": command.frozen,
            "memory": memory,
            "progress": progress,
        }
        table = analyze(
            lm,
            tokens,
            convention=command.convention,
            layer=command.layer,
            engine=command.engine,
            tolerance=command.tolerance,
            k=command.k,
            bootstrap_draws=command.bootstrap_draws,
            seed=command.seed,
            rules=rules,
            facts=facts,
            partial=out / PARTIAL,
            **how,
        )
        extra: dict[str, Any] = {}
        if sets:
            how_often: dict[str, Any] = {"controls": command.controls, "bootstrap_draws": command.bootstrap_draws, "seed": command.seed}
            extra[SETS] = ablate_sets(lm, tokens, sets, partial=out / PARTIAL, **how_often, **how)
        if command.per_token:
            extra[PER_TOKEN] = per_token(lm, tokens, chosen, **how)
        progress("figures and report", 0, 0)
        save_run(table, tokens, kept, out, extra)
        shutil.rmtree(out / PARTIAL)
    print_summary(table, console)
    if sets:
        print_sets(extra[SETS], console)
    console.print(f"\nReport: {out / 'report.html'}", soft_wrap=True, highlight=False)


def _parsed(command: Analyze) -> tuple[list[Any], Any, int]:
    """The sets, the neurons of --per-token, and the bytes of --memory. Raises InputError for what no model could make right."""
    from jaxconf.measure.neuron_sets import read_sets

    if command.tokens < 1:
        raise InputError(f"--tokens is {command.tokens}; give how many tokens to analyse")
    return read_sets(command.set), read_sets([command.per_token])[0] if command.per_token else [], _bytes(command.memory)


# Finished windows of an analysis that is under way, and of a comparison.
PARTIAL = ".partial"
PARTIAL_COMPARISON = ".partial-compare"


def _bytes(text: str, option: str = "--memory") -> int:
    """A size such as "4GB" or "500MB". Raises InputError for others."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])B", text.strip(), re.IGNORECASE)
    if not found:
        raise InputError(f"{option} is {text!r}; give a size such as 4GB or 500MB")
    return int(float(found[1]) * 1000 ** (1 + "KMGT".index(found[2].upper())))


def _induction(command: Induction) -> None:
    from jaxconf.measure.inputs import check_amounts
    from jaxconf.measure.neuron_sets import read_names
    from jaxconf.runtime.placement import load_placed
    from jaxconf.studies.induction.sentences import sentences
    from jaxconf.studies.induction.study import induction

    check_amounts(1, sequences=command.sequences, tokens=command.tokens)
    named: dict[str, Any] = {}
    for option, example in (("neurons", "11.584,11.2378"), ("heads", "5.1,5.5")):
        text = getattr(command, option)
        try:
            named[option] = read_names(text) if text else None
        except ValueError as error:
            raise InputError(f"--{option} is {text!r}; give names such as {example}") from error
    memory = _bytes(command.memory)
    with _job(command, command.model, "induction.json") as (out, console, progress):
        progress("loading the model", 0, 0)
        lm = load_placed(command.model, command.revision, command.mesh, functools.partial(console.print, highlight=False))
        found = induction(
            lm,
            command.tokens,
            data=command.data,
            sequences=command.sequences,
            length=command.length,
            random=command.random,
            natural=command.natural,
            neurons=named["neurons"],
            heads=named["heads"],
            controls=command.controls,
            k=command.k,
            bootstrap_draws=command.bootstrap_draws,
            seed=command.seed,
            memory=memory,
            facts={"model": command.model},
            progress=progress,
        )
        progress("figures and page", 0, 0)
        found.save(out)
    _say(console, sentences(found), out / "induction.html")


def _compare(command: Compare) -> None:
    from jaxconf.data.documents import documents
    from jaxconf.data.windows import windows
    from jaxconf.measure.analyze import check_options
    from jaxconf.models.families import config_from_hf
    from jaxconf.models.language_model import find, read_config
    from jaxconf.results.run_folder import save_result
    from jaxconf.runtime.placement import load_placed
    from jaxconf.studies.comparison.figures import paragraphs, save_comparison_figures
    from jaxconf.studies.comparison.page import write_comparison_report
    from jaxconf.studies.comparison.study import check_same_shape, compare_models

    if command.tokens < 1:
        raise InputError(f"--tokens is {command.tokens}; give how many tokens to analyse")
    if not command.tuned:
        raise InputError("there is no model to compare with; give at least one that was trained on from the base model")
    memory = _bytes(command.memory)
    with _job(command, command.base, "comparison.json") as (out, console, progress):

        def config_of(model: str) -> Any:
            return config_from_hf(read_config(find(model, weights=False)[0]))

        def load(model: str) -> Any:
            progress(f"{model}: loading", 0, 0)
            lm = load_placed(model, None, command.mesh, functools.partial(console.print, highlight=False))
            return dataclasses.replace(lm, name=model)

        configs = [config_of(model) for model in (command.base, *command.tuned)]
        for model, config in zip(command.tuned, configs[1:], strict=True):  # before the weights, which can take minutes
            check_same_shape(configs[0], config, model)
        check_options(configs[0], "last", command.k, "auto", 1e-4, command.bootstrap_draws, command.seed)
        base = load(command.base)
        progress("reading text", 0, 0)
        found = compare_models(
            base,
            map(load, command.tuned),
            windows(documents(command.data), base.tokenizer, command.tokens, min(256, *(config.n_positions for config in configs))),
            k=command.k,
            bootstrap_draws=command.bootstrap_draws,
            seed=command.seed,
            memory=memory,
            facts={"data": command.data},
            partial=out / PARTIAL_COMPARISON,
            progress=progress,
        )
        progress("figures and page", 0, 0)
        save_result(found, "comparison", paragraphs(found), save_comparison_figures, write_comparison_report, out)
        shutil.rmtree(out / PARTIAL_COMPARISON, ignore_errors=True)
    _say(console, paragraphs(found), out / "comparison.html")


def _universal(command: Universal) -> None:
    from jaxconf.data.documents import documents
    from jaxconf.data.windows import windows
    from jaxconf.results.run_folder import save_result
    from jaxconf.runtime.placement import load_placed
    from jaxconf.studies.universal.figures import save_universal_figures, sentences
    from jaxconf.studies.universal.page import write_universal_report
    from jaxconf.studies.universal.study import FamilyRules, check_models, check_options, universal

    if len(command.models) < 2:
        raise InputError("give two models or more, the first of which is compared with the others")
    if command.tokens < 1:
        raise InputError(f"--tokens is {command.tokens}; give how many tokens to correlate activations over")
    rules, memory = FamilyRules(command.min_excess), _bytes(command.memory)
    check_options(command.effects, rules, command.seed)
    with _job(command, command.models[0], "universal.json") as (out, console, progress):
        lms: list[Any] = []
        for model in command.models:
            progress("loading the models", len(lms), len(command.models))
            lms.append(load_placed(model, None, command.mesh, functools.partial(console.print, highlight=False)))
        check_models(lms)
        progress("reading text", 0, 0)
        length = min(256, *(lm.config.n_positions for lm in lms))
        found = universal(
            lms,
            windows(documents(command.data), lms[0].tokenizer, command.tokens, length),
            effects=command.effects,
            rules=rules,
            k=command.k,
            seed=command.seed,
            memory=memory,
            facts={"model": command.models[0], "models": list(command.models), "data": command.data},
            progress=progress,
        )
        progress("figures and page", 0, 0)
        save_result(found, "universal", sentences(found), save_universal_figures, write_universal_report, out)
    _say(console, sentences(found), out / "universal.html")


def _copying(command: Copying) -> None:
    from jaxconf.data.statements import read_statements
    from jaxconf.measure.inputs import check_amounts
    from jaxconf.measure.neuron_sets import read_names
    from jaxconf.runtime.placement import load_placed
    from jaxconf.studies.copying.sentences import sentences
    from jaxconf.studies.copying.study import copying

    check_amounts(1, statements=command.statements, tokens=command.tokens)
    check_amounts(0, seed=command.seed)
    try:
        neurons = read_names(command.neurons) if command.neurons else None
    except ValueError as error:
        raise InputError(f"--neurons is {command.neurons!r}; give names such as 11.584,11.2378") from error
    memory = _bytes(command.memory)
    read_statements(command.data)
    with _job(command, command.model, "copying.json") as (out, console, progress):
        progress("loading the model", 0, 0)
        lm = load_placed(command.model, command.revision, command.mesh, functools.partial(console.print, highlight=False))
        found = copying(
            lm,
            command.data,
            statements=command.statements,
            text=command.text,
            tokens=command.tokens,
            neurons=neurons,
            controls=command.controls,
            k=command.k,
            seed=command.seed,
            memory=memory,
            facts={"model": command.model},
            progress=progress,
        )
        progress("figures and page", 0, 0)
        found.save(out)
    _say(console, sentences(found), out / "copying.html")


def _unigram(command: Unigram) -> None:
    import numpy as np
    from rich.console import Console

    from jaxconf.data.documents import documents
    from jaxconf.data.token_counts import count_tokens
    from jaxconf.models.families import config_from_hf
    from jaxconf.models.files import replacing
    from jaxconf.models.language_model import find, read_config
    from jaxconf.models.tokenizer import Tokenizer
    from jaxconf.results.run_folder import claim
    from jaxconf.runtime.progress import progress as progress_line

    console = Console()
    with claim(command.out.parent, command.out.name, command.force), progress_line(console, "tokens") as progress:
        folder, _ = find(command.model, command.revision, weights=False)
        tokenizer = Tokenizer.from_folder(folder)
        vocab_size = config_from_hf(read_config(folder)).vocab_size
        counts = count_tokens(documents(command.data), tokenizer, vocab_size, lambda done: progress("token counts", done, 0))
        with replacing(command.out) as path, path.open("wb") as file:
            np.save(file, counts)
    console.print(
        f"{counts.sum():,} tokens, {np.count_nonzero(counts):,} of {len(counts):,} ids seen: {command.out}", soft_wrap=True, highlight=False
    )


def _train(command: Train) -> None:
    import jax
    from rich.console import Console

    config: Any = jax.config
    if config.jax_num_cpu_devices < 0:  # a device for each core trains small models faster than all cores on one
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    from jaxconf.data.documents import documents
    from jaxconf.runtime.hosts import first, only_first_writes
    from jaxconf.runtime.placement import read_mesh
    from jaxconf.runtime.progress import progress as progress_line
    from jaxconf.training.grid import parse_vary, study
    from jaxconf.training.run import train
    from jaxconf.training.trainer import Stopped

    console = Console(quiet=not first())
    vary = parse_vary(command.vary)
    with only_first_writes(command.out) as out, progress_line(console, "steps") as progress:

        def report(step: int, figures: dict[str, float]) -> None:
            progress("training", step, command.config.steps)
            console.print(
                f"step {step}: loss {figures['loss']:.4f} nats per token, {figures['tokens_per_second']:,.0f} tokens/s", highlight=False
            )

        options: dict[str, Any] = {
            "tokenizer": command.tokenizer,
            "track": command.track,
            "checkpoint_every": command.checkpoint_every,
            "resume": command.resume,
            "force": command.force,
            "mesh": read_mesh(command.mesh) if command.mesh else None,
            "progress": progress,
            "report": report,
        }
        source = functools.partial(documents, command.data)
        try:
            if vary or command.seeds != 1:
                table = study(command.config, vary, command.seeds, source, out, **options)
            else:
                figures = train(command.config, source, out, **options)
        except Stopped as stopped:
            print(
                f"jaxconf: stopped after step {stopped.step}, which is saved; the same command with --resume goes on from there",
                file=sys.stderr,
            )
            part()
            sys.exit(128 + stopped.signum)
    if vary or command.seeds != 1:
        _say_study(console, len(table), command.out)
        return
    console.print(f"Held-out loss {figures['held_out_loss']:.4f} nats per token: {command.out}", soft_wrap=True, highlight=False)
    if command.track.points:
        share = f"Measuring took {figures['tracking_share']:.0%} of the time"
        console.print(f"{share}; jaxconf track {command.out} draws it", soft_wrap=True, highlight=False)


def _say_study(console: "Console", models: int, out: Path) -> None:
    console.print(f"{models} models: {out / 'study.png'}, {out / 'study.parquet'}", soft_wrap=True, highlight=False)


def _track(command: Track) -> None:
    from rich.console import Console

    from jaxconf.data.documents import documents
    from jaxconf.runtime.hosts import first, only_first_writes
    from jaxconf.runtime.placement import read_mesh
    from jaxconf.runtime.progress import progress as progress_line
    from jaxconf.training.emergence import Emergence
    from jaxconf.training.figures import save_emergence_figures, summary_lines
    from jaxconf.training.grid import STUDY, compare
    from jaxconf.training.revisions import track_revisions

    console = Console(quiet=not first())
    source = Path(command.source)
    if command.revisions is None:
        if not alone():
            raise InputError("what was tracked is drawn by one host; start it on one, or name --revisions to measure")
        if (source / STUDY).is_file():
            _say_study(console, len(compare(source)), source)
            return
        if not source.exists():
            raise InputError(f"there is no folder {source}; give that of a training run, or a hub id with --revisions")
        folder, emergence = source if source.is_dir() else source.parent, Emergence.load(source)
    else:
        folder = command.out or Path("runs") / source.name
        with only_first_writes(folder) as out, progress_line(console, "revisions") as progress:
            emergence = track_revisions(
                command.source,
                [name for name in command.revisions.split(",") if name],
                out,
                documents=functools.partial(documents, command.data),
                effects=command.effects,
                tokens=command.tokens,
                k=command.k,
                mesh=read_mesh(command.mesh) if command.mesh else None,
                delete=command.delete,
                force=command.force,
                progress=progress,
            )
    if first():
        save_emergence_figures(emergence, folder)
    for line in summary_lines(emergence):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"\nFigures: {folder}/emergence_*.png", soft_wrap=True, highlight=False)


def _sweep(command: Sweep) -> None:
    import jax
    from rich.console import Console
    from rich.live import Live

    from jaxconf.runtime.hosts import first, only_first_writes, told
    from jaxconf.sweeps.queue import define, defined, read_sweep, statuses, work
    from jaxconf.sweeps.terminal import sweep_table

    if command.tries < 1 or not 0 < command.patience < 10**6:
        raise InputError(
            f"--tries is {command.tries} and --patience {command.patience:g}; give at least 1, and seconds from 0 to a million"
        )
    about_plan = (command.devices, command.device_memory, command.flops, command.exponentials)
    if not command.plan and any(value is not None for value in about_plan):
        raise InputError("--devices, --device-memory, --flops and --exponentials are what --plan reckons with; add it, or leave them out")
    if command.plan and command.status:
        raise InputError("--status shows how cells stand, and --plan what they would need; give one of them")
    console, out = Console(), command.out or Path("runs") / command.definition.stem
    if command.status:
        sweep = defined(out)
        with Live(console=console, refresh_per_second=2) as live:
            while True:
                found = statuses(sweep, out, command.tries, command.patience)
                live.update(sweep_table(found))
                if not console.is_terminal or all(status.state in ("finished", "failed") for status in found.values()):
                    return
                time.sleep(1)

    def analysis(options: Any, folder: Path) -> Analyze:
        given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        if "counts" in given:
            given["counts"] = Path(given["counts"])
        return Analyze(**given, out=folder, force=True)

    def run(options: Any, folder: Path) -> None:
        told(lambda: json.dumps(options).encode())
        try:
            _analyze(analysis(options, folder), quiet=True)
        finally:
            jax.clear_caches()

    known = {name: hint for name, hint in get_type_hints(Analyze).items() if name not in ("out", "force", "profile", "hosts")}
    sweep = read_sweep(command.definition, known)
    cells = [analysis(cell, out) for cell in sweep.cells.values()]
    for cell in cells:
        _parsed(cell)
    if command.plan:
        _plan(command, cells)
        return
    say = functools.partial(console.print, soft_wrap=True, highlight=False, markup=False)
    try:
        with only_first_writes(out) as folder:
            define(sweep, folder)
            if not first():  # where several hosts are one worker, the first one takes the cells
                while options := json.loads(told(bytes)):
                    with contextlib.suppress(Exception):  # the first one has it too, and says it
                        _analyze(analysis(options, folder / "cell"), quiet=True)
                    jax.clear_caches()
                return
            found = work(sweep, folder, run, command.tries, command.patience, say)
    except OSError as error:
        raise InputError(f"{out} cannot be used ({error.strerror}); see to it, and start the worker again") from error
    failed = [name for name, status in found.items() if status.state == "failed"]
    say(f"{len(found) - len(failed)} of {len(found)} cells are finished: jaxconf sweep report {out}")

    def end() -> bytes:
        if failed:
            raise InputError(f"{len(failed)} cells failed, the first, {failed[0]}, because: {found[failed[0]].message}")
        return b"null"

    told(end)


def _plan(command: Sweep, cells: Sequence[Analyze]) -> None:
    """Prints what the cells need, those in one row that need the same."""
    import collections
    import math

    import jax
    from rich.console import Console

    from jaxconf.measure.analyze import check_options
    from jaxconf.measure.neuron_sets import check_set
    from jaxconf.models.families import config_from_hf
    from jaxconf.models.language_model import find, read_config
    from jaxconf.runtime.placement import memory_of_a_device, read_mesh
    from jaxconf.sweeps.plan import Devices, Plan, described, in_words, measured_rates, plan, sets_again, warnings
    from jaxconf.sweeps.terminal import plan_table

    count = jax.device_count() if command.devices is None else command.devices
    rates = [rate for rate in (command.flops, command.exponentials) if rate is not None]
    memory = memory_of_a_device() or math.inf if command.device_memory is None else _bytes(command.device_memory, "--device-memory")
    if count < 1 or len(rates) == 1 or not all(0 < rate < math.inf for rate in rates):
        raise InputError(
            f"--devices is {count}, --flops {command.flops} and --exponentials {command.exponentials}; give 1 device or more, and both rates, "
            "above 0, or none of them"
        )
    configs = {}
    for cell in cells:
        if cell.model not in configs:  # as the first revision has it
            folder, _ = find(cell.model, cell.revision, weights=False)
            configs[cell.model] = config_from_hf(read_config(folder))
    console = Console()
    with console.status("Measuring what this machine does in a second"):
        devices = Devices(count, memory, *(rates or measured_rates()))
    found: collections.Counter[tuple[str, str, Plan]] = collections.Counter()
    for cell in cells:
        config, (sets, single, memory_of_work) = configs[cell.model], _parsed(cell)
        try:
            layers, _, tolerance = check_options(config, cell.layer, cell.k, cell.engine, cell.tolerance, cell.bootstrap_draws, cell.seed)
            for neurons in [*sets, *([single] if single else [])]:
                check_set(config, neurons, cell.controls)
        except InputError as error:
            raise InputError(f"{cell.model}: {error}") from error
        needed = plan(
            config,
            devices,
            tokens=cell.tokens,
            layers=layers,
            adaptive=tolerance is not None,
            frozen=cell.frozen,
            memory=memory_of_work,
            again=sets_again(sets, cell.controls, single),
            sizes=read_mesh(cell.mesh, count) if cell.mesh else None,
        )
        found[Path(cell.model).name, str(cell.layer), needed] += 1
    of_memory, of_time = in_words(found)
    console.print(plan_table("Memory of a device, estimated", of_memory))
    console.print()
    console.print(plan_table("Time of a worker, estimated", of_time))
    console.print()
    for sentence in (described(devices), *warnings(found, devices)):
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def _sweep_report(command: SweepReport) -> None:
    from rich.console import Console

    from jaxconf.sweeps.page import write_sweep_report

    console = Console()
    page, missing = write_sweep_report(command.folder)
    if missing:
        console.print(f"{missing} cells are not finished, and are left out.", highlight=False)
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _report(command: Report) -> None:
    from rich.console import Console

    from jaxconf.report.run import draw
    from jaxconf.report.terminal import print_summary
    from jaxconf.results.neuron_table import NeuronTable

    table = NeuronTable.load(command.run)
    draw(table, command.run if command.run.is_dir() else command.run.parent)
    print_summary(table, Console())


def _models(command: Models) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from jaxconf.models.supported import supported

    table = Table("model_type", "family", "largest |Δlogit|", box=None, pad_edge=False)
    for row in supported():
        table.add_row(row.model_type, Text(row.what), "not measured" if row.error is None else f"{row.error:.1e}")
    Console().print(table)

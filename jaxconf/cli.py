"""The command line. Heavy imports wait until a command runs, so that `jaxconf --help` answers at once."""

import dataclasses
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxconf.models.errors import InputError
from jaxconf.train_config import TrainConfig

Model = Annotated[str, tyro.conf.Positional]


@dataclasses.dataclass(frozen=True)
class Analyze:
    """Measure every neuron of a model's last layer and write a run folder with a table, figures and a report."""

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
    ablation: Literal["mean", "zero", "fixed", "scale"] = "mean"
    """what a neuron's activation is set to"""
    ablation_value: float = 0.0
    """the value for --ablation fixed, the factor for scale"""
    convention: Literal["paper", "raw"] = "paper"
    """weights folded and centred as in the paper, or as they stand (weight statistics only; effects do not depend on it)"""
    k: int | None = None
    """size of the unembedding's effective null space; 1% of the width by default"""
    bootstrap_draws: int = 1000
    """resamples of the windows behind each interval"""
    seed: int = 0
    min_ln_mediated: float = 0.3
    """entropy neurons: the least share of the effect that passes through the norm"""
    min_freq_mediated: float = 0.15
    """frequency neurons: the least share of the effect along the frequency direction"""
    kl_top: float = 0.05
    """frequency neurons: the top share of the change in D_KL(P_freq || P_model) that they must be in"""


@dataclasses.dataclass(frozen=True)
class Unigram:
    """Count the tokens of a corpus with a model's tokenizer and save them as .npy, an integer per token id."""

    model: Model
    """a folder or hub id with a tokenizer.json"""
    out: Path
    """the .npy file to write"""
    revision: str | None = None
    data: str = "stdlib"
    """text, as for `jaxconf analyze`"""
    force: bool = False
    """replace the file if it exists"""


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a small decoder from scratch on text and save it in Hugging Face layout."""

    out: Path
    """the folder to write"""
    data: str = "stdlib"
    """text, as for `jaxconf analyze`"""
    force: bool = False
    """replace the model that the folder holds"""
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = dataclasses.field(default_factory=TrainConfig)


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw the figures and the report of a run again."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""


Command = (
    Annotated[Analyze, tyro.conf.subcommand("analyze")]
    | Annotated[Unigram, tyro.conf.subcommand("unigram")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Report, tyro.conf.subcommand("report")]
)


def main(arguments: Sequence[str] | None = None) -> None:
    """The `jaxconf` command: exit code 2 and one sentence for what the user can mend, 130 when interrupted."""
    command: Any = tyro.cli(
        Command, args=arguments, prog="jaxconf", description="Finds, measures and explains a language model's confidence neurons."
    )
    commands: dict[type, Callable[[Any], None]] = {Analyze: _analyze, Unigram: _unigram, Train: _train, Report: _report}
    try:
        commands[type(command)](command)
    except InputError as error:
        print(f"jaxconf: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("jaxconf: interrupted; the same command goes on from the last finished windows (analyze) or starts again", file=sys.stderr)
        sys.exit(130)


def _analyze(command: Analyze) -> None:
    from rich.console import Console

    from jaxconf.measure import analyze
    from jaxconf.models.language_model import load
    from jaxconf.progress import progress as progress_line
    from jaxconf.report.terminal import print_summary
    from jaxconf.run import BUNDLED, claim, save_run
    from jaxconf.table import Rules
    from jaxconf.text import count_tokens, documents, kept_positions, read_counts, windows

    if command.tokens < 1:
        raise InputError(f"--tokens is {command.tokens}; give how many tokens to analyse")
    rules = Rules(command.min_ln_mediated, command.min_freq_mediated, command.kl_top)
    out = command.out or Path("runs") / Path(command.model).resolve().name
    console = Console()
    with claim(out, "neurons.parquet", command.force), progress_line(console, "tokens") as progress:
        progress("loading the model", 0, 0)
        lm = load(BUNDLED if command.model == "bundled" else command.model, command.revision)
        V = lm.config.vocab_size
        tokens = windows(documents(command.data), lm.tokenizer, command.tokens, min(256, lm.config.n_positions))
        if command.counts:
            counts, origin = read_counts(command.counts, V), str(command.counts)
        else:
            counts = count_tokens(_first(documents(command.data)), lm.tokenizer, V, lambda done: progress("token counts", done, 0))
            origin = f"{command.data}, its first {COUNTED:,} characters at most"
        facts = {"model": command.model, "data": command.data, "counts": origin}
        kept = kept_positions(tokens, lm.special_ids)
        table = analyze(
            lm,
            tokens,
            kept=kept,
            counts=counts,
            ablation=command.ablation,
            ablation_value=command.ablation_value,
            convention=command.convention,
            k=command.k,
            bootstrap_draws=command.bootstrap_draws,
            seed=command.seed,
            rules=rules,
            facts=facts,
            partial=out / PARTIAL,
            progress=progress,
        )
        progress("figures and report", 0, 0)
        save_run(table, tokens, kept, out)
        shutil.rmtree(out / PARTIAL)
    print_summary(table, console)
    console.print(f"\nReport: {out / 'report.html'}", soft_wrap=True, highlight=False)


PARTIAL = ".partial"  # finished windows of an analysis that is under way
COUNTED = 40_000_000  # characters behind the token counts when none are given


def _first(documents: Iterator[str]) -> Iterator[str]:
    left = COUNTED
    for text in documents:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _unigram(command: Unigram) -> None:
    import numpy as np
    from rich.console import Console

    from jaxconf.models.families import config_from_hf
    from jaxconf.models.files import replacing
    from jaxconf.models.language_model import find, read_config
    from jaxconf.models.tokenizer import Tokenizer
    from jaxconf.progress import progress as progress_line
    from jaxconf.run import BUNDLED, claim
    from jaxconf.text import count_tokens, documents

    console = Console()
    with claim(command.out.parent, command.out.name, command.force), progress_line(console, "tokens") as progress:
        folder, _ = find(BUNDLED if command.model == "bundled" else command.model, command.revision, weights=False)
        tokenizer = Tokenizer.from_folder(folder)
        vocab_size = config_from_hf(read_config(folder)).vocab_size
        counts = count_tokens(documents(command.data), tokenizer, vocab_size, lambda done: progress("token counts", done, 0))
        with replacing(command.out) as path, path.open("wb") as file:
            np.save(file, counts)
    console.print(
        f"{counts.sum():,} tokens, {np.count_nonzero(counts):,} of {len(counts):,} ids seen: {command.out}", soft_wrap=True, highlight=False
    )


def _train(command: Train) -> None:
    from rich.console import Console

    from jaxconf.progress import progress as progress_line
    from jaxconf.run import claim
    from jaxconf.text import documents
    from jaxconf.training import train

    console = Console()
    with claim(command.out, "config.json", command.force), progress_line(console, "steps") as progress:

        def report(step: int, figures: dict[str, float]) -> None:
            progress("training", step, command.config.steps)
            console.print(
                f"step {step}: loss {figures['loss']:.4f} nats per token, {figures['tokens_per_second']:,.0f} tokens/s", highlight=False
            )

        figures = train(command.config, lambda: documents(command.data), command.out, report)
    console.print(f"Held-out loss {figures['held_out_loss']:.4f} nats per token: {command.out}", soft_wrap=True, highlight=False)


def _report(command: Report) -> None:
    from rich.console import Console

    from jaxconf.report.terminal import print_summary
    from jaxconf.run import draw
    from jaxconf.table import NeuronTable

    table = NeuronTable.load(command.run)
    draw(table, command.run if command.run.is_dir() else command.run.parent)
    print_summary(table, Console())

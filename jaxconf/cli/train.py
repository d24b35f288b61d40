"""`jaxconf train`."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Command, Quiet, Text, TextColumn, answer, say, speaking
from jaxconf.data.sources import in_column
from jaxconf.models.errors import InputError, nearest
from jaxconf.runtime.hosts import Hosts, first, part
from jaxconf.training.config import PRESET_DATA, PRESETS, TrackConfig, TrainConfig

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


@dataclasses.dataclass(frozen=True)
class Train(Command):
    """Train small decoders from scratch, measure their neurons on the way, and save them in Hugging Face layout.

    A preset may follow the word train and sets the defaults: noise (synthetic text in which the best confidence is
    known; its defaults are those that this help shows without a preset), or for Python's standard library tiny, small
    (10 million parameters) or gpt2-small-shape. With --vary or --seeds, a grid is trained: a model for each combination
    of values and seeds, side by side where their shapes allow it.
    """

    out: Path
    """the run folder to write"""
    data: Text
    text_column: TextColumn = None
    tokenizer: str | None = None
    """a folder or hub id with a tokenizer; by default that of the synthetic text, and for other text a byte-level BPE
    that is trained on it"""
    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """the values of one of the config options below as NAME=VALUE,VALUE, such as weight_decay=0,0.1;
    may be given again for another name"""
    counts: Path | None = None
    """token counts as .npy (see `jaxconf unigram`), for the measurements of token frequency;
    by default those of the training part of --data"""
    seeds: int = 1
    """how many models to train of each combination, with the seeds from --seed on"""
    resume: bool = False
    """continue the run or grid that the folder holds, from the newest checkpoint that can be read"""
    force: bool = False
    """replace the run or grid that the folder holds"""
    checkpoint_every: int = 250
    """steps between checkpoints; a checkpoint is also written when SIGTERM or Ctrl-C stops the training"""
    mesh: str | None = None
    """how many devices split the models or sequences (data) and the weights (model), such as data=4,model=2;
    by default as few devices as possible split the weights"""
    quiet: Quiet = False
    config: Group[TrainConfig] = dataclasses.field(default_factory=TrainConfig)
    track: TrackConfig = dataclasses.field(default_factory=TrackConfig)
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        _a_device_for_each_core()

        from jaxconf.results.words import reading_notes
        from jaxconf.runtime.placement import read_mesh
        from jaxconf.training.grid import grid
        from jaxconf.training.run import train
        from jaxconf.training.trainer import Stopped
        from jaxconf.training.vary import parse_vary

        vary, data = parse_vary(self.vary), in_column(self.data, self.text_column)
        with speaking("steps", self.quiet) as (console, progress):

            def report(step: int, measured: dict[str, float]) -> None:
                speed = f"{measured['tokens_per_second']:,.0f} tokens/s"
                say(console, f"step {step}: loss {measured['loss']:.4f} nats per token, {speed}")

            options: dict[str, Any] = {
                "tokenizer": self.tokenizer,
                "track": self.track,
                "counts": self.counts,
                "checkpoint_every": self.checkpoint_every,
                "resume": self.resume,
                "force": self.force,
                "mesh": read_mesh(self.mesh) if self.mesh else None,
                "progress": progress,
                "report": report,
            }
            try:
                if vary or self.seeds != 1:
                    table = grid(self.config, vary, self.seeds, data, self.out, **options)
                else:
                    result = train(self.config, data, self.out, **options)
            except Stopped as stopped:
                print(
                    f"jaxconf: stopped after step {stopped.step}, which is saved; "
                    "the same command with --resume continues from there",
                    file=sys.stderr,
                )
                part()
                sys.exit(128 + stopped.signum)
        if vary or self.seeds != 1:
            answer_of_grid(console, table, self.out)
            return
        lines = []
        if self.track.points and first():
            from jaxconf.training.emergence import Emergence
            from jaxconf.training.summary import summary_lines

            share = f"Measuring took {result['tracking_share']:.0%} of the time"
            lines = [f"{share}; jaxconf track {self.out} draws what was measured:"]
            lines += summary_lines(Emergence.load(self.out))
        loss = f"Held-out loss {result['held_out_loss']:.4f} nats per token; run folder: {self.out}"
        answer(
            console,
            lambda: {"folder": self.out, **result, "verdict": lines[1:]},
            lambda: say(console, *reading_notes(result), loss, *lines),
        )


def answer_of_grid(console: "Console", table: "pd.DataFrame", out: Path) -> None:
    """Print the result of a grid. `table`: as `jaxconf.grid` returns it."""
    answer(
        console,
        lambda: {"folder": out, "models": table.to_dict("records")},
        lambda: say(console, *grid_sentences(table, out)),
    )


def grid_sentences(table: "pd.DataFrame", out: Path) -> list[str]:
    """Where the results of a grid are, and a warning if a token-frequency direction is uncertain.

    `table`: as `jaxconf.grid` returns it.
    """
    from jaxconf.results.words import counts_doubts, reading_notes
    from jaxconf.training.grid_table import result_of

    where = f"{len(table)} models; figure: {out / 'study.png'}, table: {out / 'study.parquet'}"
    least = table["counts_cosine"].astype(float).fillna(1.0).idxmin()
    notes = reading_notes(result_of(out, table["model"].iloc[0])) if first() else []
    return [where, *notes, *counts_doubts(table.loc[least].to_dict())]


def preset(arguments: list[str]) -> tuple[Train, list[str]]:
    """The defaults of `jaxconf train`, and its arguments without the name of the preset that they may begin with.

    Raises InputError for an unknown preset.
    """
    given = bool(arguments) and not arguments[0].startswith("-")
    name = arguments[0] if given else "noise"
    if name not in PRESETS:
        known = f"the nearest is {nearest(name, PRESETS)!r}, and all are {', '.join(PRESETS)}"
        raise InputError(f"there is no preset {name!r}; {known}")
    return Train(Path("runs") / name, PRESET_DATA.get(name, "stdlib"), config=PRESETS[name]), arguments[given:]


def _a_device_for_each_core() -> None:
    """Make JAX see each CPU core as a device, unless it was told a number of CPU devices.

    Small models train faster so than with all cores as one device.
    """
    import jax

    config: Any = jax.config
    if config.jax_num_cpu_devices < 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)

"""Do entropy neurons emerge in a larger model of plain text? The section "Text alone, larger" of docs/emergence.md.

python scripts/text_alone.py --stories STORIES.jsonl [--out runs/text_alone] [--steps 3000]

Trains the preset `small` with small batches, so that many steps fit into hours of two cores, on Python's standard
library and the stories, and counts the named neurons over training. The same command goes on where it was stopped;
SIGTERM stops the training, and the table is written of the steps that were measured.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from emergence_study import rewritten

from jaxconf.data.documents import documents
from jaxconf.models.files import replacing
from jaxconf.training.config import PRESETS, TrackConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.run import train
from jaxconf.training.trainer import Stopped

# The learning rate is constant, so that a model is comparable with others of its run wherever the run ends.
CONFIG = dataclasses.replace(PRESETS["small"], context=128, batch=8, schedule="constant")
TRACK = TrackConfig(points=24, effects_every=2, tokens=2560)
PAGE = Path(__file__).parents[1] / "docs" / "emergence.md"
BEGIN, END = "<!-- written by scripts/text_alone.py -->", "<!-- end of text alone -->"


def mixed(stories: Path) -> Iterator[str]:
    """The standard library's modules and the stories in a random order, so that the held-out end has both."""
    texts = [*documents("stdlib"), *documents(str(stories))]
    for index in np.random.default_rng(0).permutation(len(texts)):
        yield texts[index]


def lines(e: Emergence, hours: float, last: int) -> list[str]:
    """A row for each step at which the effects were measured."""
    tokens = CONFIG.batch * CONFIG.context
    said = [
        f"Preset `small` with {CONFIG.batch} sequences of {CONFIG.context} tokens a step and a constant learning rate, "
        f"{last:,} steps, {last * tokens / 1e6:.1f} million tokens, {hours:.1f} hours of processor time with what was "
        "measured.",
        "",
        "| step | held-out loss, nats | entropy neurons | frequency neurons | neurons with rho above chance | largest "
        "ln_mediated among these | largest ln_mediated of all |",
        "|---|---|---|---|---|---|---|",
    ]
    for step in e.steps.itertuples():
        of_step = e.neurons[e.neurons["step"] == step.step]
        if of_step["ln_mediated"].isna().all():
            continue
        above = of_step[of_step["rho"] > step.rho_chance]
        most = "–" if above.empty else f"{above['ln_mediated'].max():.2f}"
        said.append(
            f"| {step.step:,} | {step.loss:.2f} | {of_step['is_entropy_neuron'].sum():.0f} | "
            f"{of_step['is_frequency_neuron'].sum():.0f} | {len(above)} | {most} | {of_step['ln_mediated'].max():.2f} |"
        )
    return said


def main(stories: Path, out: Path = Path("runs/text_alone"), steps: int = 3000) -> None:
    config, clock, last = dataclasses.replace(CONFIG, steps=steps), out / "processor_seconds.txt", steps
    before = float(clock.read_text()) if clock.is_file() else 0.0

    def report(step: int, measured: dict[str, float]) -> None:
        print(f"step {step}: {measured['loss']:.3f} nats, {measured['tokens_per_second']:,.0f} tokens/s", flush=True)

    try:
        train(config, lambda: mixed(stories), out, track=TRACK, checkpoint_every=100, resume=True, report=report)
    except Stopped as stopped:
        last = stopped.step
    seconds = before + time.process_time()
    clock.write_text(f"{seconds:.0f}\n")
    table = lines(Emergence.load(out), seconds / 3600, last)
    with replacing(PAGE) as path:
        path.write_text(rewritten(PAGE.read_text("utf-8"), BEGIN, END, table), "utf-8")


if __name__ == "__main__":
    tyro.cli(main)

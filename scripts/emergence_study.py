"""The study in docs/emergence.md: what makes confidence neurons emerge in tiny models.

python scripts/emergence_study.py [--out runs/emergence_study] [--seeds 2]

Trains the tiny preset with one thing changed at a time, and two models of larger steps, on Python's standard library,
and writes the tables of docs/emergence_study.md. Each grid's figure lies in its folder. If it is stopped, the same
command goes on where it was. It takes about three and a half hours on one CPU core.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from jaxconf.models.files import replacing
from jaxconf.training.config import PRESETS, TrackConfig, TrainConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.grid import grid
from jaxconf.training.grid_table import OUTCOMES
from jaxconf.training.run import train

# Many small steps rather than few large ones: what weight decay does takes steps, not tokens.
BASE = dataclasses.replace(PRESETS["tiny"], context=128, batch=4, steps=8000, learning_rate=4e-3)
TRACK = TrackConfig(points=40, effects_every=8, tokens=2048)

# One grid each: what it asks, the recipe that it starts from, and what it varies.
QUESTIONS: dict[str, tuple[TrainConfig, dict[str, list[Any]]]] = {
    "weight_decay": (BASE, {"weight_decay": [0.0, 0.1, 1.0]}),
    "dropout": (BASE, {"dropout": [0.1]}),
    "tied": (BASE, {"tied": [False]}),
    "z_loss": (BASE, {"z_loss": [1e-3]}),
    "norm": (dataclasses.replace(BASE, neurons=256), {"model_type": ["stablelm", "llama"]}),
    "width": (BASE, {"width": [48]}),
    "vocab_size": (BASE, {"vocab_size": [1024]}),
}

# Single models, followed step by step: heading, recipe, what is tracked.
FOLLOWED = {
    "larger_steps": (
        "Larger steps",
        dataclasses.replace(PRESETS["tiny"], layers=3, width=64, heads=2, neurons=256, steps=4000, learning_rate=4e-3),
        TrackConfig(points=40, effects_every=2, tokens=8192, k=2),
    ),
    "spare_width": (
        "A stream wider than the vocabulary needs",
        dataclasses.replace(
            PRESETS["tiny"],
            width=128,
            heads=4,
            neurons=512,
            vocab_size=260,
            steps=20_000,
            batch=8,
            learning_rate=3e-3,
        ),
        TrackConfig(points=60, effects_every=3, tokens=8192),
    ),
}

SHOWN = (
    "model_type",
    "layers",
    "width",
    "heads",
    "neurons",
    "vocab_size",
    "context",
    "tied",
    "steps",
    "batch",
    "learning_rate",
    "weight_decay",
)
STEP_HEAD = (
    "step",
    "held-out loss",
    "mean entropy",
    "neurons with rho above chance",
    "largest rho",
    "neuron above chance with the largest ln_mediated",
    "its rho",
    "its ln_mediated",
    "its entropy_delta, nats",
    "entropy neurons by the rule",
)
PAGE = Path(__file__).parents[1] / "docs" / "emergence_study.md"


def report(step: int, measured: dict[str, float]) -> None:
    if step % 1000 == 0:
        rate = f"{measured['tokens_per_second']:,.0f} tokens/s"
        print(f"  step {step}: {measured['loss']:.3f} nats per token, {rate}", flush=True)


def cell(values: pd.Series) -> str:
    """The value of each seed, or a dash."""
    return ", ".join("–" if pd.isna(value) else f"{value:.4g}" for value in values)


def rows(table: pd.DataFrame, vary: list[str]) -> list[str]:
    found = []
    for key, part in table.groupby(vary, sort=False):
        name = ", ".join(f"{name} = {value}" for name, value in zip(vary, key, strict=True))
        found.append(f"| {name} | " + " | ".join(cell(part[column]) for column in OUTCOMES) + " |")
    return found


def described(config: TrainConfig) -> str:
    names = [field.name for field in dataclasses.fields(config) if field.name in SHOWN]
    return ", ".join(f"{name} {getattr(config, name)}" for name in names)


def step_rows(e: Emergence, since: int = 300) -> list[str]:
    """A row for each step at which effects were measured, from the first one after `since` on."""
    lines = []
    for measured in e.steps[e.steps["step"] >= since].to_dict("records"):
        neurons = e.neurons[e.neurons["step"] == measured["step"]]
        if neurons["ln_mediated"].isna().all():
            continue
        above = neurons[neurons["rho"] > measured["rho_chance"]]
        best = [
            f"{r.neuron} | {r.rho:.2f} | {r.ln_mediated:.3f} | {r.entropy_delta:+.4f}"
            for r in above.nlargest(1, "ln_mediated").itertuples()
        ]
        row = [
            f"{measured['step']} | {measured['loss']:.3f} | {measured['entropy']:.3f}",
            f"{len(above)} | {neurons['rho'].max():.2f}",
            best[0] if best else "– | – | – | –",
            f"{neurons['is_entropy_neuron'].sum()}",
        ]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def followed(heading: str, config: TrainConfig, e: Emergence) -> list[str]:
    chance = e.steps["rho_chance"].iloc[0]
    return [
        "",
        f"## {heading}",
        "",
        f"One seed of {described(config)}: steps of {config.batch * config.context:,} tokens. With k = {e.facts['k']} "
        f"the chance level of rho, the 99% quantile of the largest of {e.facts['n_neurons']} random directions, is "
        f"{chance:.3f}.",
        "",
        "| " + " | ".join(STEP_HEAD) + " |",
        "|---" * len(STEP_HEAD) + "|",
        *step_rows(e),
    ]


def page(tables: dict[str, pd.DataFrame], seeds: int, tracks: dict[str, Emergence]) -> str:
    head = ["| models | " + " | ".join(OUTCOMES.values()) + " |", "|---" * (len(OUTCOMES) + 1) + "|"]
    lines = [
        "# Measurements of tiny models while they learn",
        "",
        "Written by `scripts/emergence_study.py`. [emergence.md](emergence.md) says what the numbers mean.",
        "",
        f"The base recipe, on Python's standard library: {described(BASE)}. One thing is changed at a time; {seeds} "
        "seeds each. A cell has the value of each seed at the last step. A dash (–) means that a seed has no value.",
        "",
        *head,
    ]
    for name, (_, vary) in QUESTIONS.items():
        if name in tables:
            lines += rows(tables[name], list(vary))
    for name, e in tracks.items():
        heading, config, _ = FOLLOWED[name]
        lines += followed(heading, config, e)
    return "\n".join([*lines, ""])


def main(out: Path = Path("runs/emergence_study"), seeds: int = 2) -> None:
    def write() -> None:
        with replacing(PAGE) as path:
            path.write_text(page(tables, seeds, tracks))

    tracks: dict[str, Emergence] = {}
    tables: dict[str, pd.DataFrame] = {}
    for name, (base, vary) in QUESTIONS.items():
        print(f"{name}: {vary}", flush=True)
        tables[name] = grid(base, vary, seeds, "stdlib", out / name, track=TRACK, resume=True, report=report)
        write()
    for name, (heading, config, track) in FOLLOWED.items():
        print(heading, flush=True)
        train(config, "stdlib", out / name, track=track, resume=True, report=report)
        tracks[name] = Emergence.load(out / name)
        write()


if __name__ == "__main__":
    tyro.cli(main)

"""The study in docs/emergence.md: what makes confidence neurons emerge in tiny models.

python scripts/emergence_study.py [--out runs/emergence_study] [--seeds 2]

Trains the tiny preset with one thing changed at a time, on Python's standard library, and writes the page's table from what was measured;
each study's picture lies in its folder. It can be stopped and goes on where it was when it is started again; about two hours on one CPU core.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from jaxconf.models.files import replacing
from jaxconf.studies import OUTCOMES, half_interval, study
from jaxconf.text import documents
from jaxconf.train_config import PRESETS, TrackConfig, TrainConfig

# Many small steps rather than few large ones: what weight decay does takes steps, not tokens.
BASE = dataclasses.replace(PRESETS["tiny"], context=128, batch=4, steps=8000, learning_rate=4e-3)
TRACK = TrackConfig(points=40, effects_every=8, tokens=2048)

# One study each: what it asks, the recipe that it starts from, and what it varies.
QUESTIONS: dict[str, tuple[TrainConfig, dict[str, list[Any]]]] = {
    "weight_decay": (BASE, {"weight_decay": [0.0, 0.1, 1.0]}),
    "dropout": (BASE, {"dropout": [0.1]}),
    "tied": (BASE, {"tied": [False]}),
    "z_loss": (BASE, {"z_loss": [1e-3]}),
    "norm": (dataclasses.replace(BASE, neurons=256), {"model_type": ["stablelm", "llama"]}),
    "width": (BASE, {"width": [48]}),
    "vocab_size": (BASE, {"vocab_size": [1024]}),
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
PAGE = Path(__file__).parents[1] / "docs" / "emergence_study.md"


def report(step: int, figures: dict[str, float]) -> None:
    if step % 1000 == 0:
        print(f"  step {step}: {figures['loss']:.3f} nats per token, {figures['tokens_per_second']:,.0f} tokens/s", flush=True)


def cell(values: pd.Series) -> str:
    """The mean over seeds ± half of its 95% interval; how many have no value, if some do."""
    known = values.dropna().to_numpy(float)
    if not len(known):
        return "–"
    missing = f" ({len(values) - len(known)} of {len(values)} none)" if len(known) < len(values) else ""
    interval = f" ± {half_interval(known):.2g}" if len(known) > 1 else ""
    return f"{known.mean():.4g}{interval}{missing}"


def rows(table: pd.DataFrame, vary: list[str]) -> list[str]:
    found = [(", ".join(f"{n} = {v}" for n, v in zip(vary, key, strict=True)), part) for key, part in table.groupby(vary, sort=False)]
    return [f"| {name} | " + " | ".join(cell(part[column]) for column in OUTCOMES) + " |" for name, part in found]


def page(tables: dict[str, pd.DataFrame], seeds: int) -> str:
    parameters = ", ".join(f"{field.name} {getattr(BASE, field.name)}" for field in dataclasses.fields(BASE) if field.name in SHOWN)
    head = ["| models | " + " | ".join(OUTCOMES.values()) + " |", "|---" * (len(OUTCOMES) + 1) + "|"]
    lines = [
        "# What was measured of tiny models",
        "",
        "Written by `scripts/emergence_study.py`; what it means is in [emergence.md](emergence.md).",
        "",
        f"The base recipe, on Python's standard library: {parameters}. One thing is changed at a time; {seeds} seeds each. A cell is the mean over "
        "seeds ± half of its 95% interval (Student's t), at the last step; – where no seed has the figure.",
        "",
        *head,
    ]
    for name, (_, vary) in QUESTIONS.items():
        if name in tables:
            lines += rows(tables[name], list(vary))
    return "\n".join([*lines, ""])


def main(out: Path = Path("runs/emergence_study"), seeds: int = 2) -> None:
    tables = {}
    for name, (base, vary) in QUESTIONS.items():
        print(f"{name}: {vary}", flush=True)
        tables[name] = study(base, vary, seeds, lambda: documents("stdlib"), out / name, track=TRACK, resume=True, report=report)
        with replacing(PAGE) as path:
            path.write_text(page(tables, seeds))


if __name__ == "__main__":
    tyro.cli(main)

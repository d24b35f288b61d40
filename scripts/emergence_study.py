"""The study in docs/emergence.md: what makes confidence neurons emerge in tiny models.

python scripts/emergence_study.py [--out runs/emergence_study] [--seeds 2]

Trains the tiny preset with one thing changed at a time, on Python's standard library, and writes the page and its pictures from what was
measured. It can be stopped and goes on where it was when it is started again; some hours on two CPU cores.
"""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

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


def report(step: int, figures: dict[str, float]) -> None:
    if step % 1000 == 0:
        print(f"  step {step}: {figures['loss']:.3f} nats per token, {figures['tokens_per_second']:,.0f} tokens/s", flush=True)


def main(out: Path = Path("runs/emergence_study"), seeds: int = 2) -> None:
    from jaxconf.study import study
    from jaxconf.text import documents

    for name, (base, vary) in QUESTIONS.items():
        print(f"{name}: {vary}", flush=True)
        study(
            base,
            vary,
            seeds,
            lambda: documents("stdlib"),
            out / name,
            track=TRACK,
            resume=True,
            report=report,
        )


if __name__ == "__main__":
    tyro.cli(main)

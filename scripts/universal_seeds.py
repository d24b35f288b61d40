"""Do entropy neurons recur across seeds? Trains tiny models that differ only in the seed, and matches their neurons.

    python scripts/universal_seeds.py [--out runs/universal_seeds] [--seeds 3] [--steps 4000]

The text is Python's standard library. `jaxconf.universal` compares each model with all others. The script prints the
sentences for the first model, and for every model how many entropy neurons and null-space neurons are universal, beside
the other neurons. The folder --out gets the page of the first model. If training is stopped, the same command resumes
it. Three seeds of 3,000 steps take some minutes on two CPU cores.
"""

import dataclasses
from pathlib import Path

import pandas as pd
import tyro

import jaxconf
from jaxconf.studies.universal.sentences import sentences
from jaxconf.training.config import PRESETS, TrackConfig
from jaxconf.training.grid_table import MODELS

# Many small steps, as in scripts/emergence_study.py.
BASE = dataclasses.replace(PRESETS["tiny"], context=128, batch=4, learning_rate=4e-3)
TRACK = TrackConfig(points=2, effects_every=1, tokens=2048)
ASKED = ["entropy", "null_space"]


def report(step: int, measured: dict[str, float]) -> None:
    if step % 500 == 0:
        print(f"step {step}: {measured['loss']:.3f} nats per token", flush=True)


def main(out: Path = Path("runs/universal_seeds"), seeds: int = 3, steps: int = 4000, tokens: int = 65536) -> None:
    config = dataclasses.replace(BASE, steps=steps)
    table = jaxconf.grid(config, {}, seeds, "stdlib", out, track=TRACK, resume=True, report=report)
    print(table[["model", "held_out_loss", "above_chance", "entropy_neurons"]].to_string(index=False), flush=True)
    lms = [jaxconf.load(out / MODELS / name) for name in table["model"]]
    rows = []
    for index, name in enumerate(table["model"]):
        found = jaxconf.universal([lms[index], *lms[:index], *lms[index + 1 :]], tokens)
        if not index:
            found.save(out)
            print("", *sentences(found), "", sep="\n", flush=True)
        rows.append(found.families[found.families["family"].isin(ASKED)].assign(model=name))
    print(pd.concat(rows).set_index(["model", "family"]).to_string())


if __name__ == "__main__":
    tyro.cli(main)

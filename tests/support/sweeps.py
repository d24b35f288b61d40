"""Sweeps whose cells are numbers, and a worker that can be killed."""

import random
import time
from pathlib import Path

from jaxconf.sweeps.definition import Sweep, defined
from jaxconf.sweeps.queue import work

RECORDED = Path(__file__).parent / "recorded" / "sweep"
"""What version 0.1.0 left of a sweep of four cells, two of which failed twice; of the runs what a report reads."""


def worker(folder: Path, said: Path) -> None:
    """Works on a folder's sweep until all cells are finished: each takes some time, and is the square of its number."""
    sweep = defined(folder)

    def run(name: str, place: Path) -> None:
        place.mkdir(exist_ok=True)
        for step in range(4):
            time.sleep(random.uniform(0.01, 0.1))
            (place / f"part{step}").write_text(name)
        (place / "run").write_text(str(sweep.cells[name]["number"] ** 2))

    with said.open("a") as file:
        work(sweep, folder, run, 3, 1.2, lambda line: print(line, file=file, flush=True))


def cells(count: int) -> Sweep:
    return Sweep({f"{i:02d}": {"number": i} for i in range(count)})


def write(folder: Path, text: str) -> Path:
    """The file of a sweep."""
    (folder / "sweep.toml").write_text(text)
    return folder / "sweep.toml"


def copied(model: Path, folder: Path) -> Path:
    """A model by another name."""
    folder.mkdir()
    for file in model.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder

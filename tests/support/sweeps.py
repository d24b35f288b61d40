"""Sweeps whose cells are numbers, and stand-ins for what a cell does in other processes."""

import functools
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from jaxconf.models.errors import InputError
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.resume import RESUME
from jaxconf.sweeps.cells import Run, opened

RECORDED = Path(__file__).parent / "recorded" / "sweep"
"""What version 0.1.0 left of a sweep of four cells, two of which failed twice; of the runs what a report reads."""
WINDOWS = 4


def square(number: int, seconds: float, place: Path, progress: Progress) -> None:
    """The run of a cell: four windows, each of which takes some time, and then the square of a number."""
    (place / RESUME).mkdir(parents=True, exist_ok=True)
    for window in range(WINDOWS):
        progress("windows", window, WINDOWS)
        if not (file := place / RESUME / f"{window}.npz").exists():
            time.sleep(seconds / WINDOWS)
            file.write_text(f"{os.getpid()}")
    (place / "run").write_text(str(number**2))


def fails(place: Path, progress: Progress) -> None:
    raise InputError("there is no such model; give another")


def eats_memory(place: Path, progress: Progress) -> None:
    """As the system ends a process that takes too much."""
    os.kill(os.getpid(), signal.SIGKILL)


def squares(count: int, seconds: float = 0.0) -> dict[str, Run]:
    return {f"{number:02d}": functools.partial(square, number, seconds) for number in range(count)}


def begun(folder: Path) -> Path:
    """The folder of a sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    opened(folder)
    return folder


def results(folder: Path) -> dict[str, int]:
    return {path.name: int((path / "run").read_text()) for path in sorted((folder / "cells").iterdir())}


def endings(folder: Path, ending: str) -> Sequence[str]:
    """The cells of the attempts that ended in such a way: "begun", "failed" or "died"."""
    return sorted(path.stem.rpartition(".")[0] for path in (folder / "attempts").glob(f"*.{ending}"))


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

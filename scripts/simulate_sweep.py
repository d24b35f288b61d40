"""Measures what running a sweep costs beside its cells: sleeping cells, whose times are those that a plan expects.

    python scripts/simulate_sweep.py [SECONDS]

Each line of the table that it writes into docs/sweeps.md is a sweep of 1,000 cells on real worker processes: 125
revisions of each of the eight smaller Pythia models. All times are scaled down by the same factor, so that the workers
of a line together would sleep for SECONDS (60) if they lost no time. In the last line random workers are killed, a
tenth of them in a minute.
"""

import functools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from check_plan import PAGE
from plan_tables import SHAPES, between, markdown

from jaxconf.models.files import replacing
from jaxconf.runtime.lock import locked
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.resume import RESUME
from jaxconf.runtime.workers import workers
from jaxconf.sweeps.cells import LOCK, lost, opened, statuses
from jaxconf.sweeps.dispatch import LOG, dispatch
from jaxconf.sweeps.plan import Need, needs
from jaxconf.sweeps.run import run_in_turn

CELLS, MODELS, WINDOWS, TRIES = 1000, 8, 4, 5
NAME = "simulate_sweep"


class Line(NamedTuple):
    """A line of the table."""

    workers: int  # 0: none, the command itself runs the cells in turn
    deaths: float = 0.0  # of each worker in a minute


HEADS = ["workers", "workers killed", "sleep of each", "took", "efficiency", "lost a cell", "load before"]
LINES = (Line(0), Line(1), Line(8), Line(32), Line(32, 0.1))


def planned() -> dict[str, Need]:
    """1,000 cells with what they need by the plan."""
    with tempfile.TemporaryDirectory() as there:
        cells = {}
        for model in list(SHAPES)[:MODELS]:
            folder = Path(there, model.rpartition("/")[2])
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(SHAPES[model]))
            cells[folder.name] = {"model": str(folder), "tokens": 65536}
        found = needs(cells)
    return {f"{i:04d}-{name}": found[name] for i, name in enumerate(list(found) * (CELLS // MODELS))}


def sleeping(seconds: float, place: Path, progress: Progress) -> None:
    """The run of a cell, in windows that an attempt after a death need not repeat."""
    (place / RESUME).mkdir(parents=True, exist_ok=True)
    for window in range(WINDOWS):
        progress("windows", window, WINDOWS)
        if not (file := place / RESUME / f"{window}.npz").exists():
            time.sleep(seconds / WINDOWS)
            file.touch()


def killing(folder: Path, cells: dict[str, Need], pause: float, stop: threading.Event, killed: list[int]) -> None:
    """Kill a random worker that is at a cell after each pause, in seconds."""
    rng = random.Random(0)
    while not stop.wait(rng.expovariate(1 / pause)):
        found = statuses(cells, folder, TRIES).values()
        if at_work := [int(status.worker.rpartition(":")[2]) for status in found if status.worker]:
            killed.append(rng.choice(at_work))
            os.kill(killed[-1], signal.SIGKILL)


def measured(line: Line, need: dict[str, Need], seconds: float) -> list[str]:
    """A row of the table."""
    count, total = max(1, line.workers), sum(one.seconds for one in need.values())
    scale = seconds * count / total
    runs = {name: functools.partial(sleeping, one.seconds * scale) for name, one in need.items()}
    killed: list[int] = []
    with tempfile.TemporaryDirectory() as there:
        folder, load = Path(there), os.getloadavg()[0]
        opened(folder)
        with locked(folder / LOCK):
            if line.workers:
                with workers("--workers", line.workers, len(need), folder / LOG) as client:
                    begun, stop = time.perf_counter(), threading.Event()
                    if line.deaths:
                        pause = 60 / (line.deaths * line.workers)
                        threading.Thread(target=killing, args=(folder, need, pause, stop, killed), daemon=True).start()
                    dispatch(client, runs, need, folder, TRIES, lambda sentence: None)
                    took = time.perf_counter() - begun
                    stop.set()
            else:
                begun = time.perf_counter()
                run_in_turn(runs, folder, TRIES, lambda what, done, total: None, lambda sentence: None)
                took = time.perf_counter() - begun
        states = [status.state for status in statuses(need, folder, TRIES).values()]
        if states != ["finished"] * CELLS or lost(folder, need):
            sys.exit(f"{states.count('finished')} of {CELLS} cells are finished")
    lost_a_cell = f"{1000 * (took - seconds) * count / CELLS:.0f} ms"
    name = str(line.workers) if line.workers else "none, in turn"
    return [
        name, str(len(killed)), f"{seconds:.0f} s", f"{took:.1f} s", f"{seconds / took:.1%}", lost_a_cell, f"{load:.1f}"
    ]  # fmt: skip


def main() -> None:
    seconds, need = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, planned()
    rows = [HEADS]
    for line in LINES:
        rows.append(measured(line, need, seconds))
        print(" | ".join(rows[-1]), flush=True)
    cores = f"{os.cpu_count()} cores, which the workers share with the scheduler:"
    with replacing(PAGE) as path:
        path.write_text(between(PAGE.read_text(), NAME, f"{cores}\n\n{markdown(rows)}"))


if __name__ == "__main__":
    main()

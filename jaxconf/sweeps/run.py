"""Running a sweep: one worker, which may consist of several hosts, and the state of all cells."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from jaxconf.measure.run import parse, run
from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import first, only_first_writes, told_json
from jaxconf.runtime.progress import Progress
from jaxconf.sweeps.definition import Sweep, define, defined, narrowed, options_of, read_sweep
from jaxconf.sweeps.queue import Status, statuses, work

TRIES, PATIENCE = 3, 60.0


def sweep(
    definition: str | Path,
    out: str | Path | None = None,
    *,
    tries: int = TRIES,
    patience: float = PATIENCE,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Status]:
    """Run cells of a sweep until all of its cells are finished or have failed for good.

    Returns the state of each cell then. Each cell is the run of an analysis. This call is one worker; any number of
    workers may be started on the same folder, at any time. `definition`: a TOML file with lists of what is to be
    combined (docs/sweeps.md). `out`: the folder that the workers share; runs/NAME by default, NAME being the file's.
    `tries`: how many failed attempts make a cell fail for good. `patience`: seconds without a sign of life after which
    another worker counts as dead and its cell is taken over. `progress`: as for `jaxconf.analyze`, with the cell's name
    before the stage. `say`: called with a sentence for each cell that this worker finishes or fails at. Raises
    InputError for a definition that no worker could run, and for a folder that cannot be used or holds another sweep.
    """
    definition = Path(definition)
    out = Path(out) if out else Path("runs") / definition.stem
    _check(tries, patience)
    asked = read_sweep(definition)
    cells = narrowed(asked)
    for cell in cells.cells.values():
        parse(options_of(cell, out))
    with _usable(out), only_first_writes(out) as folder:
        define(asked, folder)
        if not first():
            return _follow(cells, folder)

        def run_cell(name: str, place: Path) -> None:
            told_json(lambda: {"cell": name})
            _run_cell(cells, name, place, lambda what, done, total: progress(f"{name}: {what}", done, total))

        found = work(asked, folder, run_cell, tries, patience, say)
        told_json(lambda: {"end": {name: dataclasses.asdict(status) for name, status in found.items()}})
        return found


def sweep_status(out: str | Path, *, tries: int = TRIES, patience: float = PATIENCE) -> dict[str, Status]:
    """The state of each cell of the sweep in a folder; `tries` and `patience` as for `jaxconf.sweep`.

    Raises InputError if the folder holds no sweep.
    """
    _check(tries, patience)
    with _usable(Path(out)):
        return statuses(defined(Path(out)), Path(out), tries, patience)


def _check(tries: int, patience: float) -> None:
    if tries < 1:
        raise InputError(f"--tries is {tries}; give at least 1")
    if not 0 < patience < 10**6:
        raise InputError(f"--patience is {patience:g}; give seconds, above 0 and below a million")


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Turns errors of the file system into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot be used ({error.strerror}); check that it can be read and written, and start again"
        ) from error


def _follow(asked: Sweep, scratch: Path) -> dict[str, Status]:
    """Run the cells that the first host of this worker takes, together with that host.

    Returns the state of each cell at the end.
    """
    while name := (message := told_json(lambda: None)).get("cell"):
        with contextlib.suppress(Exception):  # the same error occurs on the first host, which records it
            _run_cell(asked, name, scratch / "cell", lambda what, done, total: None)
    return {name: Status(**status) for name, status in message["end"].items()}


def _run_cell(asked: Sweep, name: str, place: Path, progress: Progress) -> None:
    try:
        run(options_of(asked.cells[name], place), progress)
    finally:
        jax.clear_caches()

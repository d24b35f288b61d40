"""Running a sweep: in this process, or on the workers of a cluster; and the state of all cells."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxconf.measure.run import parse, run
from jaxconf.models.errors import InputError
from jaxconf.results.run_folder import writable
from jaxconf.runtime.lock import contents, locked
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.signals import signals
from jaxconf.sweeps.cells import LOCK, CalledOff, Run, Status, attempt, lost, opened, statuses, tidy
from jaxconf.sweeps.definition import define, defined, narrowed, options_of, read_sweep
from jaxconf.sweeps.dispatch import STOPPING, run_on_workers

TRIES = 3
_compiled_for: dict[str, str] = {}  # the model whose programs this process holds


def sweep(
    definition: str | Path,
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    slurm: str | None = None,
    tries: int = TRIES,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Status]:
    """Run the cells of a sweep until each is finished or has failed for good; returns the state of each.

    A cell is the run of an analysis. By default this process runs one after the other. `workers`: processes on this
    machine that share its devices; `scheduler`: the address of a Dask cluster; `slurm`: what a worker is to be for
    Slurm, as for `jaxconf.runtime.workers.on_slurm`. `definition`: a TOML file with lists of what is to be combined
    (docs/sweeps.md). `out`: the folder of the sweep; runs/NAME by default, NAME being the file's. `tries`: how many
    failures make a cell fail for good. `progress`: as for `jaxconf.analyze`, with the cell's name before the stage, and
    called only without workers. `say`: called with a sentence for each attempt at a cell that ends. Ctrl-C lets the
    cells finish the windows that they are at, and raises KeyboardInterrupt then; a second one raises it at once. Raises
    InputError for a definition that cannot be run, if more than one kind of workers is given, for a cluster that
    cannot be had, and for a folder that cannot be used, that another command uses, or that holds another sweep.
    """
    definition = Path(definition)
    out = Path(out) if out else Path("runs") / definition.stem
    _check(tries)
    given = {"--workers": workers, "--scheduler": scheduler, "--slurm": slurm}
    where = {option: value for option, value in given.items() if value is not None}
    if len(where) > 1:
        raise InputError(f"{' and '.join(where)} name different workers; give one of them")
    asked = read_sweep(definition)
    cells = narrowed(asked)
    for cell in cells.values():
        parse(options_of(cell, out))
    runs = {name: functools.partial(run_cell, cell, out.resolve() / "counts") for name, cell in cells.items()}
    with _usable(out), writable(out), locked(out / LOCK) as tell:
        if tell is None:
            by = contents(out / LOCK).get("process", "of another user")
            raise InputError(f"another jaxconf sweep ({by}) works on {out}; wait for it, or stop it")
        define(asked, out)
        opened(out)
        lost(out, runs)  # whoever worked on them did so for a command that has ended
        if where:
            run_on_workers(runs, cells, out.resolve(), tries, where, say, tell)
        else:
            run_in_turn(runs, out, tries, progress, say)
        tidy(out)
        return statuses(runs, out, tries)


def run_cell(cell: Mapping[str, Any], counts: Path, place: Path, progress: Progress) -> None:
    """Write the run of a cell into the folder `place`. `counts`: a folder for the token counts that all cells share.

    Compiled programs are kept for the next cell if that is of the same model.
    """
    if cell["model"] != _compiled_for.get("model"):
        jax.clear_caches()
    _compiled_for["model"] = cell["model"]
    run(options_of(cell, place), progress, kept_counts=counts)


def run_in_turn(
    runs: Mapping[str, Run], folder: Path, tries: int, progress: Progress, say: Callable[[str], None]
) -> None:
    """Make attempts at the cells, in this process, until each is finished or has failed for good."""
    with signals() as caught:

        def report(name: str, what: str, done: int, total: int) -> None:
            if caught:
                say(STOPPING)
                raise CalledOff
            progress(f"{name}: {what}", done, total)

        while waiting := [item for item in statuses(runs, folder, tries).items() if item[1].state == "waiting"]:
            for name, status in waiting:  # those that fail come again after all others
                if said := attempt(folder, name, status.attempts + 1, runs[name], functools.partial(report, name)):
                    say(f"{name}: {said}")
                if caught:
                    raise KeyboardInterrupt


def sweep_status(out: str | Path, *, tries: int = TRIES) -> dict[str, Status]:
    """The state of each cell of the sweep in a folder, on any machine that has the folder; `tries` as for
    `jaxconf.sweep`.

    Raises InputError if the folder holds no sweep.
    """
    _check(tries)
    with _usable(Path(out)):
        return statuses(defined(Path(out)), Path(out), tries)


def _check(tries: int) -> None:
    if tries < 1:
        raise InputError(f"--tries is {tries}; give at least 1")


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Turns errors of the file system into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot be used ({error.strerror}); check that it can be read and written, and start again"
        ) from error

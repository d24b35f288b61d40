"""The queue of a sweep: a shared folder from which any number of workers take cells.

A sweep's folder holds

    sweep.json                      the definition
    cells/CELL/                     a finished run, as `jaxconf analyze` writes it
    queue/CELL.K.claim              the worker of attempt K, which touches this file again and again while it works
    queue/CELL.K.failed             why that attempt failed
    queue/CELL.K.given              the claim of an attempt that Ctrl-C interrupted, so that the cell waits again
    queue/CELL.K.work/              the run that the attempt is writing

Only one worker can create a claim. If a claim has not been touched for too long, its worker counts as dead, and one
worker creates the claim of attempt K + 1. A finished run is put in place by renaming its folder, which fails if there
is a run already. So each cell finishes once, even if a worker that counted as dead comes back.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.sweeps.definition import CELLS, QUEUE, Sweep

BEATS = 6  # how often a worker touches its claim in the time after which it would count as dead
MOST_DEATHS = 20  # a cell is given up if more workers than this died at it
State = Literal["finished", "running", "waiting", "failed"]
Run = Callable[[str, Path], None]
"""Writes the run of a cell into a folder, which may hold the finished windows of an attempt that died."""


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a cell."""

    state: State
    attempts: int
    worker: str = ""
    seconds: float = 0.0  # since a running attempt began
    message: str = ""  # of the last attempt that failed


def statuses(sweep: Sweep, folder: Path, tries: int, patience: float) -> dict[str, Status]:
    """The state of every cell, by name.

    `tries`: how many failed attempts make a cell fail for good. `patience`: seconds after which a worker that has not
    touched its claim counts as dead.
    """
    now = _clock(folder)
    attempts: dict[str, dict[int, dict[str, os.DirEntry[str]]]] = {}
    with os.scandir(folder / QUEUE) as entries:
        for entry in entries:
            if found := re.fullmatch(r"(.+)\.(\d+)\.(claim|failed|given)", entry.name):
                attempts.setdefault(found[1], {}).setdefault(int(found[2]), {})[found[3]] = entry
    return {name: _status(attempts.get(name, {}), folder / CELLS / name, now, tries, patience) for name in sweep.cells}


def _status(
    attempts: Mapping[int, Mapping[str, "os.DirEntry[str]"]], cell: Path, now: float, tries: int, patience: float
) -> Status:
    last = max(attempts, default=0)
    if cell.is_dir():
        return Status("finished", last)
    failures = [k for k in sorted(attempts) if "failed" in attempts[k]]
    message = str(_read(attempts[failures[-1]]["failed"].path).get("message", "")) if failures else ""
    claim = attempts.get(last, {}).get("claim")
    if claim and last not in failures:
        about = _read(claim.path)
        try:
            silent = now - claim.stat().st_mtime
        except OSError:  # the claim was given back in the meantime
            silent = 0.0
        if silent < max(patience, float(about.get("patience", 0))):
            seconds = max(0.0, now - float(about.get("begun", now)))
            return Status("running", last, str(about.get("worker", "")), seconds, message)
    if len(failures) >= tries:
        return Status("failed", last, message=message)
    deaths = sum("claim" in files and k not in failures for k, files in attempts.items())
    if deaths > MOST_DEATHS:
        return Status("failed", last, message=f"{deaths} workers died at this cell")
    return Status("waiting", last, message=message)


def work(
    sweep: Sweep, folder: Path, run: Run, tries: int, patience: float, say: Callable[[str], None]
) -> dict[str, Status]:
    """Take cells and run them until every cell, also those of other workers, is finished or has failed for good.

    Returns the states of the cells then. `run`: writes the run of a cell. `tries`, `patience`: as for `statuses`.
    `say`: called with a sentence for each cell that this worker finishes or fails at.
    """
    worker = f"{socket.gethostname()}:{os.getpid()}"
    while True:
        found = statuses(sweep, folder, tries, patience)
        waiting = [name for name, status in found.items() if status.state == "waiting"]
        waiting.sort(key=lambda name: found[name].attempts)  # cells that failed, or at which a worker died, come last
        if not waiting and not any(status.state == "running" for status in found.values()):
            for left in (folder / QUEUE).glob("*.work"):  # left by dead workers whose cells others finished
                shutil.rmtree(left, ignore_errors=True)
            return found
        for name in waiting:
            attempt = found[name].attempts + 1
            if _claimed(folder, name, attempt, {"worker": worker, "patience": patience}):
                _attempt(folder, name, attempt, run, patience, say)
                break
        else:
            time.sleep(min(patience / BEATS, 5.0))


def _claimed(folder: Path, name: str, attempt: int, about: Mapping[str, Any]) -> bool:
    """Create the claim of an attempt at a cell. Returns False if another worker was first."""
    text = json.dumps({**about, "begun": _clock(folder)})
    try:
        with (folder / QUEUE / f"{name}.{attempt}.claim").open("x") as claim:
            claim.write(text)
    except FileExistsError:
        return False
    return True


def _attempt(folder: Path, name: str, attempt: int, run: Run, patience: float, say: Callable[[str], None]) -> None:
    """Run a cell that this worker has claimed, and record how the attempt ends."""
    here = folder / QUEUE / f"{name}.{attempt}"
    claim, place = here.with_name(f"{here.name}.claim"), here.with_name(f"{here.name}.work")
    begun = time.perf_counter()
    try:
        with _alive(claim, patience / BEATS):
            before = here.with_name(f"{name}.{attempt - 1}.work")
            with contextlib.suppress(OSError):
                before.rename(place)  # keeps the windows that a dead worker has finished
            run(name, place)
            for left in place.glob(".*.tmp"):  # left by a worker that died while it wrote
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            place.rename(folder / CELLS / name)
    except KeyboardInterrupt:
        claim.rename(claim.with_suffix(".given"))
        raise
    except (Exception, SystemExit) as error:
        # The next attempt takes over what is in this folder, and a failed attempt shall leave it nothing.
        left = here.with_name(f".{uuid.uuid4().hex}.tmp")
        with contextlib.suppress(OSError):
            place.rename(left)
        shutil.rmtree(left, ignore_errors=True)
        if (folder / CELLS / name).is_dir() or here.with_name(f"{name}.{attempt + 1}.claim").exists():
            say(f"{name}: another worker has it")
        else:
            message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            with replacing(here.with_name(f"{here.name}.failed")) as path:
                path.write_text(json.dumps({"message": message}))
            say(f"{name}: failed, {message}")
        return
    say(f"{name}: finished in {time.perf_counter() - begun:.0f} s")


@contextlib.contextmanager
def _alive(claim: Path, every: float) -> Iterator[None]:
    """Touches the claim `every` so many seconds within the block."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(every):
            with contextlib.suppress(OSError):
                os.utime(claim)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _clock(folder: Path) -> float:
    """The time in seconds by the clock of the folder's file system, which is the same for all workers."""
    file = folder / QUEUE / f".{uuid.uuid4().hex}.tmp"
    file.touch()
    try:
        return file.stat().st_mtime
    finally:
        file.unlink()


def _read(path: str) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(path).read_text("utf-8")))
    except (OSError, ValueError):
        return {}

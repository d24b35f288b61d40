"""The cells of a sweep as files. Whoever runs a cell, in whatever process, leaves its traces here and nowhere else.

A sweep's folder holds

    sweep.json                      the definition
    cells/CELL/                     a finished run, as `jaxconf analyze` writes it
    attempts/CELL.K.begun           attempt K at a cell: which worker makes it, or made it
    attempts/CELL.K.failed          why it failed, if it did
    attempts/CELL.K.died            or that its worker died
    attempts/.CELL.K.work/          the run that it writes
    counts/                         token counts, which all cells share
    .lock                           which the command that works on the sweep holds

A finished run is put in place by renaming its folder, which fails if there is a run already, so a cell appears whole
and once. An attempt whose record (.begun) is gone has been called off: its worker stops when it next reports progress,
after the window that it is at. The next attempt takes over the finished windows of the one before.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.runtime.lock import contents, held, holder, this_process
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.resume import RESUME

CELLS, ATTEMPTS, LOCK = "cells", "attempts", ".lock"
EARLIER = "queue"  # the name that earlier versions gave to the folder of attempts; .claim was their .begun
FREE_DEATHS = 1  # so many workers may die at a cell before that counts as the cell's failure
State = Literal["finished", "running", "waiting", "failed"]
Run = Callable[[Path, Progress], None]
"""Writes the run of a cell into a folder, which may hold the finished windows of an attempt that ended early."""


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a cell."""

    state: State
    attempts: int
    worker: str = ""
    seconds: float = 0.0  # since a running attempt began
    message: str = ""  # of the last attempt that failed
    deaths: int = 0  # of workers at this cell


class CalledOff(Exception):
    """The attempt is to end here."""


def statuses(names: Iterable[str], folder: Path, tries: int) -> dict[str, Status]:
    """The state of every cell, by name. `tries`: how many failures make a cell fail for good."""
    found, alive, now = _records(folder, names), held(folder / LOCK), time.time()
    return {name: _status(of, folder / CELLS / name, tries, alive, now) for name, of in found.items()}


def _status(of: Mapping[int, Mapping[str, Path]], cell: Path, tries: int, alive: bool, now: float) -> Status:
    last = max(of, default=0)
    if cell.is_dir():
        return Status("finished", last)
    failures = [of[k]["failed"] for k in sorted(of) if "failed" in of[k]]
    deaths = sum("died" in files for files in of.values())
    message = f"{deaths} workers died at this cell; does it need more memory?" if deaths > FREE_DEATHS else ""
    if failures:
        message = str(contents(failures[-1]).get("message", ""))
    if alive and last and (record := _open_record(of[last])):
        with contextlib.suppress(FileNotFoundError):  # it has ended in the meantime
            since, worker = now - record.stat().st_mtime, str(contents(record).get("process", ""))
            return Status("running", last, worker, max(0.0, since), message, deaths)
    counted = len(failures) + max(0, deaths - FREE_DEATHS)
    return Status("failed" if counted >= tries else "waiting", last, message=message, deaths=deaths)


def finished(names: Iterable[str], folder: Path) -> list[str]:
    """The cells whose runs are finished."""
    return [name for name in names if (folder / CELLS / name).is_dir()]


def _records(folder: Path, names: Iterable[str]) -> dict[str, dict[int, dict[str, Path]]]:
    """Cell → number of an attempt → the suffix of each file about it → the file. For all `names`, in one look."""
    found: dict[str, dict[int, dict[str, Path]]] = {name: {} for name in names}
    place = next((folder / name for name in (ATTEMPTS, EARLIER) if (folder / name).is_dir()), None)
    for entry in os.scandir(place) if place else ():
        name, _, rest = entry.name.rpartition(".")
        name, _, number = name.rpartition(".")
        if name in found and number.isdecimal() and rest in ("begun", "claim", "failed", "died", "given"):
            suffix = "begun" if rest == "claim" else rest
            found[name].setdefault(int(number), {})[suffix] = Path(entry.path)
    return found


def _open_record(files: Mapping[str, Path]) -> Path | None:
    """The record of an attempt that nothing says the end of."""
    return files.get("begun") if not {"failed", "died"} & files.keys() else None


def _unended(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """The records of attempts of which nothing says the end, at cells that are not finished."""
    for name, of in _records(folder, names).items():
        records = [record for files in of.values() if (record := _open_record(files))]
        if records and not (folder / CELLS / name).is_dir():
            yield from records


def attempt(folder: Path, name: str, number: int, run: Run, progress: Progress = lambda what, done, total: None) -> str:
    """Make an attempt at a cell, in the process that calls this. Returns how it ended, for people.

    "" if it made none, because the cell is finished or because a worker has died at it, which is recorded here, or if
    the attempt was called off. Nothing but Ctrl-C is raised: `statuses` says how the cell stands.
    """
    if (folder / CELLS / name).is_dir() or lost(folder, [name]):
        return ""
    record, begun = folder / ATTEMPTS / f"{name}.{number}.begun", time.perf_counter()
    _write(record, {"process": this_process()})
    place = _taken_over(folder, name, number)

    def watched(what: str, done: int, total: int) -> None:
        if not record.exists():
            raise CalledOff
        progress(what, done, total)

    try:
        run(place, watched)
        for left in place.glob(".*.tmp"):  # left by a worker that died while it wrote
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        place.rename(folder / CELLS / name)
    except (CalledOff, KeyboardInterrupt) as stopped:
        record.unlink(missing_ok=True)
        if isinstance(stopped, KeyboardInterrupt):
            raise
        return ""
    except (Exception, SystemExit) as error:
        if (folder / CELLS / name).is_dir() or not record.exists():
            return ""  # the cell is another worker's
        _discard(place)  # the next attempt must not continue from what failed
        end(folder, name, number, str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
        return ending(folder, name, number)
    return f"finished in {time.perf_counter() - begun:.0f} s"


def end(folder: Path, name: str, number: int, message: str = "") -> None:
    """Record that an attempt failed, with a message, or that all who were to make it died before they could."""
    _write(folder / ATTEMPTS / f"{name}.{number}.{'failed' if message else 'died'}", {"message": message})


def ending(folder: Path, name: str, number: int) -> str:
    """How an attempt ended, for people; "" if it goes on or was called off."""
    if (folder / CELLS / name).is_dir():
        return "finished"
    if (folder / ATTEMPTS / f"{name}.{number}.died").exists():
        return "its worker died"
    message = contents(folder / ATTEMPTS / f"{name}.{number}.failed").get("message")
    return f"failed, {message}" if message else ""


def lost(folder: Path, names: Iterable[str]) -> bool:
    """Record that the workers of these cells are dead, and return whether any was.

    A death after which more windows are finished than before is none of the cell's doing, and is not counted.
    """
    ended = list(_unended(folder, names))
    for record in ended:
        windows = record.with_name(f".{record.stem}.work").glob(f"{RESUME}/**/*.npz")
        with contextlib.suppress(FileNotFoundError):  # its worker was not dead, and has finished
            if any(file.stat().st_mtime > record.stat().st_mtime for file in windows):
                record.unlink()
            else:
                record.rename(record.with_suffix(".died"))
    return bool(ended)


def call_off(folder: Path, names: Iterable[str]) -> set[str]:
    """Ask the workers of these cells to stop after the window that they are at; returns the cells that had one."""
    records = list(_unended(folder, names))
    for record in records:
        record.unlink(missing_ok=True)
    return {record.stem.rpartition(".")[0] for record in records}


def _taken_over(folder: Path, name: str, number: int) -> Path:
    """The folder for the run of an attempt, with what the attempts before it have left."""
    place = folder / ATTEMPTS / f".{name}.{number}.work"
    before = (place.with_name(f"{dot}{name}.{k}.work") for k in range(number, 0, -1) for dot in (".", ""))
    if (latest := next((path for path in before if path.is_dir()), place)) != place:
        with contextlib.suppress(OSError):
            latest.rename(place)
    return place


def _discard(place: Path) -> None:
    left = place.with_name(f".{uuid.uuid4().hex}.tmp")
    with contextlib.suppress(OSError):
        place.rename(left)
    shutil.rmtree(left, ignore_errors=True)


def time_left(found: Mapping[str, Status], folder: Path) -> float | None:
    """Seconds until all cells are done, at the pace of the command that works on the folder; None if unknown."""
    since = holder(folder / LOCK).get("since")
    if since is None:
        return None
    done = sum((folder / CELLS / name).stat().st_mtime >= since for name in found if found[name].state == "finished")
    left = sum(status.state in ("running", "waiting") for status in found.values())
    return (time.time() - since) / done * left if done else None


def opened(folder: Path) -> None:
    """Make what a sweep's folder needs; what an earlier version left is gone on with."""
    (folder / CELLS).mkdir(exist_ok=True)
    if (folder / EARLIER).is_dir() and not (folder / ATTEMPTS).exists():
        (folder / EARLIER).rename(folder / ATTEMPTS)
    (folder / ATTEMPTS).mkdir(exist_ok=True)


def tidy(folder: Path) -> None:
    """Delete what attempts have left, once every cell is finished or has failed for good."""
    for left in (folder / ATTEMPTS).glob("*.work"):
        shutil.rmtree(left, ignore_errors=True)


def _write(file: Path, value: Mapping[str, Any]) -> None:
    with replacing(file) as path:
        path.write_text(json.dumps(value), encoding="utf-8")

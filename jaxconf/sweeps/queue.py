"""Sweeps: many analyses, and a queue on a shared folder from which any number of workers take them.

A sweep's folder holds

    sweep.json                      what is to be done; whoever comes with another definition is refused
    cells/CELL/                     a finished run, as `jaxconf analyze` writes it
    queue/CELL.K.claim              the K-th attempt: which worker; touched again and again while it is at work
    queue/CELL.K.failed             why that attempt failed
    queue/CELL.K.given              the claim of an attempt that was interrupted, and is given back
    queue/CELL.K.work/              where it writes

A claim is a file that only one worker can create, and an attempt that has gone silent is followed by attempt K + 1, which only one worker can
create either. A finished run gets its place by renaming its folder, which fails where one stands: so each cell finishes once, even if a
worker that was thought dead comes back.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import socket
import threading
import time
import tomllib
import types
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from jaxconf.models.errors import InputError, nearest
from jaxconf.models.files import replacing
from jaxconf.results.run_folder import writable

AXES = {"models": "model", "revisions": "revision", "data": "data", "ablations": "ablation", "layers": "layer"}
"""What a sweep goes through, as its file and as `jaxconf analyze` name it."""
DEFINITION, CELLS, QUEUE = "sweep.json", "cells", "queue"
BEATS = 6  # signs of life in the time after which a worker counts as dead
MOST_DEATHS = 20  # of workers at one cell: then it is taken for the cell that kills them
State = Literal["finished", "running", "waiting", "failed"]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is to be done: cell → the options of `jaxconf analyze` that make it."""

    cells: Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Status:
    """How a cell stands."""

    state: State
    attempts: int
    worker: str = ""
    seconds: float = 0.0  # since a running attempt began
    message: str = ""  # of the last attempt that failed


def read_sweep(file: Path, options: Mapping[str, Any]) -> Sweep:
    """The cells of a TOML file with lists of `models`, `revisions`, `data`, `ablations` and `layers`, of which `models` must be there, and a
    table `options` of what else `jaxconf analyze` takes; `options`: those that it knows, with their types.

    Raises InputError for a file that cannot be read, and for names and values that it cannot have.
    """
    try:
        given = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a TOML file that defines a sweep") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid TOML ({error}); mend it") from error
    fixed = given.pop("options", {})
    if not isinstance(fixed, dict):
        raise InputError(f"options of {file} is {fixed!r}; give a table, [options]")
    for name in given:
        if name not in AXES:
            raise InputError(
                f"{file} names {name!r}; a sweep has {', '.join(AXES)} and options, and the nearest is {nearest(name, AXES)!r}"
            )
        if not isinstance(given[name], list) or not given[name] or len(set(map(str, given[name]))) < len(given[name]):
            raise InputError(f"{name} of {file} is {given[name]!r}; give a list with each value once")
    if "models" not in given:
        raise InputError(f"{file} names no models; give a list, such as models = ['EleutherAI/pythia-70m']")
    known = options.keys() - set(AXES.values())
    for name, value in fixed.items():
        if name not in known:
            raise InputError(f"options of {file} names {name!r}; the nearest that a sweep may set is {nearest(name, known)!r}")
        if not _fits(value, options[name]):
            raise InputError(f"{name} of {file} is {value!r}; jaxconf analyze --help says what it may be")
    cells = {}
    for place, values in enumerate(itertools.product(*given.values())):
        chosen = dict(zip((AXES[name] for name in given), values, strict=True))
        for name, value in chosen.items():
            if not _fits(value, options[name]):
                raise InputError(f"{file} has the {name} {value!r}; jaxconf analyze --help says what it may be")
        words = [str(chosen.get(name, "")) for name in AXES.values()]
        slug = re.sub(r"[^\w.]+", "-", "-".join(Path(word).name for word in words if word)).strip("-.")[:100]
        cells[f"{place:04d}-{slug}"] = {
            **fixed,
            **{name: _anywhere(value) if name in ("model", "data") else value for name, value in chosen.items()},
        }
    return Sweep(cells)


def _anywhere(path: str) -> str:
    """A local file or folder by a name that holds in any working directory; other text as it is."""
    local = path not in ("bundled", "stdlib") and Path(path).expanduser().exists()
    return str(Path(path).expanduser().resolve()) if local else path


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from TOML can be one of this type."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in parts
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(part, parts[0]) for part in value)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is (str if hint is Path else hint)


def define(sweep: Sweep, folder: Path) -> None:
    """Write the definition into the folder, or see that it is the one that stands there. Raises InputError if it is another."""
    with writable(folder):
        for name in (CELLS, QUEUE):
            (folder / name).mkdir(exist_ok=True)
        text = json.dumps(sweep.cells, indent=1, sort_keys=True) + "\n"
        own = folder / f".{uuid.uuid4().hex}.tmp"
        own.write_text(text, encoding="utf-8")
        try:
            with contextlib.suppress(FileExistsError):
                os.link(own, folder / DEFINITION)  # whole, and only where there is none
        finally:
            own.unlink()
    if (folder / DEFINITION).read_text("utf-8") != text:
        raise InputError(f"{folder} holds a sweep with another definition; give another --out")


def defined(folder: Path) -> Sweep:
    """The sweep of a folder. Raises InputError if there is none."""
    try:
        return Sweep(json.loads((folder / DEFINITION).read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no sweep; give the folder of one") from error


def statuses(sweep: Sweep, folder: Path, tries: int, patience: float) -> dict[str, Status]:
    """How every cell stands. `tries`: how many attempts may fail; `patience`: seconds of silence after which a worker counts as dead."""
    now = _clock(folder)
    attempts: dict[str, dict[int, dict[str, os.DirEntry[str]]]] = {}
    with os.scandir(folder / QUEUE) as entries:
        for entry in entries:
            if found := re.fullmatch(r"(.+)\.(\d+)\.(claim|failed|given)", entry.name):
                attempts.setdefault(found[1], {}).setdefault(int(found[2]), {})[found[3]] = entry
    return {name: _status(attempts.get(name, {}), folder / CELLS / name, now, tries, patience) for name in sweep.cells}


def _status(attempts: Mapping[int, Mapping[str, "os.DirEntry[str]"]], cell: Path, now: float, tries: int, patience: float) -> Status:
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
        except OSError:  # given back in the meantime
            silent = 0.0
        if silent < max(patience, float(about.get("patience", 0))):
            return Status("running", last, str(about.get("worker", "")), max(0.0, now - float(about.get("begun", now))), message)
    if len(failures) >= tries:
        return Status("failed", last, message=message)
    deaths = sum("claim" in files and k not in failures for k, files in attempts.items())
    if deaths > MOST_DEATHS:
        return Status("failed", last, message=f"{deaths} workers died at it")
    return Status("waiting", last, message=message)


def work(
    sweep: Sweep,
    folder: Path,
    run: Callable[[Mapping[str, Any], Path], None],
    tries: int,
    patience: float,
    say: Callable[[str], None],
) -> dict[str, Status]:
    """Take cells until all are finished or have failed for good, and wait for those that other workers have; how they stand then.

    `run`: writes the run of a cell's options into a folder. A failure is recorded with its message, and said.
    """
    worker = f"{socket.gethostname()}:{os.getpid()}"
    while True:
        found = statuses(sweep, folder, tries, patience)
        waiting = [name for name, status in found.items() if status.state == "waiting"]
        waiting.sort(key=lambda name: found[name].attempts)  # what fails or kills comes after what was not tried
        if not waiting and not any(status.state == "running" for status in found.values()):
            for left in (folder / QUEUE).glob("*.work"):  # of workers that died after another had finished their cell
                shutil.rmtree(left, ignore_errors=True)
            return found
        for name in waiting:
            attempt = found[name].attempts + 1
            if _claimed(folder, name, attempt, {"worker": worker, "patience": patience}):
                _attempt(sweep, folder, name, attempt, run, patience, say)
                break
        else:
            time.sleep(min(patience / BEATS, 5.0))


def _claimed(folder: Path, name: str, attempt: int, about: Mapping[str, Any]) -> bool:
    text = json.dumps({**about, "begun": _clock(folder)})
    try:
        with (folder / QUEUE / f"{name}.{attempt}.claim").open("x") as claim:
            claim.write(text)
    except FileExistsError:
        return False
    return True


def _attempt(
    sweep: Sweep,
    folder: Path,
    name: str,
    attempt: int,
    run: Callable[[Mapping[str, Any], Path], None],
    patience: float,
    say: Callable[[str], None],
) -> None:
    """One cell, from its claim to its end."""
    here = folder / QUEUE / f"{name}.{attempt}"
    claim, place = here.with_name(f"{here.name}.claim"), here.with_name(f"{here.name}.work")
    begun = time.perf_counter()
    try:
        with _alive(claim, patience / BEATS):
            before = here.with_name(f"{name}.{attempt - 1}.work")
            with contextlib.suppress(OSError):
                before.rename(place)  # what a dead worker had finished is read, not done again
            run(sweep.cells[name], place)
            for left in place.glob(".*.tmp"):  # of a worker that died while it wrote
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            place.rename(folder / CELLS / name)
    except KeyboardInterrupt:
        claim.rename(claim.with_suffix(".given"))
        raise
    except (Exception, SystemExit) as error:
        # Out of the way first: the next attempt takes the folder over as soon as it may, and would lose what it writes there.
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
    """Touches the claim in the background."""
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
    """The time by the clock of whatever holds the folder, which all workers share."""
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


def finished(sweep: Sweep, folder: Path) -> Sequence[str]:
    """The cells whose runs are there."""
    return [name for name in sweep.cells if (folder / CELLS / name).is_dir()]

"""Run folders: what may be written where, and how a finished run gets there whole."""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import first, told


@contextlib.contextmanager
def claim(folder: Path, mark: str, force: bool) -> Iterator[None]:
    """`writable`, for a folder that must not hold `mark`, the file that makes it a result, unless `force` is given."""

    def check() -> bytes:
        try:
            if (folder / mark).is_dir():
                raise InputError(f"{folder / mark} is a folder; give another --out")
            if (folder / mark).exists() and not force:
                raise InputError(f"{folder / mark} exists already; give another --out, or --force to replace it")
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}); give another --out") from error
        return b""

    told(check)
    with writable(folder):
        yield


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make `folder` and see that it can be written, before any long work; if that work fails, a folder made for it and still empty goes.

    Raises InputError if it cannot be written.
    """

    def make() -> bytes:
        try:
            made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return b"made" if made else b""
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}); give another --out") from error

    made = told(make)
    try:
        yield
    finally:
        if made and first() and not any(folder.iterdir()):
            folder.rmdir()


def save_result(
    found: Any, name: str, verdict: Sequence[str], figures: Callable[[Any, Path], Any], page: Callable[[Any, Any, Path], Any], folder: Path
) -> None:
    """Write name_….parquet for each table of a result, name.json (the facts, and the verdict in words), the figures and the page that shows them, as
    `jaxconf.report.run.save_run` does.

    `found`: a dataclass of tables and `facts`; a field that is another such dataclass, or None, adds its tables under its name.
    """
    with staging(folder) as temporary:
        for table, frame in _tables(found, f"{name}_"):
            frame.to_parquet(temporary / f"{table}.parquet")
        (temporary / f"{name}.json").write_text(json.dumps({"verdict": list(verdict), **found.facts}, indent=1) + "\n")
        page(found, figures(found, temporary), temporary)
        written = {file.name for file in temporary.iterdir()}
    for file in folder.glob(f"{name}_*"):  # of a run that stood here before
        if file.name not in written:
            file.unlink()


def _tables(found: Any, prefix: str) -> Iterator[tuple[str, pd.DataFrame]]:
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if isinstance(value, pd.DataFrame):
            yield f"{prefix}{field.name}", value
        elif dataclasses.is_dataclass(value):
            yield from _tables(value, f"{prefix}{field.name}_")


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as temporary:
        there = Path(temporary)
        yield there
        for file in sorted(there.iterdir()):
            file.replace(folder / file.name)

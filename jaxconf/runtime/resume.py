"""Finished parts of a long measurement, kept in files, so that an interrupted call can be resumed."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxconf.models.files import replacing
from jaxconf.runtime.hosts import first, told

RESUME = ".partial"  # the folder in a run folder for the finished windows of an unfinished analysis


def folder_of(parent: Path, *depends_on: Any) -> Path:
    """Make and return a folder in `parent` for the parts of one measurement.

    Its name is a hash of everything that the results depend on, so that no measurement resumes from the parts of
    another.
    """
    key = hashlib.sha256()
    for value in depends_on:
        key.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    folder = parent / key.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def resumed(file: Path | None, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays in `file` if it exists, and otherwise those that `compute` returns, which are then saved to `file`.

    If `file` is None, nothing is saved.
    """
    if file and (there := told(lambda: file.read_bytes() if file.is_file() else b"")):
        with np.load(io.BytesIO(there)) as saved:
            return dict(saved)
    found = compute()
    if file and first():
        with replacing(file) as path, path.open("wb") as out:
            np.savez(out, allow_pickle=False, **found)
    return found

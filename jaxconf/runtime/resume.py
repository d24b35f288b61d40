"""Finished parts of a long measurement, kept in files, so that a call goes on where an interrupted one stopped."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxconf.models.files import replacing
from jaxconf.runtime.hosts import first, told


def folder_of(parent: Path, *depends_on: Any) -> Path:
    """A folder in `parent` for the parts of one measurement, named after everything that its results depend on.

    So no call ever takes the parts of another measurement for its own.
    """
    key = hashlib.sha256()
    for value in depends_on:
        key.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    folder = parent / key.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def resumed(file: Path | None, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `file` holds; if it does not exist, what `compute` gives, which is then written to it. Without a file, what
    `compute` gives.
    """
    if file and (there := told(lambda: file.read_bytes() if file.is_file() else b"")):
        with np.load(io.BytesIO(there)) as saved:
            return dict(saved)
    found = compute()
    if file and first():
        with replacing(file) as path, path.open("wb") as out:
            np.savez(out, allow_pickle=False, **found)
    return found

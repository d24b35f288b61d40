"""Finished parts of a long measurement, kept in files so that the same call goes on where an interrupted one stopped."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.models.files import replacing
from jaxconf.runtime.hosts import first, told


class Part(NamedTuple):
    """What was found in a group of windows."""

    sums: dict[str, np.ndarray]  # metric → [s n], summed over each window's kept positions
    positions: pd.DataFrame  # a row per kept position, with the unablated figures
    audit: dict[str, np.ndarray]  # of the adaptive engine, if that was at work


def partial_folder(parent: Path, *parts: Any) -> Path:
    """A folder in `parent` named after everything that the results depend on, so that no other run's parts are ever taken for these."""
    key = hashlib.sha256()
    for part in parts:
        key.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    folder = parent / key.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kept_part(file: Path | None, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `file` holds, or else what `compute` gives, which is then put there; without a file it is computed."""
    if file and (there := told(lambda: file.read_bytes() if file.is_file() else b"")):
        with np.load(io.BytesIO(there)) as saved:
            return dict(saved)
    found = compute()
    if file and first():
        with replacing(file) as path, path.open("wb") as out:
            np.savez(out, allow_pickle=False, **found)
    return found

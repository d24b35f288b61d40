"""The cache of compiled programs: what a command compiled, it and later commands on the same machine load.

JAX keeps each program in a file of its own, under a key that covers the program, its options and the version of XLA. It
reads the settings when it is imported, so they are set in the environment, which processes that a command starts have
too. Nothing here imports JAX, and importing jaxconf sets nothing: only the command line does.
"""

import contextlib
import hashlib
import os
import platform
import sys
import warnings
from collections.abc import MutableMapping
from pathlib import Path

SWITCH = "JAXCONF_CACHE"  # a folder, or "off"
LARGEST = 2**30  # bytes; when the folder holds more, what was used least recently is deleted down to half of that


def use_cache(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have JAX keep compiled programs in JAXCONF_CACHE, by default the user's cache folder, unless that is "off".

    What the user tells JAX itself (JAX_COMPILATION_CACHE_DIR) is left as it is, and a folder that cannot be written to
    is not used. Several processes may share a folder: a file that another is still writing cannot be unpacked, and its
    program is then compiled, about which JAX's warning is not shown.
    """
    if environment.get(SWITCH) == "off" or "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    # Programs use what the processor has, and loading one that another processor compiled could end the process.
    folder = chosen(environment) / _machine()
    if not can_be_written(folder):
        return
    with contextlib.suppress(FileNotFoundError):  # there is no folder yet, or another process deletes the same files
        _shrink(folder)
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def chosen(environment: MutableMapping[str, str]) -> Path:
    if given := environment.get(SWITCH):
        return Path(given).expanduser().resolve()
    above = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(environment.get("XDG_CACHE_HOME") or above) / "jaxconf"


def _machine() -> str:
    """A name for this kind of processor; a home folder may be shared by several kinds."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    has = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(has.encode()).hexdigest()[:12]}"


def can_be_written(folder: Path) -> bool:
    """Whether files can be written in a folder, or could be if it were made. Makes nothing."""
    there = next((part for part in (folder, *folder.parents) if part.exists()), folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _shrink(folder: Path) -> None:
    """Delete the files that were used least recently if the folder holds more than LARGEST bytes."""
    files = [(file.stat(), file.path) for file in os.scandir(folder) if file.is_file()]
    total = sum(about.st_size for about, _ in files)
    if total <= LARGEST:
        return
    for about, path in sorted(files, key=lambda pair: max(pair[0].st_atime, pair[0].st_mtime)):
        Path(path).unlink()
        total -= about.st_size
        if total <= LARGEST // 2:
            return

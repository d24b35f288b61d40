"""Checkpoints of a training run.

Each is a folder named after its step. It is renamed into its place once it is complete, so none is ever incomplete.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxconf.models.errors import InputError, first_line
from jaxconf.models.mesh import fetched, placed
from jaxconf.runtime.hosts import first, told, told_json

KEPT = 2  # the newest checkpoint, and one to fall back on
DIGESTS = "sha256.json"


def save(folder: Path, step: int, state: Any) -> None:
    """Write a pytree of arrays as the checkpoint of a step, and delete all checkpoints but the newest KEPT.

    With several hosts, only the first one writes. Raises InputError if the checkpoint cannot be written; the earlier
    checkpoints then stay.
    """
    whole = fetched(state)
    told(lambda: _write(folder, step, whole))


def _write(folder: Path, step: int, state: Any) -> bytes:
    target, temporary = (folder / str(step)).absolute(), (folder / f".{step}.tmp").absolute()
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), shutil.disk_usage(temporary).free
        if free < needed:
            raise OSError(f"{free:,} bytes are free and {needed:,} are needed")
        with _silenced("absl", "asyncio"), _checkpointer() as checkpointer:
            checkpointer.save(temporary / "state", state)
        (temporary / DIGESTS).write_text(json.dumps(_digests(temporary)))
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        for old in steps(folder)[:-KEPT]:
            shutil.rmtree(folder / str(old))
        return b""
    except Exception as error:  # the exceptions that the storage layers raise for a full disk have no common type
        shutil.rmtree(temporary, ignore_errors=True)
        saved = steps(folder)
        last = f"the last good one is that of step {saved[-1]}" if saved else "there is no earlier one"
        reason = first_line(error)
        raise InputError(
            f"the checkpoint of step {step} cannot be written to {folder} ({reason}), and {last}; "
            "make room there and go on with --resume"
        ) from error


def _checkpointer() -> ocp.StandardCheckpointer:
    """A checkpointer that does not wait for other hosts."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


@contextlib.contextmanager
def _silenced(*names: str) -> Iterator[None]:
    """Silences these loggers. Orbax raises every failure, so the traceback that its threads log would repeat it."""
    before = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, ascending."""
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.is_dir())


def restore(folder: Path, like: Any) -> tuple[int, Any] | None:
    """The step and the state of the newest good checkpoint, or None if there is none.

    `like`: a pytree of arrays with the shapes, dtypes and shardings of the state; where it has a numpy array, the state
    has one too. A checkpoint whose files have changed is skipped with a warning. With several hosts, the first one
    reads the checkpoint and sends it to the others.
    """
    step = told_json(lambda: _newest(folder))
    if step is None:
        return None
    shapes = jax.tree.map(lambda array: np.empty(array.shape, array.dtype), like)
    if first():
        with _checkpointer() as checkpointer:
            shapes = checkpointer.restore((folder / str(step)).absolute() / "state", shapes)

    def to_its_place(array: Any, of_like: Any) -> Any:
        array = np.frombuffer(told(array.tobytes), array.dtype).reshape(array.shape)
        return placed(array, of_like.sharding) if isinstance(of_like, jax.Array) else array

    return step, jax.tree.map(to_its_place, shapes, like)


def _newest(folder: Path) -> int | None:
    for step in reversed(steps(folder)):
        path = (folder / str(step)).absolute()
        if _intact(path):
            return step
        logging.getLogger(__name__).warning("jaxconf: the checkpoint %s is damaged and is skipped", path)
    return None


def _intact(path: Path) -> bool:
    """Whether a checkpoint's files still have the digests that were recorded when it was written."""
    try:
        return json.loads((path / DIGESTS).read_text()) == _digests(path)
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGESTS)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

"""A file that one process holds at a time, and that says which.

The operating system ends a lock with its process, however that ends. Where a file system has no locks, every process
gets the file.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def locked(file: Path) -> Iterator[Callable[..., None] | None]:
    """Hold a file within the block; gives None if another process holds it.

    Otherwise gives a function whose keywords are added to what the file says: `process`, HOST:PID of this one, and
    `since`, the time at which it got the file by the clock of the file system.
    """
    with file.open("a+") as lock:
        for _ in range(10):  # `held` takes the lock for a moment
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # this file system has no locks
                break
        else:
            yield None
            return
        file.touch()
        since = file.stat().st_mtime

        def tell(**more: Any) -> None:
            lock.truncate(0)
            lock.write(json.dumps({"process": this_process(), "since": since, **more}))
            lock.flush()

        tell()
        yield tell


def held(file: Path) -> bool:
    """Whether a process holds a file."""
    try:
        with file.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no such file, or its file system has no locks
        return False
    return False


def holder(file: Path) -> dict[str, Any]:
    """What the process that holds a file says of itself: {} if none holds it."""
    return contents(file) if held(file) else {}


def contents(file: Path) -> dict[str, Any]:
    """What such a file says, or any other file with a JSON object: {} if there is none, or only half of it yet."""
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def this_process() -> str:
    """HOST:PID."""
    return f"{socket.gethostname()}:{os.getpid()}"

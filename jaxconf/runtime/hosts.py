"""Several hosts that do one job together: each has its devices, its part of the weights and of the text, and the first of them writes.

All hosts run the same program with the same options, and come by the same results; what only one of them can know, the state of a folder, it
tells the others.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jaxconf.models.errors import InputError

if TYPE_CHECKING:
    import numpy as np

Item = TypeVar("Item")

TIMEOUT = 60  # seconds in which all hosts must have come
HEARTBEAT = 30  # seconds of silence after which a host counts as lost
LOST = "jaxconf: a host was lost, or did not come; start the same command on every host again: what was finished is not done twice\n"

EXPLAINED = b"."
_watched: list[int] = []  # the end of the watcher's pipe, once there is one


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Which of several hosts this is."""

    coordinator: str | None = None
    """where several hosts do the job together, HOST:PORT of the first, or auto, which asks Slurm, Open MPI, the TPU or Kubernetes; by default
    several tasks of a Slurm step, of mpirun or of a TPU slice join by themselves, but for a sweep's workers"""
    hosts: int | None = None
    """how many there are, with --coordinator HOST:PORT"""
    host: int | None = None
    """which this one is, from 0"""


def join(asked: Hosts, by_itself: bool = True) -> None:
    """Make this process one of several, before JAX touches a device, or leave it alone if there are no others.

    `by_itself`: whether several tasks of one job join without being asked. Raises InputError for options that do not fit together, and for a
    coordinator that cannot be reached within a minute. Where a host is lost, JAX ends the process within HEARTBEAT seconds, and a sentence
    says so.
    """
    address = asked.coordinator
    if address in (None, "auto"):
        if asked.hosts is not None or asked.host is not None:
            raise InputError("--hosts and --host say which of several hosts this is; give --coordinator HOST:PORT too")
        if address is None and not (by_itself and _several()):
            return
    elif asked.hosts is None or asked.host is None or not 0 <= asked.host < asked.hosts:
        raise InputError(f"--coordinator is {address}; give --hosts, how many there are, and --host, which this one is, from 0")
    else:
        _check_address(address, asked.host)
    _watch()

    import jax

    times: dict[str, Any] = {"initialization_timeout": TIMEOUT, "heartbeat_timeout_seconds": HEARTBEAT}
    if address in (None, "auto"):
        try:
            jax.distributed.initialize(**times)
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"no other hosts were found ({str(error).partition('. ')[0]}); give --coordinator HOST:PORT, --hosts and --host"
            ) from error
    else:
        jax.distributed.initialize(address, asked.hosts, asked.host, **times)


def _several() -> bool:
    """Whether this process was started as one of several, by what their starters put into the environment."""
    tasks = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return any(number.isdecimal() and int(number) > 1 for number in tasks) or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def _check_address(address: str, host: int) -> None:
    """Wait until the first host is there: what JAX does where it never comes cannot be caught."""
    name, _, port = address.rpartition(":")
    if not name or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator is {address!r}; give HOST:PORT of the first host, or auto")
    until, reason = time.monotonic() + TIMEOUT, "no answer"
    while host:
        try:
            socket.create_connection((name, int(port)), timeout=5).close()
            return
        except OSError as error:
            reason = error.strerror or str(error)
        if time.monotonic() > until:
            raise InputError(
                f"the coordinator at {address} could not be reached for {TIMEOUT} seconds ({reason}); start the first host too, and see that its port is open"
            )
        time.sleep(0.5)


def _watch() -> None:
    """Have another process say what happened if this one ends without a word, as JAX ends it when a host is lost."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        _watched.append(writing)
        return
    os.close(writing)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(reading, 1) != EXPLAINED:
        os.write(2, LOST.encode())
    os._exit(0)


def alone() -> bool:
    """Whether `join` found no other hosts."""
    return not _watched


def part() -> None:
    """Wait until all have done their work, and let them go."""
    if not alone():
        import jax

        jax.distributed.shutdown()
        os.write(_watched[0], EXPLAINED)


def of_a_lost_host(error: Exception) -> bool:
    """Whether the error is that of a connection between hosts which broke; JAX has no type for it."""
    return any(word in str(error).lower() for word in ("gloo", "nccl", "connection", "peer", "deadline_exceeded", "unavailable"))


def leave(code: int, explained: bool = True) -> None:
    """End a process that has failed; one of several at once, since at a regular end it would wait for the others.

    `explained`: whether it has said why; else it is said that a host was lost.
    """
    if alone():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if explained:
        os.write(_watched[0], EXPLAINED)
    os._exit(code)


def first() -> bool:
    """Whether this is the host that writes; true where there is one only."""
    import jax

    return not jax.distributed.is_initialized() or jax.process_index() == 0


def told(make: Callable[[], bytes]) -> bytes:
    """On every host what `make` gives on the first. Raises InputError everywhere if it does so there."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if not jax.distributed.is_initialized():
        return make()
    said = b""
    if first():
        try:
            said = b"+" + make()
        except InputError as error:
            said = b"-" + str(error).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
    room = np.zeros(_rounded(size), np.uint8)
    room[: len(said)] = np.frombuffer(said, np.uint8)
    said = multihost_utils.broadcast_one_to_all(room)[:size].tobytes()
    if said[:1] == b"-":
        raise InputError(said[1:].decode())
    return said[1:]


def told_json(make: Callable[[], Any]) -> Any:
    """As `told`, of what JSON can hold."""
    return json.loads(told(lambda: json.dumps(make()).encode()))


def copied(file: Path) -> None:
    """Give all other hosts the first one's file, if it has it, at this path of theirs."""
    content = told(lambda: b"+" + file.read_bytes() if file.is_file() else b"")
    if content and not first():
        file.write_bytes(content[1:])


def largest(number: int) -> int:
    """The largest of the hosts' numbers, int32."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if not jax.distributed.is_initialized():
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def shared_work(items: Iterator[Item], do: Callable[[Item], "np.ndarray"]) -> Iterator["np.ndarray"]:
    """What `do` gives for each item, int32 arrays of one axis, in the items' order and on every host; each host does its share of them."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if not jax.distributed.is_initialized():
        yield from map(do, items)
        return
    own, count = jax.process_index(), jax.process_count()
    while group := list(itertools.islice(items, count)):
        found = do(group[own]) if own < len(group) else np.array([], np.int32)
        sizes = multihost_utils.process_allgather(np.int32(len(found))).tolist()
        room = np.zeros(_rounded(max(sizes)), np.int32)
        room[: len(found)] = found
        every = multihost_utils.process_allgather(room)
        yield from (every[i, : sizes[i]] for i in range(len(group)))


def _rounded(size: int) -> int:
    """One of few sizes, since a program is compiled for each."""
    return 1 << max(0, size - 1).bit_length()


@contextlib.contextmanager
def only_first_writes(folder: Path) -> Iterator[Path]:
    """The folder, or on all hosts but the first one that is thrown away afterwards."""
    if first():
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)

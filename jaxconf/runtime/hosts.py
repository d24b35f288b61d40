"""Several hosts that do one job together.

Each host has its own devices, and its part of the weights and of the text. All hosts run the same program with the same
options and get the same results. Only the first host looks into the folders of results and writes to them; it tells the
others what it found there.
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

from jaxconf.models.errors import InputError, between, first_line

if TYPE_CHECKING:
    import numpy as np

Item = TypeVar("Item")

TIMEOUT = 60  # seconds within which all hosts must have joined
HEARTBEAT = 30  # seconds of silence after which a host counts as lost
LOST = (
    "jaxconf: a host was lost, or did not join; start the same command on every host again, "
    "which continues from what was finished\n"
)

EXPLAINED = b"."  # tells the watching process that this process has said why it ends
_watched: list[int] = []  # the writing end of the pipe to the watching process, once that runs


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Which of several hosts this is."""

    coordinator: str | None = None
    """HOST:PORT of the first host, if several hosts do the job together,
    or auto, to take it from Slurm, Open MPI, the TPU or Kubernetes;
    by default the tasks of a Slurm step, of mpirun or of a TPU slice join automatically"""
    hosts: int | None = None
    """with --coordinator HOST:PORT: how many hosts there are"""
    host: int | None = None
    """with --coordinator HOST:PORT: the number of this host, counted from 0"""


def join(asked: Hosts) -> None:
    """Join this process with those of the other hosts, or do nothing if it is the only one.

    This must be called before JAX touches a device. The tasks of a Slurm step, of mpirun or of a TPU slice join even
    without --coordinator. Raises InputError for options that do not fit together, and for a coordinator that cannot be
    reached within TIMEOUT seconds. If a host is lost later, JAX ends this process within HEARTBEAT seconds, and the
    watching process prints why.
    """
    address = asked.coordinator
    if address in (None, "auto"):
        if asked.hosts is not None or asked.host is not None:
            raise InputError("--hosts and --host need the first host's address; give --coordinator HOST:PORT too")
        if address is None and not _several():
            return
    elif not _is_address(address):
        raise InputError(
            f"--coordinator is {address!r}; give HOST:PORT of the first host, and --hosts and --host with it, or auto "
            "alone"
        )
    elif asked.hosts is None or asked.host is None:
        raise InputError(
            f"--coordinator {address} needs --hosts and --host too; give how many hosts there are as --hosts, and "
            "which of them this is, counted from 0, as --host"
        )
    elif asked.hosts < 1:
        raise InputError(f"--hosts is {asked.hosts}; give at least 1")
    elif not 0 <= asked.host < asked.hosts:
        remedy = f"give {between(0, asked.hosts - 1)} as --host"
        raise InputError(f"--host is {asked.host} and --hosts {asked.hosts}; {remedy}")
    else:
        _wait_for(address, asked.host)
    _watch()

    import jax

    times: dict[str, Any] = {"initialization_timeout": TIMEOUT, "heartbeat_timeout_seconds": HEARTBEAT}
    if address in (None, "auto"):
        try:
            jax.distributed.initialize(**times)
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"no other hosts were found ({str(error).partition('. ')[0]}); "
                "give --coordinator HOST:PORT, --hosts and --host"
            ) from error
    else:
        jax.distributed.initialize(address, asked.hosts, asked.host, **times)


def _several() -> bool:
    """Whether the environment says that this process was started as one of several."""
    tasks = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    of_tpus = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return "," in of_tpus or any(number.isdecimal() and int(number) > 1 for number in tasks)


def _is_address(text: str) -> bool:
    """Whether a text is HOST:PORT."""
    name, _, port = text.rpartition(":")
    return bool(name) and port.isdecimal() and 0 < int(port) < 2**16


def _wait_for(address: str, host: int) -> None:
    """Wait until the first host answers, because JAX would end the process if it never does.

    Raises InputError if there is no answer within TIMEOUT seconds.
    """
    name, _, port = address.rpartition(":")
    until, reason = time.monotonic() + TIMEOUT, "no answer"
    while host:
        try:
            socket.create_connection((name, int(port)), timeout=5).close()
            return
        except OSError as error:
            reason = first_line(error)
        if time.monotonic() > until:
            raise InputError(
                f"the coordinator at {address} could not be reached for {TIMEOUT} seconds ({reason}); "
                "start the first host too, and check that its port is open"
            )
        time.sleep(0.5)


def _watch() -> None:
    """Start a watching process, which prints LOST if JAX ends this process without saying why.

    JAX does so when a host is lost.
    """
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
    """Whether this process has not joined others."""
    return not _watched


def part() -> None:
    """Wait until all hosts have finished, and end the connection to them."""
    if not alone():
        import jax

        jax.distributed.shutdown()
        os.write(_watched[0], EXPLAINED)


def of_a_lost_host(error: Exception) -> bool:
    """Whether a broken connection between hosts caused the error; JAX has no type for such errors."""
    words = ("gloo", "nccl", "connection", "peer", "deadline_exceeded", "unavailable")
    return any(word in str(error).lower() for word in words)


def leave(code: int, explained: bool = True) -> None:
    """End this process with the exit status `code` after an error.

    A process that has joined others ends immediately, because a regular exit would wait for the others. `explained`:
    whether this process has said why it ends; if not, the watching process says that a host was lost.
    """
    if alone():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if explained:
        os.write(_watched[0], EXPLAINED)
    os._exit(code)


def first() -> bool:
    """Whether this is the first host, or the only one."""
    import jax

    return not jax.distributed.is_initialized() or jax.process_index() == 0


def told(make: Callable[[], bytes]) -> bytes:
    """Call `make` on the first host, and return its bytes on every host.

    An InputError that it raises is raised on every host.
    """
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
    """As `told`, for a value that JSON can hold."""
    return json.loads(told(lambda: json.dumps(make()).encode()))


def copied(file: Path) -> None:
    """Copy the first host's file, if there is one, to the same path on the other hosts."""
    content = told(lambda: b"+" + file.read_bytes() if file.is_file() else b"")
    if content and not first():
        file.write_bytes(content[1:])


def largest(number: int) -> int:
    """The largest of the numbers that the hosts give; each must fit into int32."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if not jax.distributed.is_initialized():
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def shared_work(items: Iterator[Item], do: Callable[[Item], "np.ndarray"]) -> Iterator["np.ndarray"]:
    """The results of `do` for all items, in the items' order and on every host.

    Each host calls `do` for its share of the items only. `do`: returns an int32 array of one axis.
    """
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
    """The next power of two. Few different sizes are used, because a program is compiled for each."""
    return 1 << max(0, size - 1).bit_length()


@contextlib.contextmanager
def only_first_writes(folder: Path) -> Iterator[Path]:
    """Gives `folder` on the first host, and on the others a temporary folder, which is deleted afterwards."""
    if first():
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)

"""The devices of this machine dealt out to several processes, each of which sees only its own.

python -m jaxconf.runtime.shares     prints what JAX sees, for a process that must not touch the devices itself
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

from jaxconf.models.errors import InputError, between, first_line

BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}  # how so many chips of a TPU lie beside each other


class Seen(NamedTuple):
    """What JAX sees on this machine."""

    backend: str  # "cpu", "gpu" or "tpu"
    devices: int
    memory: float  # bytes of each, 0 if unknown


class Share(NamedTuple):
    """The part of the machine that one process has."""

    environment: dict[str, str]  # variables that show it its devices
    devices: int
    memory: float  # bytes of all its devices, 0 if unknown


def seen() -> Seen:
    """What JAX sees, asked of another process, so that the devices are free again.

    Raises InputError if JAX cannot start there.
    """
    asked = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = first_line(RuntimeError(asked.stderr.strip().rpartition("\n")[2]))
        raise InputError(f"JAX cannot use the devices of this machine ({reason}); check that `jaxconf analyze` runs")
    return Seen(*json.loads(asked.stdout))


def shares(found: Seen, count: int, environment: Mapping[str, str] = os.environ) -> list[Share]:
    """The devices dealt out to `count` processes, as evenly as possible; processes on a CPU share it.

    `environment`: in which CUDA_VISIBLE_DEVICES or TPU_VISIBLE_CHIPS may name the devices that there are. Raises
    InputError for fewer than one process, for more processes than accelerators, and for chips of a TPU that cannot be
    divided.
    """
    most = found.devices if found.backend != "cpu" else count
    if not 1 <= count <= most:
        raise InputError(
            f"--workers is {count}; give {between(1, found.devices)}, as each worker needs a device"
            if count > most
            else f"--workers is {count}; give at least 1"
        )
    if found.backend == "cpu":
        return [Share({}, 1, found.memory * found.devices / count)] * count
    sizes = [found.devices // count + (i < found.devices % count) for i in range(count)]
    if found.backend == "tpu" and not set(sizes) <= set(BOUNDS):
        raise InputError(
            f"--workers is {count}, and this machine has {found.devices} TPU chips, which can be used one, two or "
            "four at a time; give another number"
        )
    name = "TPU_VISIBLE_CHIPS" if found.backend == "tpu" else "CUDA_VISIBLE_DEVICES"
    names = environment.get(name) or ",".join(map(str, range(found.devices)))
    left, dealt = names.split(","), []
    for size in sizes:
        own, left = left[:size], left[size:]
        variables = {name: ",".join(own)}
        if found.backend == "tpu":
            variables |= {"TPU_CHIPS_PER_PROCESS_BOUNDS": BOUNDS[size], "TPU_PROCESS_BOUNDS": BOUNDS[1]}
        dealt.append(Share(variables, size, found.memory * size))
    return dealt


def _print() -> None:
    import jax

    from jaxconf.runtime.placement import memory_of_a_device

    print(json.dumps([jax.default_backend(), jax.local_device_count(), memory_of_a_device() or 0]))


if __name__ == "__main__":
    _print()

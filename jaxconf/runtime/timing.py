"""The time and the memory that a job took, and a trace of it on request."""

import functools
import resource
import sys
import time
from typing import Any

import jax

COMPILING = "/jax/core/compile/backend_compile_duration"


class Timing:
    """A clock that starts when the object is made."""

    def __init__(self) -> None:
        self.begun, self.compiled = time.perf_counter(), _compiling()[0]

    def facts(self, pairs: int) -> dict[str, Any]:
        """The time since the start, and the memory, as facts of a result.

        `seconds`: all of the time. `seconds_compiling`: the part of it in which XLA compiled. `pairs_per_second`:
        `pairs` (a pair is a token and a neuron) by the rest of the time. `peak_memory`: the most bytes that a device
        (on a CPU, the process) has held since the process began.
        """
        seconds, compiling = time.perf_counter() - self.begun, _compiling()[0] - self.compiled
        return {
            "seconds": seconds,
            "seconds_compiling": compiling,
            "pairs_per_second": pairs / max(seconds - compiling, 1e-9),
            "peak_memory": _peak_memory(),
        }


@functools.cache
def _compiling() -> list[float]:
    """The seconds of compilation since the first call of this function: a list of one number, which keeps growing."""
    total = [0.0]

    def heard(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILING:
            total[0] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(heard)
    return total


def _peak_memory() -> int:
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("peak_bytes_in_use" in of_device for of_device in statistics):
        return max(of_device["peak_bytes_in_use"] for of_device in statistics)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

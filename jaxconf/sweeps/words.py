"""The plan of a sweep as text for people."""

from collections.abc import Mapping

from jaxconf.runtime.progress import duration
from jaxconf.sweeps.estimate import Devices, Plan

Needs = Mapping[tuple[str, str, Plan], int]
"""(model, layer, plan) → how many cells have it."""


def in_words(needs: Needs) -> tuple[list[list[str]], list[list[str]]]:
    """Two tables of text, with their heads in the first row: the memory of a device, and the time.

    The last row of the times has the total.
    """
    memory = [["model", "layer", "data×model", "weights", "unembedding", "working", "peak"]]
    times = [["model", "layer", "cells", "by", "forward", "effects", "each", "all"]]
    for (model, layer, of_one), cells in needs.items():
        mesh = f"{of_one.mesh[0]}×{of_one.mesh[1]}"
        sizes = (of_one.weights, of_one.unembedding, of_one.working, of_one.peak)
        memory.append([model, layer, mesh, *map(_size, sizes)])
        seconds = (of_one.seconds_forward, of_one.seconds_effects, of_one.seconds, cells * of_one.seconds)
        times.append([model, layer, f"{cells:,}", of_one.by, *map(duration, seconds)])
    total = sum(cells * of_one.seconds for (_, _, of_one), cells in needs.items())
    times.append(["total", "", f"{sum(needs.values()):,}", *[""] * 4, duration(total)])
    return memory, times


def described(devices: Devices) -> str:
    """A sentence that describes the devices."""
    each = f"{devices.flops:.2g} operations and {devices.exponentials:.2g} exponentials in a second"
    if devices.count == 1:
        return f"A worker has 1 device of {_size(devices.memory)}, which does {each}."
    return f"A worker has {devices.count} devices of {_size(devices.memory)}, each of which does {each}."


def warnings(needs: Needs, devices: Devices) -> list[str]:
    """A sentence for each model that the devices cannot hold, or whose analysis may take more than they have."""
    said = []
    for model, _, of_one in needs:
        held, peak, each = (_size(size) for size in (of_one.held, of_one.peak, devices.memory))
        if of_one.held > devices.memory:
            said.append(
                f"{model} needs {held} on each of {devices.count} devices, with its weights split "
                f"{of_one.mesh[1]} ways, and each has {each}; use more or larger devices."
            )
        elif of_one.peak > devices.memory:
            said.append(f"{model} may take {peak} on a device, and each has {each}; set a smaller memory in [options].")
    return list(dict.fromkeys(said))


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"

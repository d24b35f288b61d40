"""One device mesh for everything: axis `data` splits sequences, axis `model` splits weights, vocabulary and neurons.

Logical axis names come from the parameters' leaf table; `RULES` says which of them the `model` axis splits.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

RULES: dict[str, str | None] = {
    "batch": "data",
    "layers": None,
    "embed": None,
    "token_embed": None,
    "heads": "model",
    "kv_heads": "model",
    "head_dim": None,
    "mlp": "model",
    "vocab": "model",
    "positions": None,
}


def make_mesh(data: int | None = None, model: int = 1) -> Mesh:
    """A mesh of `data` × `model` devices; by default all devices, on `data`.

    Raises ValueError if the machine has too few devices.
    """
    if data is None:
        data = max(1, jax.device_count() // model)
    return _mesh(data, model, jax.devices()[: data * model])


def _mesh(data: int, model: int, devices: Sequence[jax.Device]) -> Mesh:
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def sharding(mesh: Mesh, axes: Sequence[str], shape: Sequence[int]) -> NamedSharding:
    """The sharding of an array with these logical axes.

    An axis that does not divide is replicated, and so is the second axis of two that RULES would split alike. Raises
    KeyError for a name that RULES does not know.
    """
    return NamedSharding(mesh, PartitionSpec(*_split(mesh.shape, axes, shape)))


def pieces(sizes: Mapping[str, int], axes: Sequence[str], shape: Sequence[int]) -> int:
    """Into how many an array with these logical axes is split on a mesh of these sizes."""
    return math.prod(sizes[over] for over in _split(sizes, axes, shape) if over)


def _split(sizes: Mapping[str, int], axes: Sequence[str], shape: Sequence[int]) -> list[str | None]:
    spec: list[str | None] = []
    for axis, size in zip(axes, shape, strict=True):
        over = RULES[axis]
        fits = over is not None and over not in spec and size % sizes[over] == 0
        spec.append(over if fits else None)
    return spec


def mesh_of(params: Mapping[str, Any]) -> Mesh:
    """The mesh that parameters lie on; of their one device, if they lie on none."""
    place = jax.tree.leaves(params)[0].sharding
    if isinstance(place, NamedSharding) and isinstance(place.mesh, Mesh):
        return place.mesh
    return _mesh(1, 1, sorted(place.device_set, key=lambda device: device.id)[:1])


def over_data(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """An array that every host has, its first axis split over `data`, or copied where it does not divide.

    Each host sends its own part only.
    """
    return placed(array, sharding(mesh, ["batch", *["positions"] * (array.ndim - 1)], array.shape))


def placed(array: np.ndarray, place: Sharding) -> jax.Array:
    """An array that every host has, as `place` says; a host sends its own part only."""
    return jax.make_array_from_callback(array.shape, place, lambda part: array[part])


def fetched(tree: Any) -> Any:
    """Arrays on devices as numpy arrays, whole on every host, wherever their pieces lie."""

    def whole(array: Any) -> np.ndarray:
        if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
            array = multihost_utils.process_allgather(array, tiled=True)
        return np.asarray(array)

    return jax.tree.map(whole, tree)


def wait_on_cpus(mesh: Mesh, tree: Any) -> None:
    """Wait for arrays that lie on several CPU devices, in a loop that fetches nothing.

    Programs that queue on CPU devices share too few threads for the devices of one program to meet, and XLA ends a
    process whose devices do not meet within 40 seconds.
    """
    if mesh.size > 1 and mesh.devices.flat[0].platform == "cpu":
        jax.block_until_ready(tree)

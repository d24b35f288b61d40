"""One device mesh for everything: axis `data` splits sequences, axis `model` splits weights, vocabulary and neurons.

The leaf table gives the axes of each parameter logical names. `RULES` maps each name to the mesh axis that splits
it, or to None.
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
    "experts": None,
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

    An axis is not split if its size is not a multiple of the number of devices along the mesh axis, or if an earlier
    axis is split over the same mesh axis. Raises KeyError for a name that RULES does not know.
    """
    return NamedSharding(mesh, PartitionSpec(*_split(mesh.shape, axes, shape)))


def pieces(sizes: Mapping[str, int], axes: Sequence[str], shape: Sequence[int]) -> int:
    """The number of pieces of an array with these logical axes, on a mesh whose axes have these sizes."""
    return math.prod(sizes[over] for over in _split(sizes, axes, shape) if over)


def _split(sizes: Mapping[str, int], axes: Sequence[str], shape: Sequence[int]) -> list[str | None]:
    spec: list[str | None] = []
    for axis, size in zip(axes, shape, strict=True):
        over = RULES[axis]
        fits = over is not None and over not in spec and size % sizes[over] == 0
        spec.append(over if fits else None)
    return spec


def mesh_of(params: Mapping[str, Any]) -> Mesh:
    """The mesh that parameters are sharded over; if they have none, a mesh of the device that they lie on."""
    place = jax.tree.leaves(params)[0].sharding
    if isinstance(place, NamedSharding) and isinstance(place.mesh, Mesh):
        return place.mesh
    return _mesh(1, 1, sorted(place.device_set, key=lambda device: device.id)[:1])


def over_data(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """Put an array that every host has on the mesh, with its first axis split over `data`.

    The array is replicated if that axis does not divide. Each host sends only what its own devices hold.
    """
    return placed(array, sharding(mesh, ["batch", *["positions"] * (array.ndim - 1)], array.shape))


def placed(array: np.ndarray, place: Sharding) -> jax.Array:
    """Put an array that every host has on devices, as `place` says. Each host sends only what its own devices hold."""
    return jax.make_array_from_callback(array.shape, place, lambda part: array[part])


def fetched(tree: Any) -> Any:
    """The arrays of a tree as numpy arrays. Every host gets each array whole, wherever its pieces lie."""

    def whole(array: Any) -> np.ndarray:
        if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
            array = multihost_utils.process_allgather(array, tiled=True)
        return np.asarray(array)

    return jax.tree.map(whole, tree)


def wait_on_cpus(mesh: Mesh, tree: Any) -> None:
    """Wait for arrays that lie on several CPU devices. It is for loops that do not wait by fetching results.

    Otherwise programs queue, the devices of one program may find no free threads to synchronize, and XLA ends the
    process if they have not done so within 40 seconds.
    """
    if mesh.size > 1 and mesh.devices.flat[0].platform == "cpu":
        jax.block_until_ready(tree)

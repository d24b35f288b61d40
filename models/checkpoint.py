"""Loads sharded parameters from safetensors files, and saves them.

Tensors are memory-mapped, and a leaf is read through lazy views (reshape, transpose, slice) of its tensors. The pieces
that this host's devices hold are copied out of the views one after the other, so only their bytes are read. Beside the
finished arrays, the host holds about one piece of one leaf and the mapped pages of the tensors that are being read.
Pickle is never loaded.
"""

import math
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import einops
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax.sharding import Mesh, NamedSharding

from jaxconf.models.adapters import Adapter, Merged
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError, nearest
from jaxconf.models.families import family, leaves, prefixes, unembedding, unprefixed
from jaxconf.models.files import replacing
from jaxconf.models.leaves import Leaf, nest
from jaxconf.models.mesh import fetched, sharding
from jaxconf.models.quantization import scheme
from jaxconf.models.tensor_files import DTYPES, FLOATS, Tensor, bare, by_expert, read_tensors, stacked_experts

Layers = Literal["all", "last"]
# Buffers that versions of transformers stored: causal masks, tables and frequencies of positions.
BUFFERS = re.compile(
    r"(.+\.)?((attn|attention|self_attn|self_attention)\.bias|\w*masked_bias|\w*inv_freq|position_ids"
    r"|(cos|sin|cos_sin)_cached?|\w+\.embed_positions|alibi|causal_mask)"
)
# How many entries are copied at once: BLOCK (a megabyte of bfloat16) where file and array have the same order of axes,
# a square of SIDE × SIDE where they do not.
BLOCK, SIDE = 2**19, 256
ALIGNMENT = 64  # bytes; XLA on CPU uses an array that begins at a multiple of this without a copy


def load_params(
    config: DecoderConfig,
    folder: Path,
    mesh: Mesh,
    dtype: Any,
    layers: Layers = "all",
    adapter: Adapter | None = None,
) -> dict[str, Any]:
    """The parameters as a nested dict of sharded arrays; `dtype` and `layers` as in `jaxconf.load`.

    `adapter`: it is merged into the weights of the folder; `config` is then `adapter.config` of the folder's. Raises
    InputError for tensors that are missing, that no parameter uses, that have a wrong shape, or that are not
    floating-point or not finite, and for a `dtype` that names no parameter or is not a floating-point type.
    """
    tensors: dict[str, Tensor] = {}
    for full, tensor in read_tensors(folder).items():
        name = unprefixed(config, bare(full))
        if name in tensors:
            raise InputError(
                f"the weights hold tensor {name!r} both with and without a prefix; use weights that match config.json"
            )
        tensors[name] = tensor
    tensors = by_expert(tensors, getattr(family(config.model_type), "FUSED", {}), config.routed_experts)
    table = leaves(config)
    tensors = adapter.replaced(config, tensors) if adapter else tensors
    _check_names(config, table, tensors)
    tensors = adapter.merged(config, tensors) if adapter else tensors
    dtypes = _dtypes(table, dtype)
    params = []
    for leaf in table:
        if layers == "all" or _of_last_layer(config, leaf):
            names = leaf.names(config)[-1:] if layers == "last" and leaf.stacked else leaf.names(config)
            params.append((leaf.path, _load_leaf(config, leaf, names, tensors, mesh, dtypes[leaf.path])))
    return nest(params)


def _of_last_layer(config: DecoderConfig, leaf: Leaf) -> bool:
    """Whether the weight statistics of the last layer's neurons can depend on the leaf."""
    final_norm = "blocks/ln2/" if config.norm_place == "sum" else "ln_final/"
    return leaf.path.startswith(("blocks/mlp/", "blocks/ln2_post/", final_norm, "unembed/")) or (
        config.tied and leaf.path == "embed/tokens"
    )


def _dtypes(table: tuple[Leaf, ...], dtype: Any) -> dict[str, np.dtype | None]:
    """Leaf path → the dtype that the leaf will have; None keeps the stored dtype."""
    if not isinstance(dtype, Mapping):
        return dict.fromkeys((leaf.path for leaf in table), _floating(dtype))
    branches = {leaf.path[:at] for leaf in table for at, letter in enumerate(leaf.path + "/") if letter == "/"}
    for key in dtype:
        if key not in branches:
            raise InputError(
                f"dtype names {key!r}, which is no parameter of the model; "
                f"the nearest is {nearest(str(key), branches)!r}"
            )

    def of(path: str) -> np.dtype | None:
        keys = [key for key in dtype if f"{path}/".startswith(f"{key}/")]
        return _floating(dtype[max(keys, key=len)]) if keys else None

    return {leaf.path: of(leaf.path) for leaf in table}


def _floating(dtype: Any) -> np.dtype | None:
    try:
        if dtype is None or jnp.issubdtype(dtype, jnp.floating):
            return None if dtype is None else np.dtype(dtype)
    except TypeError:
        pass
    raise InputError(
        f"dtype is {dtype!r}; give a floating-point type such as jnp.bfloat16, or None to keep the stored type"
    )


def _check_names(config: DecoderConfig, table: tuple[Leaf, ...], tensors: Mapping[str, Tensor]) -> None:
    wanted = {name: leaf for leaf in table for name in leaf.names(config).ravel().tolist()}
    ignored = getattr(family(config.model_type), "IGNORED", "")
    left = sorted(
        name for name in tensors.keys() - wanted.keys() if not (BUFFERS.fullmatch(name) or re.fullmatch(ignored, name))
    )
    usable = wanted.keys() <= tensors.keys() and all(tensors[name].dtype in FLOATS for name in wanted)
    if (left or not usable) and (found := scheme(tensors)):
        raise InputError(
            f"the weights are quantized by {found}, and only full-precision weights are loaded; "
            "use the model that they were made from, which the model's page on the hub names as its base"
        )
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise InputError(
            f"the weights lack tensor {missing[0]!r} ({len(missing)} missing); use weights that match config.json"
        )
    if config.tied and (head := unembedding(config)) in left:
        left.remove(head)
        embedding = next(leaf for leaf in table if leaf.path == "embed/tokens")
        if not _equal(tensors[head], tensors[embedding.source]):
            raise InputError(
                f"config.json ties the embeddings, but {head!r} differs from {embedding.source!r}; "
                "set tie_word_embeddings to false"
            )
    if left:
        raise InputError(
            f"the weights hold tensor {left[0]!r}, which the model does not use ({len(left)} unused); "
            "use weights that match config.json"
        )
    for name in wanted:
        if tensors[name].dtype not in FLOATS:
            raise InputError(
                f"tensor {name!r} is stored as {tensors[name].dtype}, not as floating-point numbers; "
                "use unquantized weights"
            )


def _equal(one: Tensor, other: Tensor) -> bool:
    # Each block is mapped anew, so that the pages of earlier blocks do not stay in memory.
    return one.shape == other.shape and all(
        np.array_equal(one.map()[i : i + 4096], other.map()[i : i + 4096])
        for i in range(0, one.shape[0] if one.shape else 0, 4096)
    )


def _load_leaf(
    config: DecoderConfig,
    leaf: Leaf,
    names: np.ndarray,
    tensors: Mapping[str, Tensor],
    mesh: Mesh,
    dtype: np.dtype | None,
) -> jax.Array:
    """The leaf, stacked from the tensors `names`: all of its tensors, or only those of some layers."""
    shape = (*names.shape[: leaf.stacked], *leaf.shape(config)[leaf.stacked :])
    for at, name in np.ndenumerate(names):
        _check_shape(config, leaf, at, tensors[name], name)
    target = jax.dtypes.canonicalize_dtype(DTYPES[tensors[names.flat[0]].dtype] if dtype is None else dtype)
    split = sharding(mesh, leaf.axes, shape)

    def place(index: tuple[slice, ...], devices: list[jax.Device]) -> list[jax.Array]:
        piece = _aligned([len(range(size)[part]) for size, part in zip(shape, index, strict=True)], target)

        def fill(at: tuple[int, ...], name: str) -> None:
            mapped = tensors[name].map()
            own, place = _shared_part(config, leaf, at, index)
            view = leaf.read(config, mapped, at)[own]
            tensors[name].ahead(view, mapped)
            if view.size and not _copy(view, piece[at[: leaf.stacked]][place]):
                raise InputError(f"tensor {name!r} holds NaN or Inf as {target}; use intact weights, or a wider dtype")

        # numpy releases the interpreter's lock while it copies. A product is as large as its tensor: one at a time.
        many = not any(isinstance(tensors[name], Merged) for name in names.flat)
        with ThreadPoolExecutor(os.cpu_count() if many else 1) as pool:
            for filled in [pool.submit(fill, *of) for of in np.ndenumerate(names[index[: leaf.stacked]])]:
                filled.result()
        return jax.block_until_ready([jax.device_put(piece, device) for device in devices])

    # `jax.make_array_from_callback` would hold the pieces of all of this host's devices before it sends the first.
    arrays = [array for index, devices in _places(split, shape) for array in place(index, devices)]
    return jax.make_array_from_single_device_arrays(shape, split, arrays)


def _shared_part(
    config: DecoderConfig, leaf: Leaf, at: tuple[int, ...], index: tuple[slice, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What a tensor, `at` its place among the names, and the piece `index` of the leaf share: an index into each."""
    own = list(index[leaf.stacked :])
    place = [slice(None)] * len(own)
    if leaf.joined:
        axis = leaf.axes.index("mlp") - leaf.stacked
        first, last, _ = own[axis].indices(config.d_mlp)
        begin = sum(config.experts[: at[-1]])
        low, high = max(begin, first), min(begin + config.experts[at[-1]], last)
        own[axis], place[axis] = slice(low - begin, max(low, high) - begin), slice(low - first, max(low, high) - first)
    return tuple(own), tuple(place)


def _places(split: NamedSharding, shape: tuple[int, ...]) -> list[tuple[tuple[slice, ...], list[jax.Device]]]:
    """The pieces of an array that this host's devices hold, each with all the devices that hold it."""
    places: dict[str, tuple[tuple[slice, ...], list[jax.Device]]] = {}
    for device, index in split.addressable_devices_indices_map(shape).items():
        assert index is not None
        places.setdefault(str(index), (index, []))[1].append(device)
    return list(places.values())


def _aligned(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialized array, aligned so that a device that shares the host's memory can use it without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(dtype).reshape(shape)


def _copy(view: np.ndarray, to: np.ndarray) -> bool:
    """Copy a view of a file into `to`, and return whether all its numbers are then finite.

    The copy follows the file's order. Most views are transposed; they are copied in squares that fit in the cache.
    """
    unsigned = np.dtype(f"u{to.itemsize}")
    bits, infinity = to.view(unsigned), np.array(np.inf, to.dtype).view(unsigned)
    if view.dtype == to.dtype:  # numpy copies plain integers fastest
        view, to = view.view(unsigned), bits
    axes = [axis for axis in range(view.ndim) if view.shape[axis] > 1] or [0]
    slow, fast = max(axes, key=view.strides.__getitem__), min(axes, key=view.strides.__getitem__)
    width = view.shape[fast] if fast == axes[-1] else SIDE
    height = max(1, (BLOCK if fast == axes[-1] else SIDE * view.shape[fast]) * view.shape[slow] // view.size)
    part, finite = [slice(None)] * view.ndim, True
    for begin in range(0, view.shape[slow], height):
        for left in range(0, view.shape[fast], width):
            part[fast], part[slow] = slice(left, left + width), slice(begin, begin + height)
            with np.errstate(over="ignore"):  # what the target's dtype cannot hold becomes Inf
                to[tuple(part)] = view[tuple(part)]
        part[fast], part[slow] = slice(None), slice(begin, begin + height)
        finite &= bool((bits[tuple(part)] & infinity).max() < infinity)  # NaN and Inf have all bits of the exponent set
    return finite


def _check_shape(config: DecoderConfig, leaf: Leaf, at: tuple[int, ...], tensor: Tensor, name: str) -> None:
    axes, wanted = leaf.axes[leaf.stacked :], leaf.shape_at(config, at)
    try:
        found = leaf.read(config, np.broadcast_to(np.empty((), np.uint8), tensor.shape), at).shape
    except einops.EinopsError:
        found = None
    if found != wanted:
        sizes = ", ".join(f"{axis} {size}" for axis, size in zip(axes, wanted, strict=True))
        raise InputError(
            f"tensor {name!r} has shape {list(tensor.shape)}, which does not fit config.json ({sizes}); "
            "use weights that match it"
        )


def save_params(config: DecoderConfig, params: Mapping[str, Any], file: Path) -> None:
    """Write the parameters of all layers as a safetensors file in the family's Hugging Face layout.

    The file appears whole or not at all.
    """
    tensors: dict[str, np.ndarray] = {}
    for leaf in leaves(config):
        array: Any = params
        for name in leaf.path.split("/"):
            array = array[name]
        array, names = fetched(array), leaf.names(config)
        parts = [array]
        if leaf.joined:
            parts = np.split(array, np.cumsum(config.experts)[:-1], leaf.axes.index("mlp"))
        for place, name in np.ndenumerate(names):
            value = parts[place[-1] if leaf.joined else 0][place[: leaf.stacked]]
            tensors[name] = leaf.write(value, tensors.get(name))
    tensors = stacked_experts(tensors)
    prefix, head = prefixes(config)[0], unembedding(config).removesuffix("weight")
    named = {
        name if name.startswith(head) else prefix + name: np.ascontiguousarray(tensor)
        for name, tensor in tensors.items()
    }
    with replacing(file) as path:
        safetensors.numpy.save_file(named, path, metadata={"format": "pt"})

"""Safetensors files: which ones a model folder has, and where in them each tensor lies. Pickle is never loaded."""

import contextlib
import dataclasses
import json
import math
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from numpy.lib.array_utils import byte_bounds

from jaxconf.models.errors import InputError

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})  # the types that parameters are read from
HEADER = 100_000_000  # the largest size of a header, in bytes, as in the reference implementation
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# What torch.compile, FSDP and activation checkpoints put before the name of each module that they wrap.
WRAPPERS = r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def map(self) -> np.ndarray:
        """A read-only view of the file; no bytes are read yet."""
        if 0 in self.shape:
            return np.empty(self.shape, DTYPES[self.dtype])
        return np.memmap(self.file, DTYPES[self.dtype], "r", self.offset, self.shape)

    def ahead(self, view: np.ndarray, mapped: np.ndarray) -> None:
        """Ask the system to read all bytes of a view of `map()` ahead. Page faults would read them in small pieces."""
        if hasattr(os, "posix_fadvise") and np.may_share_memory(view, mapped):
            (begin, _), (low, high) = byte_bounds(mapped), byte_bounds(view)
            with self.file.open("rb") as f:
                os.posix_fadvise(f.fileno(), self.offset + low - begin, high - low, os.POSIX_FADV_WILLNEED)


def read_header(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file.

    Its format: 8 bytes with the header's length, a JSON header, and the data of the tensors side by side. Raises
    InputError if the file is truncated or corrupt, or cannot be read.
    """
    with _opened(file) as f:
        size = os.fstat(f.fileno()).st_size
        length = int.from_bytes(f.read(8), "little")
        broken = InputError(f"{file} is truncated or corrupt; download it again")
        if length > min(size - 8, HEADER):
            raise broken
        header = f.read(length)
    try:
        rows = json.loads(header, object_pairs_hook=_unique)
        rows.pop("__metadata__", None)
        return _tensors(file, rows, 8 + length, size)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise error if isinstance(error, InputError) else broken from error


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """The file, opened for reading.

    Raises InputError if that fails, and if the file is not a regular one: to open a pipe could take forever.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise InputError(f"{file} is not a regular file or a link to one; download it again")
        with file.open("rb") as f:
            yield f
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); make it readable, or download it again") from error


def _tensors(file: Path, rows: Mapping[str, Any], begin: int, size: int) -> dict[str, Tensor]:
    """The tensors of a header's rows.

    Raises ValueError, or another exception, unless their data fill the file's bytes [begin, size) without overlap.
    """
    tensors, spans = {}, []
    for name, row in rows.items():
        if row["dtype"] not in DTYPES:
            raise InputError(
                f"{file} holds {name!r} as {row['dtype']!r}, which is not supported; convert it to F32, BF16 or F16"
            )
        (start, stop), shape, dtype = row["data_offsets"], tuple(row["shape"]), np.dtype(DTYPES[row["dtype"]])
        if not all(type(n) is int and n >= 0 for n in (start, stop, *shape)):
            raise ValueError("the offsets or the shape hold what is not a size")
        np.broadcast_to(np.empty((), dtype), shape)  # raises where numpy has no such array
        if stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError("shape and bytes do not agree")
        tensors[name] = Tensor(file, row["dtype"], shape, begin + start)
        spans.append((start, stop))
    place = 0
    for start, stop in sorted(spans):
        if start != place:
            raise ValueError("tensors overlap, or bytes belong to no tensor")
        place = stop
    if place != size - begin:
        raise ValueError("the data do not end where the file does")
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object as a dict. Raises ValueError for a name that occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def bare(name: str) -> str:
    """A tensor's name without what wrappers of PyTorch modules, and DataParallel's "module.", add to it."""
    return re.sub(WRAPPERS, "", name).removeprefix("module.")


def no_weights(where: str, files: Collection[str]) -> InputError:
    """The error for a place that holds these files, and none that weights are loaded from."""
    if any(name.endswith(".gguf") for name in files):
        return InputError(
            f"{where} holds weights in GGUF, the format of llama.cpp, and only safetensors are loaded; "
            "use the model that they were made from"
        )
    if any(name.endswith(PICKLES) for name in files):
        return InputError(
            f"{where} holds only pickled weights, which can run code and are never loaded; "
            "save the model as safetensors"
        )
    return InputError(
        f"{where} holds no model.safetensors or model.safetensors.index.json; save the model with its weights"
    )


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder: in `model.safetensors`, or in the shards that model.safetensors.index.json names.

    The index may only name files in the same folder, so that it cannot make other files be read. A shard may be a
    symbolic link, as in the hub's cache. Only regular files are opened.

    Raises InputError for a folder without weights or with pickled weights only, for a missing or broken shard, and for
    an index that cannot be read or does not agree with the shards.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if os.path.lexists(single):
        return read_header(single)
    if not os.path.lexists(index):
        raise no_weights(str(folder), [file.name for file in folder.iterdir()])
    with _opened(index) as f:
        text = f.read()
    try:
        weight_map: dict[str, str] = json.loads(text, object_pairs_hook=_unique)["weight_map"]
        outside = sorted(file for file in weight_map.values() if Path(file).name != file or not file.isprintable())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index} is not a safetensors index; download it again") from error
    if outside:
        raise InputError(
            f"{index} names {outside[0]!r}, which is not the name of a file beside it; download the index again"
        )
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(weight_map.values())):
        shard = read_header(folder / file)
        if twice := sorted(shard.keys() & tensors.keys()):
            raise InputError(f"{folder} holds tensor {twice[0]!r} in two files; download it again")
        tensors |= shard
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].file.name != file:
            raise InputError(
                f"{folder} lacks tensor {name!r} in the file {file!r}, which its index names; download it again"
            )
    return tensors


def by_expert(tensors: Mapping[str, Tensor], fused: Mapping[str, Sequence[str]], experts: int) -> dict[str, Tensor]:
    """The tensors, where each that holds all `experts` of a layer is split, without reading it, into theirs.

    `fused`: the end of such a tensor's name → the ends of the names of its parts, in the order in which an expert's
    entries are stored; "{e}" stands for the expert. Without "{e}", the tensor has another name and is not split. A
    tensor that does not divide so is left as it is. Raises InputError for a tensor that is there in both forms.
    """
    found: dict[str, Tensor] = {}

    def add(name: str, tensor: Tensor) -> None:
        if name in found:
            raise InputError(f"the weights hold tensor {name!r} in two forms; use weights that match config.json")
        found[name] = tensor

    for name, tensor in tensors.items():
        end = next((end for end in fused if name.endswith(f".{end}")), "")
        parts, shape = fused.get(end, ()), tensor.shape
        if not parts:
            add(name, tensor)
        elif "{e}" not in parts[0]:
            add(name.removesuffix(end) + parts[0], tensor)
        elif len(shape) < 2 or shape[0] != experts or shape[1] % len(parts):
            add(name, tensor)
        else:
            own = (shape[1] // len(parts), *shape[2:])
            size = math.prod(own) * np.dtype(DTYPES[tensor.dtype]).itemsize
            for number in range(experts * len(parts)):
                expert, part = divmod(number, len(parts))
                of_part = dataclasses.replace(tensor, shape=own, offset=tensor.offset + number * size)
                add(name.removesuffix(end) + parts[part].replace("{e}", str(expert)), of_part)
    return found


def stacked_experts(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors, where those whose names end in "[0]", "[1]" and so on are stacked into one."""
    whole: dict[str, list[np.ndarray]] = {}
    for name, tensor in tensors.items():
        whole.setdefault(re.sub(r"\[\d+\]$", "", name), []).append(tensor)
    return {name: np.stack(own) if f"{name}[0]" in tensors else own[0] for name, own in whole.items()}

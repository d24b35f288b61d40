"""Checkpoints on disk that tests change. `folder` in tests/models/conftest.py is one."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import jax
import numpy as np
import safetensors.numpy

from jaxconf.models.checkpoint import load_params
from jaxconf.models.decoder import Params
from jaxconf.models.mesh import make_mesh


def loaded(folder: Path, name: str, dtype: Any = None) -> Params:
    return jax.tree.map(np.asarray, load_params(cases.decoder(name)[0], folder, make_mesh(data=1), dtype))


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Lets `change` edit the tensors of the folder's file."""
    file = folder / "model.safetensors"
    tensors = dict(safetensors.numpy.load_file(file))
    change(tensors)
    safetensors.numpy.save_file(tensors, file)


def split(folder: Path, parts: int) -> dict[str, Any]:
    """Turns the folder's file into shards with an index, and returns the index."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        names = sorted(tensors)[part::parts]
        safetensors.numpy.save_file({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def parts_of(file: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and data."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def compose(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data

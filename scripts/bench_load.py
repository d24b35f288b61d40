"""Measures the time and memory of loading a model of Llama 2 7B's shape, by jaxconf and by other ways.

    python scripts/bench_load.py --shape mixture --layers 1 --sides last     # a layer of Qwen3-30B-A3B's shape
    python scripts/bench_load.py --layers 4 --cache warm     # files and arrays both fit in little memory
    python scripts/bench_load.py                             # all 32 layers, 13.5 GB: from the disk

The weights are random, in bfloat16, in five weights files. Each measurement is made in a process of its own; the order
of the ways is reversed from round to round. With `--cache cold` the files are dropped from the page cache before each
process starts; caches of the disk or of a virtual machine's host cannot be dropped. With `--cache warm` the files are
read once before. Columns:

* `seconds`: the time of the loading alone, without imports.
* `disk`: what the process read from the disk.
* `arrays`: the size of the arrays that were loaded.
* `peak`: the most memory that was resident in the process (VmHWM: its own memory and mapped pages of files, those of
  the libraries too).
* `beyond`: the peak without the arrays.
* `libraries`: what was resident before the loading began; `peak` and `beyond` include it.

A virtual machine may get its memory only when a process touches it, and lose it again within seconds, and this can take
longer than any loading. So the processes that keep all weights in memory first touch and free as much memory as the
files hold. `fill` shows the time of memory for a way that keeps what it reads. A way that leaves the weights mapped in
their files, as transformers does, has read only a part of them in this time, and its peak can be below the size of its
arrays. Linux only.
"""

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tyro

from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.files import replacing

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTURE = {  # Qwen3-30B-A3B
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
SHAPES = {"llama": LLAMA, "mixture": MIXTURE}
SHARDS = 5
DEVICES = 8
PIECE = 2**24  # bytes that are written, or read, at once
Side = Literal["read", "fill", "load", "safetensors", "transformers", "last", "statistics"]


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure the time and memory of loading."""

    folder: Path | None = None
    """the folder for the weights files, which stay there and are used again; by default a temporary folder"""
    shape: Literal["llama", "mixture"] = "llama"
    """the model's shape: that of Llama 2 7B, or of Qwen3-30B-A3B, a mixture of experts"""
    layers: int = 32
    cache: Literal["cold", "warm"] = "cold"
    """whether the files are in the page cache when a process begins (warm) or not (cold)"""
    rounds: int = 2
    json: Path | None = None
    """the file to write the results to"""
    sides: tuple[Side, ...] = get_args(Side)
    """the ways that are measured: read (every file is read from its start into one buffer), fill (the same, but all is
    kept in memory), load (jaxconf, onto 8 virtual CPU devices, each with its own part), safetensors
    (safetensors.numpy.load_file of every file), transformers (if it is installed), last (jaxconf loads the last layer
    alone), and statistics (it also measures its weights)
    """
    process: Side | None = None
    """only for the processes that this script starts: the way that they measure"""


def stored(hf: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name of a tensor → its shape, in the order in which the tensors are written."""
    config = config_from_hf(hf)
    shapes = {}
    for leaf in leaves(config):
        for place, name in np.ndenumerate(leaf.names(config)):
            shape = leaf.write(np.empty(leaf.shape_at(config, place), np.uint16), None).shape
            shapes[name if name.startswith("lm_head") else f"model.{name}"] = shape
    return shapes


def bytes_of(hf: Mapping[str, Any]) -> int:
    return sum(2 * math.prod(shape) for shape in stored(hf).values())


def write(folder: Path, hf: Mapping[str, Any], quickly: bool = False) -> None:
    """Write config.json (`hf`) and weights files for it, with random weights whose absolute values are 2⁻⁷ to 2⁻⁵.

    `quickly`: write the same random piece again and again, and do not wait for the disk.
    """
    rng = np.random.default_rng(0)

    def piece(size: int) -> bytes:
        return (np.frombuffer(rng.bytes(size), np.uint16) & 0x80FF | 0x3C00).tobytes()

    total, written = bytes_of(hf), 0
    first = memoryview(piece(PIECE))
    files: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in stored(hf).items():
        files.setdefault(f"model-{1 + written * SHARDS // total:05}-of-{SHARDS:05}.safetensors", {})[name] = shape
        written += 2 * math.prod(shape)
    for file, tensors in files.items():
        header, end = {}, 0
        for name, shape in tensors.items():
            begin, end = end, end + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for begin in range(0, end, PIECE):
                size = min(PIECE, end - begin)
                out.write(first[:size] if quickly else piece(size))
            if not quickly:
                out.flush()
                os.fsync(out.fileno())  # what is not on the disk yet cannot be dropped from the page cache
    (folder / "config.json").write_text(json.dumps(hf))
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map})
    )


def read(folder: Path) -> None:
    buffer = bytearray(PIECE)
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb", buffering=0) as f:
            while f.readinto(buffer):
                pass


def prepare(side: str, folder: Path) -> tuple[Callable[[], Any], Callable[[Any], int]]:
    """The function that a process times, and the function that gives the bytes of the arrays in its result.

    All that they need is imported here, before the timing begins.
    """
    if side == "read":
        return lambda: read(folder), lambda result: 0
    if side == "fill":
        return lambda: [
            np.fromfile(file, np.uint8) for file in sorted(folder.glob("*.safetensors"))
        ], lambda result: sum(map(len, result))
    if side == "safetensors":
        import safetensors.numpy

        def load_files() -> list[np.ndarray]:
            return [
                tensor
                for file in sorted(folder.glob("*.safetensors"))
                for tensor in safetensors.numpy.load_file(file).values()
            ]

        return load_files, lambda result: sum(tensor.nbytes for tensor in result)
    if side == "transformers":
        import torch
        import transformers

        def load_model() -> Any:
            return transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.bfloat16, low_cpu_mem_usage=True
            )

        return load_model, lambda model: sum(p.nbytes for p in model.parameters())

    import jax

    import jaxconf

    def bytes_of_arrays(lm: Any) -> int:
        return sum(w.nbytes for w in jax.tree.leaves(lm.params))

    if side == "last":
        return lambda: jaxconf.load(folder, dtype=None, layers="last"), bytes_of_arrays
    if side == "statistics":
        return lambda: jaxconf.weight_statistics(jaxconf.load(folder, dtype=None, layers="last")), lambda result: 0
    jax.config.update("jax_num_cpu_devices", DEVICES)
    mesh = jaxconf.make_mesh(model=DEVICES)
    jax.block_until_ready(jax.numpy.ones(1))
    return lambda: jaxconf.load(folder, dtype=None, mesh=mesh), bytes_of_arrays


def status(file: str, name: str) -> int:
    (line,) = [line for line in Path(f"/proc/self/{file}").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1])


def measure(side: str, folder: Path) -> dict[str, float]:
    run, size = prepare(side, folder)
    if side in ("fill", "load", "safetensors"):  # the ways that keep all weights in memory
        np.empty(2**29 + sum(file.stat().st_size for file in folder.glob("*.safetensors")), np.uint8)[
            :: os.sysconf("SC_PAGE_SIZE")
        ] = 1
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    libraries, disk, begun = status("status", "VmRSS"), status("io", "read_bytes"), time.perf_counter()
    result = run()
    seconds = time.perf_counter() - begun
    arrays, peak = size(result) / 1e9, status("status", "VmHWM") * 1024 / 1e9
    return {
        "seconds": seconds,
        "disk": (status("io", "read_bytes") - disk) / 1e9,
        "arrays": arrays,
        "peak": peak,
        "beyond": peak - arrays,
        "libraries": libraries * 1024 / 1e9,
    }


def drop(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fresh(side: str, folder: Path, cache: str) -> dict[str, float]:
    """Measure one way in a new process."""
    (drop if cache == "cold" else read)(folder)
    command = [sys.executable, __file__, "--folder", str(folder), "--process", side]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(bench: Bench, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        begun = time.perf_counter()
        write(folder, SHAPES[bench.shape] | {"num_hidden_layers": bench.layers})
        print(f"written in {time.perf_counter() - begun:.0f} s")
    held = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    print(
        f"{held} layers, {size:.2f} GB in {SHARDS} files, page cache {bench.cache} before each process, "
        f"{free:.1f} GB of memory free"
    )
    if bench.cache == "warm" and 2 * size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9:
        print(
            "Files and arrays do not both fit in memory: part of the files leaves the page cache while they are loaded."
        )
    found: dict[str, list[dict[str, float]]] = {side: [] for side in bench.sides}
    for number in range(bench.rounds):
        for side in bench.sides[:: 1 - 2 * (number % 2)]:
            try:
                found[side].append(fresh(side, folder, bench.cache))
            except subprocess.CalledProcessError as error:
                print(f"{side} ended with {error.returncode}")
    names = ("seconds", "disk", "arrays", "peak", "beyond", "libraries")
    result = {
        side: {name: statistics.median(row[name] for row in rows) for name in names}
        for side, rows in found.items()
        if rows
    }
    print(f"{'medians, GB':14s}" + "".join(f"{name:>11s}" for name in names))
    for side, row in result.items():
        print(f"{side:14s}" + "".join(f"{row[name]:11.2f}" for name in names))
    for plain in ("read", "fill"):
        if {plain, "load"} <= result.keys():
            ratios = [
                ours["seconds"] / other["seconds"] for ours, other in zip(found["load"], found[plain], strict=True)
            ]
            print(f"load over {plain}, round by round: " + ", ".join(f"{ratio:.2f}" for ratio in ratios))
    if bench.json:
        with replacing(bench.json) as path:
            path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    bench = tyro.cli(Bench)
    if bench.process:
        assert bench.folder
        print(json.dumps(measure(bench.process, bench.folder)))
    elif bench.folder:
        bench.folder.mkdir(parents=True, exist_ok=True)
        main(bench, bench.folder)
    else:
        with tempfile.TemporaryDirectory() as name:
            main(bench, Path(name))

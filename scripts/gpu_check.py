"""The steps of scripts/gpu_check.sh. Each runs in a process of its own.

    python scripts/gpu_check.py seeds --out runs/gpu_check --tiny

A step writes its results to OUT/STEP.json, and writes the file again whenever it has more of them. With `--tiny` the
steps use small shapes, which a CPU runs in seconds.
"""

import dataclasses
import functools
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import bench_effects
import bench_load
import jax
import numpy as np
import pytest
import tune_blocks
import tyro

from jaxconf.analysis import ablated_softmax, adaptive_softmax
from jaxconf.data.corpus import Corpus
from jaxconf.models.files import replacing
from jaxconf.models.language_model import load
from jaxconf.runtime.placement import memory_of_a_device
from jaxconf.training.config import PRESETS, TrainConfig
from jaxconf.training.trainer import REPORT_STEPS, train_models

ROOT = Path(__file__).parents[1]
POSITIONS = {"gpt2-small": 256, "gemma-2b": 32, "llama-2-7b": 128}  # as in the rows of docs/benchmarks.md for a CPU
TOLERANCES = (1e-4, 1e-2)  # of the adaptive engine, nats
SEEDS = (1, 4, 16, 64)
LAYERS = (4, 32)  # of Llama 2 7B; the time of the first load says whether there is time for the second
LOADING = 45  # seconds that writing and loading the files may take
TINY_MODEL = TrainConfig(layers=1, width=16, heads=2, neurons=32, vocab_size=264, context=24, batch=2)
TINY_LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}
NVIDIA = "name,driver_version,memory.total,clocks.max.sm,power.limit"

Step = Literal[
    "facts",
    "effects-gpt2-small",
    "real-logits",
    "sets",
    "effects-gemma-2b",
    "load",
    "seeds",
    "effects-llama-2-7b",
    "tests",
]
Note = Callable[[Any], None]  # takes the results that a step has so far


@dataclasses.dataclass(frozen=True)
class Check:
    """Run one step of scripts/gpu_check.sh."""

    step: Annotated[Step, tyro.conf.Positional]
    out: Path
    """the folder for the results of the step"""
    tiny: bool = False
    """use small shapes, for a CPU"""


def facts(tiny: bool, note: Note) -> None:
    """The device, the machine, and the versions of what jaxconf needs."""
    found = {
        "tiny": tiny,
        "device": bench_effects.device(),
        "devices": [str(device) for device in jax.devices()],
        "device_memory": memory_of_a_device(),
        "platform": jax.devices()[0].client.platform_version,
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "disk": shutil.disk_usage(tempfile.gettempdir()).free,
    }
    note(found)
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", f"--query-gpu={NVIDIA}", "--format=csv,noheader"]
        found["nvidia_smi"] = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[^\w-]", text)[0] for text in needed]
    note(found | {"versions": {name: metadata.version(name) for name in names}})


def effects(shape: str, tiny: bool, note: Note) -> None:
    """The times of the engines and of the naive form at a model's last layer, and the device's highest rates."""
    positions = POSITIONS[shape]
    if tiny:
        shape, positions = "tiny", 16
        ablated_softmax.UNROLL = adaptive_softmax.UNROLL = 4  # programs that are compiled sooner
    bench_effects.main(bench_effects.Bench(shape=shape, positions=positions, torch=False), note)


def real_logits(tiny: bool, note: Note) -> None:
    """Both engines on the real logits of tests/analysis/real_logits.npz, compared with float64 sums on the host.

    The adaptive engine's heads are as small as in that test, since only some tokens are recorded.
    """
    sys.path += [str(ROOT / "tests" / folder) for folder in ("analysis", "support")]
    import test_adaptive
    import test_real_logits

    if tiny:
        ablated_softmax.UNROLL = adaptive_softmax.UNROLL = 4
    given, adaptive_softmax.HEAD = test_real_logits.recorded(), 128
    rows, *_, vocabulary = given
    test_adaptive.T = len(rows.A)
    right, _ = test_adaptive.by_every_token(*given)

    def error(sums: Any) -> float:
        return max(float(np.abs(value - right[name]).max()) for name, value in test_adaptive.figures(sums).items())

    result: dict[str, Any] = {"device": bench_effects.device(), "pairs": len(rows.A) * len(given[2]), "rows": []}
    exact = jax.jit(ablated_softmax.ablated_softmax)(*given)
    result["error_exact"] = error(exact)
    note(result)
    lse = jax.nn.logsumexp(rows.A * rows.inv[:, None] + vocabulary.b, axis=1)
    engine = jax.jit(adaptive_softmax.adaptive_softmax)
    for tolerance in TOLERANCES:
        sums, certainty = engine(*given, lse, tolerance)
        row = {"tolerance": tolerance, "error_max": error(sums), "bound_max": float(certainty.bound.max())}
        row["top1_differences"] = int((sums.top_changed != exact.top_changed).sum())
        result["rows"].append(row | {"redone": float(certainty.redone.mean())})
        note(result)


def sets(tiny: bool, note: Note) -> None:
    """The time of a set of the last layer by algebra, and by a product of its stream with W_U."""
    tune = tune_blocks.Tune(positions=8, neurons=12, width=16, vocabulary=1300) if tiny else tune_blocks.Tune(256, 3072)
    problem, found = tune_blocks.Problem.of(tune), {}
    result = {"device": bench_effects.device(), **dataclasses.asdict(tune), "members": tune_blocks.MEMBERS}
    for name, build in (("algebra", tune_blocks.by_algebra), ("products", tune_blocks.rerun)):
        run = build(problem)
        found[name] = jax.block_until_ready(run())
        took = statistics.median(bench_effects.seconds(run) for _ in range(3))
        result[f"seconds_{name}"] = took / tune_blocks.SETS
        note(result)
    losses = np.asarray(found["algebra"][0].lse_te), np.concatenate([sums.lse_te for sums, _ in found["products"]])
    note(result | {"difference": float(np.abs(losses[0] - losses[1]).max())})


def seeds(tiny: bool, note: Note) -> None:
    """Training models of one shape in one program: seconds per step and tokens per second, without compiling."""
    config = dataclasses.replace(TINY_MODEL if tiny else PRESETS["tiny"], steps=(2 if tiny else 4) * REPORT_STEPS)
    tokens = np.random.default_rng(0).integers(1, config.vocab_size, 1_000_000, np.int32)
    corpus = Corpus(tokens[: -2 * config.context], tokens[-2 * config.context :], 0, 0, {})
    rows: list[dict[str, Any]] = []
    for m in SEEDS[:2] if tiny else SEEDS:
        rates: list[float] = []
        with tempfile.TemporaryDirectory() as name:
            configs = [dataclasses.replace(config, seed=seed) for seed in range(m)]
            folders = [Path(name) / str(seed) for seed in range(m)]
            heard = functools.partial(_heard, rates)
            results = train_models(configs, corpus, folders, Path(name) / "checkpoints", report=heard)
        rate = statistics.median(rates[1:])
        row = {"seeds": m, "seconds_per_step": m * config.batch * config.context / rate, "tokens_per_second": rate}
        rows.append(row | {"held_out_loss": results[0]["held_out_loss"]})
        note({"device": bench_effects.device(), "model": dataclasses.asdict(config), "rows": rows})


def _heard(rates: list[float], step: int, measured: dict[str, float]) -> None:
    rates.append(measured["tokens_per_second"])


def load_model(tiny: bool, note: Note) -> None:
    """Loading a model of Llama 2 7B's shape from files that were just written, beside only reading or sending them."""
    sent = _sent_per_second(2**20 if tiny else 2**30)
    result: dict[str, Any] = {"device": bench_effects.device(), "sent_per_second": sent, "rows": []}
    shape = bench_load.LLAMA | (TINY_LLAMA if tiny else {})
    for layers in (1, 2) if tiny else LAYERS:
        hf = shape | {"num_hidden_layers": layers}
        if short := _short_of(bench_load.bytes_of(hf), result["rows"]):
            note(result | {"left_out": f"{layers} layers: {short}"})
            return
        with tempfile.TemporaryDirectory() as name:
            result["rows"].append({"layers": layers, **_loaded(Path(name), hf)})
        note(result)


def _short_of(size: int, rows: list[dict[str, Any]]) -> str:
    """What there is too little of for files of `size` bytes: disk, memory or time; empty if there is enough of all.

    `rows`: the results of earlier loads, from which the time is estimated.
    """
    free = shutil.disk_usage(tempfile.gettempdir()).free
    memory = min(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2, memory_of_a_device() or size * 2)
    took = 0.0
    if rows:
        last = rows[-1]
        took = (last["seconds_writing"] + last["seconds_reading"] + last["seconds"]) * size / last["bytes"]
    for what, needed, there in (("disk", size, free), ("memory", size, memory), ("time", took, LOADING)):
        if needed > 0.9 * there:
            return f"too little {what}, {needed:.3g} of {there:.3g}"
    return ""


def _loaded(folder: Path, hf: dict[str, Any]) -> dict[str, Any]:
    times = [time.perf_counter()]
    bench_load.write(folder, hf, quickly=True)
    times.append(time.perf_counter())
    bench_load.read(folder)
    times.append(time.perf_counter())
    weights = jax.tree.leaves(jax.block_until_ready(load(folder, dtype=None).params))
    times.append(time.perf_counter())
    return {
        "bytes": sum(w.nbytes for w in weights),
        "seconds_writing": times[1] - times[0],
        "seconds_reading": times[2] - times[1],
        "seconds": times[3] - times[2],
        "host_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _sent_per_second(size: int) -> float:
    """Bytes per second that JAX sends from the host's memory to the device's; the best of three tries."""
    array = np.ones(size, np.uint8)
    return size / min(bench_effects.seconds(lambda: jax.device_put(array, jax.local_devices()[0])) for _ in range(3))


class Outcomes:
    """A pytest plugin that notes the outcomes after each test. With `most`, only the last `most` tests run."""

    def __init__(self, note: Note, most: int | None):
        self.note, self.most = note, most
        self.result: dict[str, Any] = {"collected": 0, "passed": 0, "skipped": 0, "failed": {}, "seconds": {}}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.result["collected"] = len(items)  # tests without the mark have been removed by now
        if self.most:
            del items[: -self.most]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        taken = self.result["seconds"]
        taken[report.nodeid] = round(taken.get(report.nodeid, 0) + report.duration, 2)
        if report.failed:
            self.failed(report)
        elif report.skipped or report.when == "call":
            self.result[report.outcome] += 1
        self.note(self.result)

    def failed(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        self.result["failed"][report.nodeid] = report.longreprtext[-3000:]
        self.note(self.result)


def marked_tests(tiny: bool, note: Note) -> None:
    """The tests that are marked `device`; test files without the mark are not imported."""
    marked = re.compile(r"\bdevices=[\[A-Z]|mark\.device")
    files = sorted(str(file) for file in (ROOT / "tests").rglob("test_*.py") if marked.search(file.read_text()))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # other plugins may be installed on the machine
    status = pytest.main(["-m", "device", "-p", "no:cacheprovider", *files], [Outcomes(note, 2 if tiny else None)])
    raise SystemExit(int(status))


STEPS: dict[str, Callable[[bool, Note], None]] = {
    "facts": facts,
    "effects-gpt2-small": functools.partial(effects, "gpt2-small"),
    "real-logits": real_logits,
    "sets": sets,
    "effects-gemma-2b": functools.partial(effects, "gemma-2b"),
    "load": load_model,
    "seeds": seeds,
    "effects-llama-2-7b": functools.partial(effects, "llama-2-7b"),
    "tests": marked_tests,
}


def main(check: Check) -> None:
    def note(result: Any) -> None:
        with replacing(check.out / f"{check.step}.json") as path:
            path.write_text(json.dumps(result, indent=1) + "\n")

    STEPS[check.step](check.tiny, note)


if __name__ == "__main__":
    main(tyro.cli(Check))

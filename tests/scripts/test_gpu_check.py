"""The check on a GPU: how its script deals with steps, what they write with small shapes, and the page of that."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import bench_effects
import effects_page
import pytest

ROOT = Path(__file__).parents[2]
STEPS = "facts effects-gpt2-small real-logits sets effects-gemma-2b load seeds effects-llama-2-7b tests".split()
MINUTES = 8
# What scripts/gpu_check.sh expects there and, in the second line, what comes along with that.
PROMISED = set("jax flax optax orbax-checkpoint pandas pyarrow matplotlib rich tokenizers safetensors".split())
PROMISED |= {"numpy", "scipy", "ml_dtypes", "huggingface_hub", "packaging"}


def script(name: str, *arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    asked = {**os.environ, "PYTHON": sys.executable, **{key: str(value) for key, value in environment.items()}}
    command = [ROOT / "scripts" / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=asked, check=False)


def interpreter(file: Path, **steps: str) -> Path:
    """What runs these lines of bash for those steps, nothing for other steps, and Python for all else; OUT is $4."""
    cases = "\n".join(f"{step}) {lines} ;;" for step, lines in steps.items())
    file.write_text(
        f"#!/usr/bin/env bash\npython={shlex.quote(sys.executable)}\n"
        f'case $1 in *gpu_check.py) case $2 in\n{cases}\nesac ;; *) exec "$python" "$@" ;; esac\n'
    )
    file.chmod(0o755)
    return file


def told(out: Path) -> dict[str, Any]:
    return json.loads((out / "gpu_check.json").read_text())["steps"]


@pytest.mark.command
def test_the_other_steps_run_whatever_becomes_of_one(tmp_path: Path) -> None:
    lines = {
        "facts": 'echo \'{"device": "some GPU"}\' > "$4/facts.json"',
        "seeds": 'echo \'{"rows": []}\' > "$4/seeds.json"; sleep 60',
        "load": "echo no such package >&2; exit 3",
    }
    ran = script("gpu_check.sh", "--out", tmp_path / "out", PYTHON=interpreter(tmp_path / "python", **lines), LIMIT=3)
    found = told(tmp_path / "out")
    assert (ran.returncode, list(found)) == (1, STEPS)
    assert [step for step in STEPS if not found[step]["ok"]] == ["load", "seeds"]
    assert found["facts"]["result"] == {"device": "some GPU"}
    assert (found["seeds"]["ended"], found["seeds"]["result"]) == ("out of time", {"rows": []})
    assert (found["load"]["ended"], found["load"]["log"]) == ("failed with status 3", "no such package\n")
    assert all(step["seconds"] < 30 and step["limit"] == 3 for step in found.values())
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["gpu_check.json"]

    precision = "${JAX_DEFAULT_MATMUL_PRECISION:-}"
    python = interpreter(tmp_path / "python", load=f'[ -z "{precision}" ]', tests=f'[ "{precision}" = highest ]')
    again = script("gpu_check.sh", "--out", tmp_path / "out", "load", "tests", PYTHON=python)
    assert (again.returncode, list(told(tmp_path / "out"))) == (0, STEPS)
    assert told(tmp_path / "out")["load"]["ended"] == "finished"
    assert told(tmp_path / "out")["seeds"] == found["seeds"]


def test_the_steps_fit_in_the_time_and_are_shown_without_being_run(tmp_path: Path) -> None:
    ran = script("gpu_check.sh", "--out", tmp_path / "out", DRY_RUN=1)
    commands = [shlex.split(line) for line in ran.stdout.splitlines()]
    assert [command[5] for command in commands] == STEPS
    limits = [int(command[2]) for command in commands]
    assert 60 * MINUTES - 15 < sum(limits) < 60 * MINUTES
    assert min(limits) > 20
    assert min(limits[1:]) > 40
    assert script("gpu_check.sh", "--tiny", "seeds", DRY_RUN=1).stdout.endswith("seeds --out runs/gpu_check --tiny \n")
    refused = script("gpu_check.sh", "--huge", DRY_RUN=1)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "usage: " in refused.stderr
    assert not (tmp_path / "out").exists()


def test_time_that_a_step_leaves_is_shared_by_those_after_it(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "python", facts="sleep 5")
    assert script("gpu_check.sh", "--out", tmp_path / "out", "facts", "sets", "tests", PYTHON=python).returncode == 0
    facts, sets, tests = (told(tmp_path / "out")[step]["limit"] for step in ("facts", "sets", "tests"))
    assert facts == 470 * 5 // 32
    assert sets + tests > 470 - facts
    assert sets == pytest.approx((470 - 5) * 9 / 27, abs=20)
    assert 440 < tests < 470 - 4


def test_wheels_bring_what_the_machine_is_not_promised_to_have() -> None:
    command = shlex.split(script("gpu_wheels.sh", "folder", DRY_RUN=1).stdout)
    assert command[command.index("--dest") + 1] == "folder"
    brought = {name.partition("==")[0] for name in command if "==" in name}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[^\w-]", text)[0] for text in needed} <= PROMISED | brought
    assert script("gpu_wheels.sh", "a", "b").returncode == 2


def test_a_wheel_is_used_only_where_the_machine_lacks_it(tmp_path: Path) -> None:
    """Of two wheels the one whose package is not installed here."""
    (tmp_path / "wheels").mkdir()
    for name in ("numpy", "only_in_a_wheel"):
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        with zipfile.ZipFile(tmp_path / "wheels" / f"{name}-0.1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "")
            wheel.writestr(f"{name}-0.1.dist-info/METADATA", about)
            wheel.writestr(f"{name}-0.1.dist-info/WHEEL", kind)
            wheel.writestr(f"{name}-0.1.dist-info/RECORD", "")
    python = interpreter(tmp_path / "python", facts='"$python" -c "import only_in_a_wheel, numpy; numpy.ones(1)"')
    ran = script("gpu_check.sh", "--out", tmp_path / "out", "--wheels", tmp_path / "wheels", "facts", PYTHON=python)
    assert ran.returncode == 0, ran.stderr


def small_run(out: Path, *steps: str) -> dict[str, Any]:
    ran = script("gpu_check.sh", "--tiny", "--out", out, *steps)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = told(out)
    assert all(step["ok"] and 0 < step["seconds"] < step["limit"] for step in found.values())
    return {name: step["result"] for name, step in found.items()}


@pytest.mark.command
def test_a_small_run_of_the_step_that_compiles_nothing(tmp_path: Path) -> None:
    found = small_run(tmp_path, "facts")
    assert found["facts"]["tiny"]
    assert found["facts"]["device"] == bench_effects.device()


@pytest.mark.slow
def test_a_small_run_of_every_step(tmp_path: Path) -> None:
    found = small_run(tmp_path)
    assert list(found) == STEPS
    for step in (step for step in STEPS if step.startswith("effects-")):
        assert found[step]["error_max"] < found[step]["tolerance"]
        assert found[step]["exponentials_per_second"] > 1e6
    for row in found["real-logits"]["rows"]:
        assert row["error_max"] < row["bound_max"] <= row["tolerance"]
        assert 0 < row["redone"] < 0.5
        assert row["top1_differences"] == 0
    assert found["real-logits"]["error_exact"] < 1e-5
    assert found["sets"]["difference"] < 1e-5
    assert [row["seeds"] for row in found["seeds"]["rows"]] == [1, 4]
    assert [row["layers"] for row in found["load"]["rows"]] == [1, 2]
    assert found["tests"]["collected"] > 50
    assert (found["tests"]["passed"], found["tests"]["failed"]) == (2, {})
    text = effects_page.page([tmp_path / "gpu_check.json"])
    assert len([line for line in text.splitlines() if line.startswith("| tiny |")]) == 6


@pytest.mark.command
def test_the_benchmark_of_the_effects_at_a_small_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_effects, "ceilings", lambda: {"exponentials_per_second": 1e9, "bytes_per_second": 1e9})
    noted: list[set[str]] = []
    bench = bench_effects.Bench(shape="tiny", positions=16, torch=False)
    found = bench_effects.main(bench, lambda result: noted.append(set(result)))
    assert found["error_exact"] < 1e-4
    assert found["error_max"] < found["tolerance"]
    first = {name: next(i for i, has in enumerate(noted) if name in has) for name in ORDER}
    assert [first[name] for name in ORDER] == list(range(len(ORDER)))
    assert min(found[f"seconds_{engine}"] for engine in ("naive", "exact", "adaptive")) > 0


ORDER = "exponentials_per_second compile_exact entropy compile_adaptive redone seconds_adaptive".split()
EFFECTS = {
    "shape": "gpt2-small",
    "logits": "realistic",
    "positions": 256,
    "tolerance": 1e-4,
    "entropy": 3.0,
    "error_mean": 3e-7,
    "error_max": 6e-6,
    "bound_max": 1e-4,
    "redone": 0.01,
    "memory_exact": 2e8,
    "memory_adaptive": 6e8,
    "seconds_naive": 9.0,
    "seconds_exact": 3.0,
    "seconds_adaptive": 1.0,
    "ratio_exact": 3.0,
    "ratio_adaptive": 9.0,
    "exponentials_per_second": 2.5e12,
    "bytes_per_second": 2.9e12,
    "exact_share_of_exponentials": 0.2,
}
REAL = {"tolerance": 1e-4, "error_max": 3e-5, "bound_max": 9e-5, "redone": 0.25}
SETS = {"width": 768, "vocabulary": 50257, "positions": 256, "members": 10}
SETS |= {"seconds_algebra": 0.01, "seconds_products": 0.2, "difference": 1e-6}
TRAINED = [{"seeds": m, "seconds_per_step": 2e-3 * m**0.5, "tokens_per_second": 4e6 * m**0.5} for m in (1, 4)]
LOADED = {"layers": 32, "bytes": 13.5e9, "seconds": 5.0, "seconds_reading": 4.0}


def test_a_page_names_the_device_of_each_row(tmp_path: Path) -> None:
    device, cpu, gpu = {"device": "Some GPU"}, tmp_path / "cpu.json", tmp_path / "gpu_check.json"
    cpu.write_text(json.dumps(EFFECTS | {"device": "Some CPU, 2 cores"}))
    results = {
        "facts": device,
        "effects-gpt2-small": EFFECTS | device,
        "effects-llama-2-7b": {"shape": "llama-2-7b", **device},  # as a step leaves it that ran out of time
        "real-logits": device | {"error_exact": 2e-6, "rows": [REAL]},
        "sets": device | SETS,
        "seeds": device | {"rows": TRAINED},
        "load": device | {"sent_per_second": 1e10, "rows": [LOADED]},
        "tests": {"collected": 70, "passed": 60, "skipped": 1, "failed": {"a test": "why"}, "seconds": {}},
    }
    ended = {"ok": False, "ended": "out of time", "seconds": 85.4, "limit": 85.0}
    gpu.write_text(json.dumps({"steps": {step: ended | {"result": result} for step, result in results.items()}}))
    text = effects_page.page([cpu, gpu])
    assert "Machines: Some CPU, 2 cores; Some GPU.\n" in text
    rows = text.splitlines()
    assert "| gpt2-small | realistic | 256 | 0.0001 | 9 s |  | 3.0 s | 1.0 s | 3 | 9 |" in rows
    assert "| gpt2-small, Some GPU | realistic | 256 | 0.0001 | 9 s |  | 3.0 s | 1.0 s | 3 | 9 |" in rows
    assert "| Some GPU | gpt2-small | 2.5e+12 | 2,900 GB/s |" in rows
    assert "| Some GPU | 0.0001 | 3e-05 | 9e-05 | 2e-06 | 25.0% |" in rows
    assert "| Some GPU | 768 | 50,257 | 256 | 10 | 10.0 ms | 200.0 ms | 1e-06 |" in rows
    assert "| Some GPU | 4 | 4.0 ms | 2.00 | 8,000,000 |" in rows
    assert "| Some GPU | 32 | 13.50 GB | 5.00 s | 4.00 s | 1.35 s |" in rows
    assert "| Some GPU | 60 | 1 | 9 |" in rows
    assert [row for row in rows if "llama-2-7b" in row] == [
        "| Some GPU | effects-llama-2-7b | out of time | 85 s | 85 s |"
    ]

    gpu.write_text(json.dumps({"steps": {step: ended | {"result": None} for step in results}}))
    nothing = effects_page.page([gpu])
    assert "| unknown device | seeds | out of time | 85 s | 85 s |" in nothing.splitlines()
    assert "are trained in one program" not in nothing  # no sentence without its table
    alone = effects_page.page([cpu])
    assert "On accelerators" not in alone
    assert "No accelerator was measured" in alone

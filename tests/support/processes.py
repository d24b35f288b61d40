"""Commands as processes, several of which may be hosts that do one job, and what their run folders must share."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from meshes import same

Launched = list[subprocess.Popen[str]]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def launch(count: int, arguments: list[str], devices: int = 1) -> Launched:
    """A command on so many hosts, each a process with its own devices; alone if it is one."""
    joined = ["--coordinator", f"localhost:{free_port()}", "--hosts", str(count)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "jaxconf", *arguments, *([*joined, "--host", str(host)] if count > 1 else [])],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for host in range(count)
    ]


def ended(processes: Launched, code: int) -> list[str]:
    """What they said, on stderr, once all have ended."""
    said = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return said


def tables(folder: Path) -> Iterator[tuple[str, pd.DataFrame, dict[str, object]]]:
    for file in sorted(folder.glob("*.parquet")):
        yield file.name, pd.read_parquet(file), json.loads((folder / "summary.json").read_text())["facts"]


def runs_agree(ours: Path, alone: Path) -> None:
    found = list(zip(tables(ours), tables(alone), strict=True))
    for (name, of_ours, facts), (name_alone, of_alone, facts_alone) in found:
        assert name == name_alone
        words = [column for column in of_alone if of_alone[column].dtype == object or of_alone[column].dtype == "str"]
        pd.testing.assert_frame_equal(of_ours[words], of_alone[words])
        same(of_ours.drop(columns=words), of_alone.drop(columns=words))
        for fact in ("data_sha256", "counts_sha256", "positions"):
            assert facts[fact] == facts_alone[fact]

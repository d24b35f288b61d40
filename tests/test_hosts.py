"""Several processes that find each other on this machine and do one job: the same tables as one process, and an end where one is lost."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from refusals import check_error
from test_mesh import agree as of_induction
from test_mesh import same

from jaxconf import hosts
from jaxconf.hosts import Hosts

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TEXT = "\n".join(f"def value_{i % 7}(x):\n    return x[{i % 5}] + {i % 3}" for i in range(400))
PICKED = ["--set", "1.3,0.4", "--controls", "1", "--per-token", "1.3"]
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


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return str(file)


def tables(folder: Path) -> Iterator[tuple[str, pd.DataFrame, dict[str, object]]]:
    for file in sorted(folder.glob("*.parquet")):
        yield file.name, pd.read_parquet(file), json.loads((folder / "summary.json").read_text())["facts"]


def agree(ours: Path, alone: Path) -> None:
    found = list(zip(tables(ours), tables(alone), strict=True))
    for (name, of_ours, facts), (name_alone, of_alone, facts_alone) in found:
        assert name == name_alone
        words = [column for column in of_alone if of_alone[column].dtype == object or of_alone[column].dtype == "str"]
        pd.testing.assert_frame_equal(of_ours[words], of_alone[words])
        same(of_ours.drop(columns=words), of_alone.drop(columns=words))
        for fact in ("data_sha256", "counts_sha256", "positions"):
            assert facts[fact] == facts_alone[fact]


def test_a_lost_host_ends_the_others_and_a_restart_gives_the_tables_of_one(text: str, tmp_path: Path) -> None:
    how = ["analyze", "--data", text, "--tokens", "6144", "--bootstrap-draws", "0"]
    alone = launch(1, [*how, "--out", str(tmp_path / "alone")])
    split = [*how, "--out", str(tmp_path / "run"), "--mesh", "data=1,model=2", "--memory", "8MB"]
    several = launch(2, split)
    while not (parts := set((tmp_path / "run").glob(".partial/*/*.npz"))) and several[0].poll() is None:
        time.sleep(0.02)
    several[1].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    said = several[0].communicate(timeout=60)[1]
    assert time.monotonic() - begun < 60
    assert several[0].returncode not in (0, None)
    assert hosts.LOST in said
    assert hosts.LOST in several[1].communicate()[1]
    assert parts
    assert not (tmp_path / "run" / "neurons.parquet").exists()

    before = {part: part.stat().st_mtime_ns for part in parts}
    again = launch(2, split)
    while again[0].poll() is None:
        with contextlib.suppress(FileNotFoundError):
            assert all(part.stat().st_mtime_ns == made for part, made in before.items())
        time.sleep(0.1)
    ended(again, 0)
    ended(alone, 0)
    agree(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices", "mesh"), [(2, 2, "data=4,model=1"), (4, 2, "data=2,model=4"), (4, 1, "data=2,model=2")])
def test_the_tables_of_several_are_those_of_one(count: int, devices: int, mesh: str, text: str, tmp_path: Path) -> None:
    how = ["analyze", "--data", text, "--tokens", "512", "--layer", "all", *PICKED]
    several = launch(count, [*how, "--out", str(tmp_path / "several"), "--mesh", mesh], devices)
    ended(several, 0)
    ended(launch(1, [*how, "--out", str(tmp_path / "alone")]), 0)
    agree(tmp_path / "several", tmp_path / "alone")


@pytest.mark.slow
def test_induction_on_two_hosts(text: str, tmp_path: Path) -> None:
    how = [
        "induction",
        "--data",
        text,
        "--sequences",
        "3",
        "--length",
        "12",
        "--controls",
        "1",
        "--tokens",
        "512",
        "--bootstrap-draws",
        "20",
    ]
    several = launch(2, [*how, "--out", str(tmp_path / "several"), "--mesh", "data=1,model=2"])
    ended(several, 0)
    ended(launch(1, [*how, "--out", str(tmp_path / "alone")]), 0)
    files = sorted((tmp_path / "alone").glob("*.parquet"))
    assert len(files) >= 8
    for file in files:
        of_induction(pd.read_parquet(tmp_path / "several" / file.name), pd.read_parquet(file))


@pytest.mark.slow
def test_two_hosts_are_one_worker_of_a_sweep(text: str, tmp_path: Path) -> None:
    definition = tmp_path / "sweep.toml"
    definition.write_text(
        f'models = ["bundled", "{tmp_path / "nowhere"}"]\ndata = ["{text}"]\n[options]\ntokens = 512\nbootstrap_draws = 0\n'
    )
    workers = launch(2, ["sweep", str(definition), "--out", str(tmp_path / "sweep"), "--tries", "1"])
    assert all("1 cells failed" in said for said in ended(workers, 2))
    found = [folder.name for folder in (tmp_path / "sweep" / "cells").iterdir()]
    assert [name[5:12] for name in found] == ["bundled"]
    ended(launch(1, ["analyze", "--data", text, "--tokens", "512", "--bootstrap-draws", "0", "--out", str(tmp_path / "alone")]), 0)
    agree(tmp_path / "sweep" / "cells" / found[0], tmp_path / "alone")


def test_what_the_first_host_refuses_all_refuse(text: str, tmp_path: Path) -> None:
    (tmp_path / "neurons.parquet").touch()
    for said in ended(launch(2, ["analyze", "--data", text, "--out", str(tmp_path)]), 2):
        assert f"{tmp_path / 'neurons.parquet'} exists already" in said
        assert hosts.LOST not in said


def test_a_coordinator_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "TIMEOUT", 1)
    address = f"localhost:{free_port()}"
    check_error(lambda: hosts.join(Hosts(address, 2, 1)), address, "1 seconds", "refused")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Hosts(None, 2, 0), "--coordinator HOST:PORT"),
        (Hosts("auto", None, 0), "--coordinator HOST:PORT"),
        (Hosts("here:1234"), "--hosts"),
        (Hosts("here:1234", 2, 2), "from 0"),
        (Hosts("here", 2, 0), "HOST:PORT"),
        (Hosts("here:port", 2, 0), "HOST:PORT"),
    ],
)
def test_hosts_that_do_not_fit_together(asked: Hosts, said: str) -> None:
    check_error(lambda: hosts.join(asked), said)


@pytest.mark.parametrize(
    ("name", "value", "several"),
    [
        ("SLURM_STEP_NUM_TASKS", "4", True),
        ("SLURM_STEP_NUM_TASKS", "1", False),
        ("OMPI_COMM_WORLD_SIZE", "2", True),
        ("TPU_WORKER_HOSTNAMES", "a,b", True),
        ("TPU_WORKER_HOSTNAMES", "a", False),
    ],
)
def test_tasks_of_one_job_are_seen(name: str, value: str, several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert hosts._several() is several

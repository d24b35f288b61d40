"""Sweeps on Dask workers: what becomes of cells whose workers fail, are killed or are stopped."""

import functools
import logging
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweeps import begun, eats_memory, endings, fails, results, squares

from jaxconf.models.errors import InputError
from jaxconf.runtime.lock import locked
from jaxconf.runtime.workers import on_slurm, workers
from jaxconf.sweeps.cells import LOCK, Run, lost, statuses
from jaxconf.sweeps.dispatch import LOG, _resources, dispatch, run_on_workers
from jaxconf.sweeps.plan import Need


def needed(runs: dict[str, Run]) -> dict[str, Need]:
    return {name: Need(1.0, 1, float(number)) for number, name in enumerate(runs)}


@pytest.fixture
def client() -> Iterator[Any]:
    """Two workers that are threads of this process."""
    from distributed import Client, LocalCluster

    how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.CRITICAL}
    with LocalCluster(processes=False, **how) as local, Client(local, set_as_default=False) as found:
        yield found


@pytest.mark.command
def test_a_cell_that_fails_does_so_alone(client: Any, tmp_path: Path) -> None:
    folder, said = begun(tmp_path), []
    runs = {**squares(6), "bad": fails}
    dispatch(client, runs, needed(runs), folder, 2, said.append)
    found = statuses(runs, folder, 2)
    assert results(folder) == {f"{number:02d}": number**2 for number in range(6)}
    assert (found["bad"].state, found["bad"].attempts) == ("failed", 2)
    assert found["bad"].message == "there is no such model; give another"
    assert sum(line.startswith("bad: failed") for line in said) == 2
    cells = {name: {} for name in runs}
    run_on_workers(runs, cells, folder, 2, {"--scheduler": "nobody:1"}, said.append, lambda **about: None)
    assert len(said) == 8  # nothing is done again, and no scheduler is asked for


@pytest.mark.command
def test_what_cannot_even_begin_has_failed(client: Any, tmp_path: Path) -> None:
    """A worker whose installation lacks what the cell needs."""
    folder, said = begun(tmp_path), []
    runs: dict[str, Run] = {"00": functools.partial(_Unreadable())}
    dispatch(client, runs, needed(runs), folder, 2, said.append)
    found = statuses(runs, folder, 2)["00"]
    assert (found.state, found.attempts) == ("failed", 2)
    assert found.message.startswith("the cluster cannot begin it")


class _Unreadable:
    def __call__(self, place: Path, progress: Any) -> None:
        raise AssertionError("never called")

    def __reduce__(self) -> Any:
        return _raise, ()


def _raise() -> None:
    raise ModuleNotFoundError("no such module")


def test_only_needs_that_not_every_worker_has_are_named() -> None:
    need = Need(6e9, 1, 1.0)
    same, apart = {"memory": (8e9, 8e9)}, {"memory": (8e9, 80e9), "devices": (1, 1)}
    assert _resources({}, need, 0) is None
    assert _resources(same, need, 5) is None
    assert _resources(apart, need, 0) is None
    assert _resources(apart, need, 1) is None
    assert _resources(apart, need, 2) == {"memory": 12e9}  # doubled after two deaths
    assert _resources(apart, need._replace(memory=50e9), 2) == {"memory": 80e9}  # what the largest has


class Killer(threading.Thread):
    """Kills random ones of the workers that are at a cell, as often as asked for."""

    def __init__(self, folder: Path, runs: dict[str, Run], times: int) -> None:
        super().__init__()
        self.folder, self.runs, self.left, self.rng = folder, runs, times, random.Random(0)
        self.killed: list[int] = []

    def run(self) -> None:
        while self.left:
            time.sleep(self.rng.uniform(0.1, 0.4))
            found = statuses(self.runs, self.folder, 3).values()
            at_work = [int(status.worker.rpartition(":")[2]) for status in found if status.worker]
            if at_work := [pid for pid in at_work if pid not in self.killed]:
                self.killed.append(self.rng.choice(at_work))
                os.kill(self.killed[-1], signal.SIGKILL)
                self.left -= 1


@pytest.mark.command
def test_killed_workers_lose_and_double_nothing(tmp_path: Path) -> None:
    """Two workers of this machine; three are killed at work, and one cell always takes its worker with it."""
    folder, said = begun(tmp_path), []
    runs: dict[str, Run] = {**squares(12, 0.6), "eater": eats_memory}
    killer = Killer(folder, {name: run for name, run in runs.items() if name != "eater"}, 3)
    with locked(folder / LOCK), workers("--workers", 2, len(runs), folder / LOG) as client:
        killer.start()
        dispatch(client, runs, needed(runs), folder, 2, said.append)
        killer.join()
    found = statuses(runs, folder, 2)
    assert results(folder) == {f"{number:02d}": number**2 for number in range(12)}
    assert (found["eater"].state, found["eater"].attempts, found["eater"].deaths) == ("failed", 3, 3)
    assert found["eater"].message == "3 workers died at this cell; does it need more memory?"
    assert len(set(killer.killed)) == 3
    assert endings(folder, "failed") == []
    for name in squares(12):
        assert sum(line.startswith(f"{name}: finished") for line in said) == 1


@pytest.mark.command
def test_a_stop_lets_the_workers_finish_their_windows(client: Any, tmp_path: Path) -> None:
    folder, runs = begun(tmp_path), squares(8, 2.0)
    press = threading.Timer(1.2, os.kill, (os.getpid(), signal.SIGINT))
    press.start()
    with locked(folder / LOCK), pytest.raises(KeyboardInterrupt):
        dispatch(client, runs, needed(runs), folder, 3, lambda sentence: None)
    kept = {path.parts[-3]: 1 for path in folder.glob("attempts/.*.work/.partial/*.npz")}
    assert len(kept) == 2  # the two that were begun
    assert endings(folder, "begun") == endings(folder, "died") == []
    assert results(folder) == {}
    assert not lost(folder, runs)


SBATCH = """#!/usr/bin/env bash
# A stand-in for Slurm: a job is a process group of this machine.
cd {folder} || exit 1
case $(basename "$0") in
sbatch)
    if [ "$1" = --test-only ]; then
        grep -q -- "-p refused" "$2" && {{ echo "sbatch: error: invalid partition" >&2; exit 1; }}
        exit 0
    fi
    id=$$
    cp "$1" jobs/job$id.sh
    setsid bash jobs/job$id.sh >jobs.log 2>&1 &
    echo $! >pids/$id
    echo "Submitted batch job $id" ;;
squeue) ls pids ;;
scancel)
    kill -- "-$(cat "pids/$1")" 2>/dev/null
    rm -f "pids/$1" ;;
esac
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the jobs that were submitted to a stand-in for Slurm."""
    folder = tmp_path / "slurm"
    for name in ("bin", "jobs", "pids"):
        (folder / name).mkdir(parents=True)
    for name in ("sbatch", "squeue", "scancel"):
        (folder / "bin" / name).write_text(SBATCH.format(folder=shlex.quote(str(folder))))
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return folder


@pytest.mark.command
def test_slurm_runs_the_cells(slurm: Path, tmp_path: Path) -> None:
    folder, runs, said = begun(tmp_path / "sweep"), squares(6, 0.4), []
    asked = "partition=gpu,gpus=1,time=4:00:00,max=2"
    with locked(folder / LOCK), workers("--slurm", asked, len(runs), folder / LOG) as client:
        dispatch(client, runs, needed(runs), folder, 2, said.append)
    assert results(folder) == {f"{number:02d}": number**2 for number in range(6)}
    scripts = sorted((slurm / "jobs").iterdir())
    assert len(scripts) == 2  # as many as there are cells left, and at most max
    assert not list((slurm / "pids").iterdir())  # and all were given back
    script = scripts[0].read_text()
    for line in ("-p gpu", "--cpus-per-task=8", "-t 4:00:00", "--gpus=1", "-J jaxconf"):
        assert f"#SBATCH {line}\n" in script
    assert "--nthreads 1" in script
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, scripts[0]], check=True)
    with pytest.raises(InputError, match=r"Slurm refuses such jobs .*invalid partition"):
        on_slurm("partition=refused")

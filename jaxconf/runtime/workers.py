"""Processes that work for this one, by Dask: of this machine, of Slurm, or of a cluster that exists.

A worker has one thread, so it does one thing at a time, with one JAX.
"""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxconf.models.errors import InputError, first_line
from jaxconf.runtime.shares import seen, shares

if TYPE_CHECKING:
    from distributed import Client

SETTINGS = {
    "distributed.scheduler.worker-saturation": 1.0,  # what waits is not given to workers yet: the first comes first
    "distributed.scheduler.unknown-task-duration": "1h",  # a thing is worth a worker before one was timed
    "distributed.deploy.lost-worker-timeout": "2 minutes",  # in which a busy machine starts a killed worker again
}
SLURM = {"partition": "queue", "account": "account", "time": "walltime"}  # keys of --slurm → arguments of dask-jobqueue


@contextlib.contextmanager
def workers(option: str, value: Any, most: int, log: Path) -> Iterator["Client"]:
    """A client of the workers that an option asks for, which end with the block unless they were there before.

    `option`, `value`: --workers and their number; --scheduler and an address; --slurm and what a job is to have
    (`on_slurm`). `most`: how many workers are of use. `log`: a file for what workers of this machine print. Raises
    InputError if Dask is not installed and if the workers cannot be had.
    """
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "this needs Dask, which is not installed; install it with pip install 'jaxconf[cluster]', or leave out "
            f"{option}"
        ) from error
    if option == "--scheduler":
        try:
            client = Client(value, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {value} ({first_line(error)}); give the address that it printed, such "
                "as tcp://10.0.0.1:8786"
            ) from error
        with client:
            yield client
        return
    with (
        dask.config.set(SETTINGS),
        on_this_machine(value, most) if option == "--workers" else on_slurm(value) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        if option == "--workers":
            client.register_plugin(_apart(len(cluster.workers), log))
        yield client


def on_this_machine(count: int, most: int) -> Any:
    """A cluster of processes on this machine, each with its share of the devices.

    Raises InputError as `jaxconf.runtime.shares.shares` does.
    """
    from distributed import Nanny, Scheduler, SpecCluster

    how = {"nthreads": 1, "memory_limit": None, "host": "127.0.0.1", "silence_logs": logging.CRITICAL}
    options = []
    for share in shares(seen(), count)[:most]:
        has = {name: amount for name, amount in (("devices", share.devices), ("memory", share.memory)) if amount}
        options.append({**how, "env": share.environment, "resources": has})
    return SpecCluster(
        workers={number: {"cls": Nanny, "options": of_one} for number, of_one in enumerate(options)},
        scheduler={"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": ":0"}},
        silence_logs=logging.CRITICAL,
    )


def _apart(count: int, log: Path) -> Any:
    """A plugin for the workers of this machine.

    Ctrl-C is for the command alone, so is the terminal, and each worker has its part of the processors.
    """
    from distributed import WorkerPlugin

    class Apart(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            if hasattr(os, "sched_setaffinity"):
                processors = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, processors[int(worker.name) % len(processors) :: count])

    return Apart()


def on_slurm(text: str) -> Any:
    """A cluster whose workers are Slurm's jobs: as many as there are things left to do, up to `max`.

    `text`: what a job is to have, as in "partition=gpu,gpus=1,time=4:00:00,max=64"; `cpus` (8), `mem` (64GB) and `max`
    (64) have defaults, and a key that is none of these is an option of sbatch. Raises InputError for a text without
    such pairs, if there is no sbatch, and if that refuses the job.
    """
    from dask_jobqueue import SLURMCluster

    asked: dict[str, Any] = dict(slurm_options(text))
    most = int(asked.pop("max"))
    if not shutil.which("sbatch"):
        raise InputError("there is no sbatch on this machine; give --slurm where jobs can be submitted")
    cluster = SLURMCluster(
        **{SLURM[key]: asked.pop(key) for key in SLURM if key in asked},
        cores=1,
        processes=1,
        job_cpu=int(asked.pop("cpus")),
        memory=asked.pop("mem"),
        worker_extra_args=["--no-dashboard", "--memory-limit", "0"],  # Slurm has a limit of its own
        job_extra_directives=[f"--{key}={value}" if value else f"--{key}" for key, value in asked.items()],
        job_name="jaxconf",
        scheduler_options={"dashboard_address": ":0"},
        silence_logs=logging.CRITICAL,
    )
    try:
        _check_job(cluster.job_script())
    except InputError:
        cluster.close()
        raise
    cluster.adapt(minimum=0, maximum=most, target_duration="1s", wait_count=30)
    return cluster


def slurm_options(text: str) -> dict[str, str]:
    """The keys and values of --slurm, with the defaults. Raises InputError for anything else."""
    pairs = [part.partition("=") for part in text.split(",")]
    found = {"cpus": "8", "mem": "64GB", "max": "64"} | {key.strip(): value.strip() for key, _, value in pairs}
    counted = all(found[key].isdecimal() and int(found[key]) for key in ("max", "cpus"))
    if not counted or not all(key and equals for key, equals, _ in pairs):
        raise InputError(
            f"--slurm is {text!r}; give what a job is to have, such as partition=gpu,gpus=1,time=4:00:00,max=64"
        )
    return found


def _check_job(script: str) -> None:
    """Raises InputError if Slurm would refuse the job."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        asked = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = first_line(RuntimeError(asked.stderr))
        raise InputError(f"Slurm refuses such jobs ({reason}); give --slurm what your cluster asks for")

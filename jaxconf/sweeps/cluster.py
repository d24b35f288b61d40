"""The cells of a sweep on Dask workers: of this machine, of a cluster that exists, or of Slurm.

Dask decides who runs what and when; what became of a cell is read in the sweep's folder alone. A worker is a process
with one thread, one JAX and one cell at a time.
"""

import contextlib
import functools
import logging
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxconf.models.errors import InputError, first_line
from jaxconf.runtime.shares import Share, seen, shares
from jaxconf.sweeps.cells import Run, Status, attempt, call_off, die, fail, failure, finished, lost, statuses
from jaxconf.sweeps.plan import Need, needs
from jaxconf.sweeps.run import stopping

if TYPE_CHECKING:
    from distributed import Client, Future

LOG = "workers.log"  # what the workers of this machine print
SCHEDULER = {"worker-saturation": 1.0, "unknown-task-duration": "1h"}
DOUBLED = 2  # so many deaths at a cell double the memory that it is taken to need
SLURM = {"partition": "queue", "account": "account", "time": "walltime"}  # keys of --slurm → arguments of dask-jobqueue


def run_on_workers(
    runs: Mapping[str, Run],
    cells: Mapping[str, Mapping[str, Any]],
    folder: Path,
    tries: int,
    where: Mapping[str, Any],
    say: Callable[[str], None],
    tell: Callable[..., None],
) -> None:
    """Run cells on the workers that `where` names, {option: value}, until each is finished or has failed for good.

    `tell`: called with the address of Dask's dashboard. Otherwise as `jaxconf.sweep`.
    """
    (option, value), left = next(iter(where.items())), statuses(cells, folder, tries)
    waiting = {name: cells[name] for name, status in left.items() if status.state == "waiting"}
    if not waiting:
        return
    with _installed(), client_of(option, value, folder, len(waiting)) as client:
        tell(dashboard=client.dashboard_link)
        say(f"Dask's dashboard: {client.dashboard_link}")
        dispatch(client, runs, needs(waiting), folder, tries, say)


def dispatch(
    client: "Client",
    runs: Mapping[str, Run],
    need: Mapping[str, Need],
    folder: Path,
    tries: int,
    say: Callable[[str], None],
) -> None:
    """Have the workers of a client make attempts at cells until each is finished or has failed for good.

    `need`: what each cell needs. Large cells come first, and those that have failed last. Raises InputError if the
    scheduler is lost.
    """
    ended: queue.SimpleQueue[tuple[str, int, Future]] = queue.SimpleQueue()
    at: dict[str, Future] = {}
    limits = _limits(client)
    order = {name: -place for place, name in enumerate(sorted(need, key=lambda name: -need[name].seconds))}

    def submit(name: str, status: Status) -> None:
        number = status.attempts + 1
        at[name] = client.submit(
            functools.partial(attempt, folder, name, number, runs[name]),
            key=("cell", name, number, os.urandom(4).hex()),
            pure=False,
            priority=order[name] - len(order) * status.attempts,
            resources=_resources(limits if not status.attempts else _limits(client), need[name], status.deaths),
        )
        at[name].add_done_callback(lambda future: ended.put((name, number, future)))

    with stopping(lambda: None, say) as stopped:
        for name, status in statuses(need, folder, tries).items():
            submit(name, status)
        while at and not stopped.is_set():
            with contextlib.suppress(queue.Empty):
                name, number, future = ended.get(timeout=0.5)
                del at[name]
                if said := _ended(client, folder, name, number, future):
                    say(f"{name}: {said}")
                status = statuses([name], folder, tries)[name]
                if status.state == "waiting":
                    submit(name, status)
        if stopped.is_set():
            begun = call_off(folder, need)
            client.cancel([future for name, future in at.items() if name not in begun])
            while not all(at[name].done() for name in begun & at.keys()):
                time.sleep(0.2)
                call_off(folder, need)  # what began before it could be cancelled
            raise KeyboardInterrupt


def _ended(client: "Client", folder: Path, name: str, number: int, future: "Future") -> str:
    """How an attempt ended, for people: by the sweep's folder, because a result may be lost with its worker.

    What Dask alone knows is recorded there first. "" if the attempt was called off, or found that a worker had died.
    """
    from distributed import KilledWorker

    if future.status != "finished" and client.status != "running":
        raise InputError("the Dask scheduler was lost; give the same command again, which goes on")
    error = future.exception() if future.status == "error" else None
    dead = future.status != "finished" and lost(folder, [name])
    if finished([name], folder):
        return "finished"
    if isinstance(error, KilledWorker) and not dead:
        die(folder, name, number)
    if dead or isinstance(error, KilledWorker):
        return "its worker died"
    if error:  # nothing of this project ran: the cluster could not even read what to do
        reason = f"{type(error).__name__}: {first_line(error)}"
        remedy = "install the same versions of jaxconf and Dask on its scheduler and its workers"
        fail(folder, name, number, f"the cluster cannot begin it ({reason}); {remedy}")
    message = failure(folder, name, number)
    return f"failed, {message}" if message else ""


def _limits(client: "Client") -> dict[str, tuple[float, float]]:
    """The least and the most that a worker has of each resource that all of them declare."""
    of_workers = [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    declared = [name for name in ("memory", "devices") if of_workers and all(name in has for has in of_workers)]
    return {name: (min(has[name] for has in of_workers), max(has[name] for has in of_workers)) for name in declared}


def _resources(limits: Mapping[str, tuple[float, float]], need: Need, deaths: int) -> dict[str, float] | None:
    """What Dask must know of a cell's need: nothing, where every worker has it.

    A need that no worker has is cut down to what the largest has: such a cell can only be tried.
    """
    asked = {"memory": need.memory * (2 if deaths >= DOUBLED else 1), "devices": need.devices}
    return {
        name: min(asked[name], most) for name, (least, most) in limits.items() if asked[name] > least < most
    } or None


@contextlib.contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"sweeps on workers need Dask, and {error.name or error} is not installed; "
            "install it with pip install 'jaxconf[cluster]', or leave the workers out"
        ) from error


@contextlib.contextmanager
def client_of(option: str, value: Any, folder: Path, cells: int) -> Iterator["Client"]:
    """A client of the workers that an option asks for, which end with the block unless they were there before."""
    import dask
    from distributed import Client

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
    # Dask holds the cells that wait, instead of giving workers several: so large ones come first. A cell takes minutes,
    # so each that waits is worth a worker of its own, also before Dask has seen how long one takes.
    with dask.config.set({f"distributed.scheduler.{name}": value for name, value in SCHEDULER.items()}):
        cluster = on_this_machine(value, cells) if option == "--workers" else on_slurm(value)
    with cluster, Client(cluster, set_as_default=False) as client:
        if option == "--workers":
            client.register_plugin(_apart(len(cluster.workers), folder / LOG))
        yield client


def on_this_machine(workers: int, cells: int) -> Any:
    """A cluster of processes on this machine, each with its share of the devices; no more of them than cells.

    Raises InputError as `jaxconf.runtime.shares.shares` does.
    """
    from distributed import Nanny, Scheduler, SpecCluster

    found = shares(seen(), workers)[:cells]
    options = {"nthreads": 1, "memory_limit": None, "host": "127.0.0.1", "silence_logs": logging.CRITICAL}
    return SpecCluster(
        workers={
            number: {"cls": Nanny, "options": {**options, "env": of.environment, "resources": _declared(of)}}
            for number, of in enumerate(found)
        },
        scheduler={"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": ":0"}},
        silence_logs=logging.CRITICAL,
    )


def _declared(share: Share) -> dict[str, float]:
    return {"memory": share.memory, "devices": share.devices} if share.memory else {"devices": share.devices}


def on_slurm(text: str) -> Any:
    """A cluster whose workers are Slurm's jobs: as many as there are cells left, up to `max`.

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
    if not all(key and equals for key, equals, _ in pairs) or not (found["max"] + found["cpus"]).isdecimal():
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


def _apart(workers: int, log: Path) -> Any:
    """A plugin for workers of this machine.

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
                os.sched_setaffinity(0, processors[int(worker.name) % len(processors) :: workers] or processors)

    return Apart()

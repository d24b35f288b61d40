"""The cells of a sweep on Dask's workers.

Dask decides who runs what and when; what became of a cell is read in the sweep's folder alone.
"""

import functools
import os
import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxconf.models.errors import InputError, first_line
from jaxconf.runtime.signals import signals
from jaxconf.runtime.workers import workers
from jaxconf.sweeps.cells import Run, Status, attempt, call_off, end, ending, lost, statuses
from jaxconf.sweeps.definition import Cells
from jaxconf.sweeps.plan import Need, needs

if TYPE_CHECKING:
    from distributed import Client, Future

LOG = "workers.log"  # what the workers of this machine print
DOUBLED = 2  # so many deaths at a cell double the memory that it is taken to need
STOPPING = "Stopping after the windows that are being measured; Ctrl-C again stops at once"


def run_on_workers(
    runs: Mapping[str, Run],
    cells: Cells,
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
    need = needs(waiting)
    with workers(option, value, len(waiting), folder / LOG) as client:
        tell(dashboard=client.dashboard_link)
        say(f"Dask's dashboard: {client.dashboard_link}")
        dispatch(client, runs, need, folder, tries, say)


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

    with signals() as caught:
        for name, status in statuses(need, folder, tries).items():
            submit(name, status)
        while at and not caught:
            try:
                name, number, future = ended.get(timeout=0.5)
            except queue.Empty:
                continue
            del at[name]
            if said := _ended(client, folder, name, number, future):
                say(f"{name}: {said}")
            status = statuses([name], folder, tries)[name]
            if status.state == "waiting":
                submit(name, status)
        if caught:
            say(STOPPING)
            begun = call_off(folder, need)
            client.cancel([future for name, future in at.items() if name not in begun])
            while not all(at[name].done() for name in begun & at.keys()):
                time.sleep(0.2)
                call_off(folder, need)  # what began before it could be cancelled
            raise KeyboardInterrupt


def _ended(client: "Client", folder: Path, name: str, number: int, future: "Future") -> str:
    """How an attempt ended, for people: by the sweep's folder, because a result may be lost with its worker.

    What Dask alone knows is recorded there first.
    """
    from distributed import KilledWorker

    if future.status != "finished" and client.status != "running":
        raise InputError("the Dask scheduler was lost; give the same command again, which goes on")
    error = future.exception() if future.status == "error" else None
    if future.status != "finished" and not lost(folder, [name]) and error:
        # Nothing of this project ran: the cluster could not even read what to do.
        reason = f"the cluster cannot begin it ({type(error).__name__}: {first_line(error)})"
        remedy = "install the same versions of jaxconf and Dask on its scheduler and its workers"
        end(folder, name, number, "" if isinstance(error, KilledWorker) else f"{reason}; {remedy}")
    return ending(folder, name, number)


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

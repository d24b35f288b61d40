"""`jaxconf sweep` and `jaxconf sweep report`."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxconf.cli.common import Command, Folder, Quiet, answer, say, terminal
from jaxconf.models.errors import InputError

if TYPE_CHECKING:
    from jaxconf.sweeps.cells import Status


@dataclasses.dataclass(frozen=True)
class Sweep(Command):
    """Analyse every combination of the models, revisions, texts, ablations and layers that a file lists.

    Each combination is a cell. By default this process runs the cells in turn, on all its devices. --workers,
    --scheduler and --slurm run them side by side, for which pip install 'jaxconf[cluster]' installs Dask. What is
    finished stays: the same command again goes on. `jaxconf sweep report FOLDER` joins the finished cells into one
    table and one page.
    """

    definition: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """a TOML file with a list of models; it may also have lists of revisions, data, ablations and layers,
    and other options of `jaxconf analyze` under [options]"""
    out: Path | None = None
    """the folder of the sweep; runs/NAME by default, where the file is NAME.toml"""
    workers: int | None = None
    """how many processes on this machine share its devices"""
    scheduler: str | None = None
    """the address of a Dask cluster that runs the cells, such as tcp://10.0.0.1:8786"""
    slurm: str | None = None
    """what a Slurm job that runs cells is to have, such as partition=gpu,gpus=1,time=4:00:00,max=64;
    there are as many jobs as cells left, up to max (64); cpus (8) and mem (64GB) have defaults too,
    and all other keys are options of sbatch"""
    tries: int = 3
    """how often a cell may fail before it is given up"""
    status: bool = False
    """run no cells; show the state of each cell, while a command works on them"""
    plan: bool = False
    """run no cells and load no weights; estimate the memory and time that the cells need;
    the next four options describe the devices, which by default are those that JAX sees"""
    devices: int | None = None
    """how many devices a worker has"""
    device_memory: str | None = None
    """the memory of each device, such as 80GB"""
    flops: float | None = None
    """how many operations of float32 matrix products each device does per second;
    by default this is measured on the devices that JAX sees, which takes some seconds"""
    exponentials: float | None = None
    """how many exponentials of logits each device sums per second; give it and --flops, or neither"""
    quiet: Quiet = False

    def run(self) -> None:
        about_plan = (self.devices, self.device_memory, self.flops, self.exponentials)
        if not self.plan and any(value is not None for value in about_plan):
            raise InputError(
                "--devices, --device-memory, --flops and --exponentials describe the devices of a --plan; "
                "add it, or leave them out"
            )
        if self.plan and self.status:
            raise InputError(
                "--status shows the states of the cells, and --plan what they would need; give one of them"
            )
        if self.status:
            self._show()
        elif self.plan:
            self._plan()
        else:
            self._work()

    @property
    def _folder(self) -> Path:
        return self.out or Path("runs") / self.definition.stem

    def _work(self) -> None:
        from jaxconf.cli.sweep_terminal import following
        from jaxconf.sweeps.run import sweep

        console = terminal()
        with following(console, self._folder, self.tries, self.quiet) as (progress, told):
            found = sweep(
                self.definition,
                self._folder,
                workers=self.workers,
                scheduler=self.scheduler,
                slurm=self.slurm,
                tries=self.tries,
                progress=progress,
                say=told,
            )
        failed = {name: status.message for name, status in found.items() if status.state == "failed"}
        done = f"{len(found) - len(failed)} of {len(found)} cells are finished"
        joined = f"{done}; jaxconf sweep report {self._folder} joins them"
        answer(console, lambda: self._states(found), lambda: say(console, joined))
        if failed:
            lines = "".join(f"\n  {name}: {message}" for name, message in failed.items())
            print(f"jaxconf: {len(failed)} of {len(found)} cells failed:{lines}", file=sys.stderr)
            sys.exit(1)

    def _states(self, found: "dict[str, Status]") -> dict[str, Any]:
        """The answer for programs: the sweep's folder and the state of each cell."""
        return {"folder": self._folder, "cells": {name: dataclasses.asdict(cell) for name, cell in found.items()}}

    def _show(self) -> None:
        from rich.live import Live

        from jaxconf.cli.sweep_terminal import sweep_table
        from jaxconf.runtime.lock import held
        from jaxconf.sweeps.cells import LOCK
        from jaxconf.sweeps.run import sweep_status

        if not self._folder.exists():
            raise InputError(
                f"there is no folder {self._folder}, so no sweep of {self.definition} has begun there; start it with "
                "jaxconf sweep, or give the folder of the sweep as --out"
            )

        def found() -> dict[str, "Status"]:
            return sweep_status(self._folder, tries=self.tries)

        if self.json:
            answer(terminal(), lambda: self._states(found()), lambda: None)
            return
        console = terminal()
        with Live(sweep_table(found(), self._folder), console=console, refresh_per_second=2) as live:
            while console.is_terminal and held(self._folder / LOCK):
                time.sleep(1)
                live.update(sweep_table(found(), self._folder))

    def _plan(self) -> None:
        from jaxconf.cli.sweep_terminal import plan_table
        from jaxconf.sweeps.plan import plan
        from jaxconf.sweeps.words import described, in_words, warnings

        console = terminal()
        with console.status("Estimating"):
            found = plan(
                self.definition,
                devices=self.devices,
                device_memory=self.device_memory,
                flops=self.flops,
                exponentials=self.exponentials,
            )
        of_memory, of_time = in_words(found.needs)

        def show() -> None:
            for title, rows in (("Memory of a device", of_memory), ("Time of a worker", of_time)):
                console.print(plan_table(f"{title}, estimated", rows))
                console.print()
            say(console, described(found.devices), *warnings(found.needs, found.devices))

        def summary() -> dict[str, Any]:
            cells = [
                {
                    **{"model": model, "layer": layer, "cells": count},
                    **dataclasses.asdict(of_one),
                    **{"peak": of_one.peak, "seconds": of_one.seconds},
                }
                for (model, layer, of_one), count in found.needs.items()
            ]
            return {"devices": dataclasses.asdict(found.devices), "needs": cells}

        answer(console, summary, show)


@dataclasses.dataclass(frozen=True)
class SweepReport(Command):
    """Join the finished cells of a sweep into sweep.parquet and sweep.html."""

    folder: Folder
    """the sweep's folder"""

    def run(self) -> None:
        from jaxconf.sweeps.definition import defined
        from jaxconf.sweeps.report import doubts, sweep_report

        console = terminal()
        with console.status("Joining the cells"):
            joined, cells = sweep_report(self.folder), len(defined(self.folder))
        page, finished, doubtful = self.folder / "sweep.html", joined["cell"].nunique(), doubts(joined)
        left_out = [f"{cells - finished} of {cells} cells are not finished, and are left out."] * (finished < cells)
        answer(
            console,
            lambda: {"page": page, "cells": cells, "finished": finished, "rows": len(joined), "doubts": doubtful},
            lambda: say(console, *left_out, *doubtful, f"Report: {page}"),
        )

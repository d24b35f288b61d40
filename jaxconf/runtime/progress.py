"""A progress line for long jobs: what is done, how fast, and how long it will take."""

import contextlib
from collections.abc import Callable, Iterator

import rich.progress
from rich.console import Console

Progress = Callable[[str, int, int], None]  # what is being done, how much is done, how much in all (0: unknown)


@contextlib.contextmanager
def progress(console: Console, unit: str) -> Iterator[Progress]:
    """Within the block, `report(what, done, total)` keeps one line for each thing that is done, with its rate in `unit` per second."""
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TextColumn("{task.fields[rate]}"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, rich.progress.TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None, rate="")
            speed = bars.tasks[tasks[what]].speed
            bars.update(tasks[what], completed=done, total=total or None, rate=f"{speed:,.0f} {unit}/s" if speed else "")

        yield report

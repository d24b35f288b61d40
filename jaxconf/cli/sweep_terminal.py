"""The terminal: the state of a sweep, while it runs and afterwards, and the tables of its plan."""

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jaxconf.cli.common import say
from jaxconf.models.errors import InputError
from jaxconf.runtime.lock import holder
from jaxconf.runtime.progress import Progress, duration, progress
from jaxconf.sweeps.cells import LOCK, Status, time_left
from jaxconf.sweeps.run import sweep_status

MOST_ROWS = 30  # cells that a table shows


@contextlib.contextmanager
def following(
    console: Console, folder: Path, tries: int, quiet: bool
) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """What `jaxconf.sweep` takes as `progress` and `say`, to be followed while the block runs.

    A terminal shows the table of the cells; a log has a line for each sentence, and those of the progress.
    """
    stage = ""

    def shown() -> Table | str:
        with contextlib.suppress(InputError):  # the sweep has not begun
            return sweep_table(sweep_status(folder, tries=tries), folder, stage)
        return ""

    def report(what: str, done: int, total: int) -> None:
        nonlocal stage
        stage = f"{what}, {done:,} of {total:,}" if total else what

    def counted(sentence: str) -> None:
        with contextlib.suppress(InputError):
            sentence = f"{sentence}; {_counts(sweep_status(folder, tries=tries), folder)}"
        say(console, sentence)

    if quiet:
        yield lambda what, done, total: None, functools.partial(say, console)
    elif console.is_terminal:
        with Live(get_renderable=shown, console=console, refresh_per_second=1, transient=True):
            yield report, functools.partial(say, console)
    else:
        with progress(console, "tokens") as logged:
            yield logged, counted


def sweep_table(found: Mapping[str, Status], folder: Path, stage: str = "") -> Table:
    """The number of cells in each state, and a row for each cell that runs, has failed or waits to be tried again.

    `stage`: how far the cell is that this process runs, if it runs one itself.
    """
    about = holder(folder / LOCK)
    below = [stage, f"Dask's dashboard: {about['dashboard']}" if about.get("dashboard") else ""]
    table = Table(title=_counts(found, folder), title_justify="left", title_style="bold", box=None)
    table.caption, table.caption_justify = "\n".join(filter(None, below)), "left"
    for head in ("cell", "state", "attempt", "worker", "running for", "last failure"):
        table.add_column(head)
    rows = [
        (name, status)
        for name, status in found.items()
        if status.state in ("running", "failed") or (status.state == "waiting" and (status.message or status.deaths))
    ]
    for name, status in rows[:MOST_ROWS]:
        since = duration(status.seconds) if status.state == "running" else ""
        worker, failure = Text(status.worker), Text(status.message, "red")
        table.add_row(Text(name), status.state, str(status.attempts), worker, since, failure)
    if len(rows) > MOST_ROWS:
        table.add_row(f"and {len(rows) - MOST_ROWS:,} more")
    return table


def _counts(found: Mapping[str, Status], folder: Path) -> str:
    """How many cells are in each state, and how long the others will take."""
    counts = collections.Counter(status.state for status in found.values())
    told = ", ".join(f"{counts[state]:,} {state}" for state in ("finished", "running", "waiting", "failed"))
    left = time_left(found, folder)
    return f"{told}; {duration(left)} left" if left else told


def plan_table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    """One of the tables that `jaxconf.sweeps.words.in_words` makes."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("model", "by") else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table

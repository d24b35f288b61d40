"""Tables for the terminal: the state of a sweep, and its plan."""

import collections
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from jaxconf.sweeps.queue import Status


def sweep_table(found: Mapping[str, Status]) -> Table:
    """The number of cells in each state, and a row for each cell that runs, has failed or waits to be tried again."""
    counts = collections.Counter(status.state for status in found.values())
    title = ", ".join(f"{counts[state]} {state}" for state in ("finished", "running", "waiting", "failed"))
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for head in ("cell", "state", "attempt", "worker", "running for", "last failure"):
        table.add_column(head)
    for name, status in found.items():
        if status.state in ("running", "failed") or (status.state == "waiting" and status.attempts):
            since = f"{status.seconds:.0f} s" if status.state == "running" else ""
            worker, failure = Text(status.worker), Text(status.message, "red")
            table.add_row(Text(name), status.state, str(status.attempts), worker, since, failure)
    return table


def plan_table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    """One of the tables that `jaxconf.sweeps.words.in_words` makes."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("model", "by") else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table

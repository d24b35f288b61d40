"""`jaxconf doctor`."""

import dataclasses
import sys

from jaxconf.cli.common import Command, answer, say, terminal


@dataclasses.dataclass(frozen=True)
class Doctor(Command):
    """Look at what jaxconf needs on this machine: versions, devices, memory, the hub and the caches.

    The exit code is 1 if something is wrong. A hub that cannot be reached is not: what is in the caches works.
    """

    def run(self) -> None:
        from rich.table import Table
        from rich.text import Text

        from jaxconf.results.words import counted
        from jaxconf.runtime.doctor import doctor

        console, findings = terminal(), doctor()
        problems = [finding for finding in findings if finding.problem]

        def show() -> None:
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for what, found, problem in findings:
                table.add_row(Text(what, "red" if problem else "dim"), Text(found))
                if problem:
                    table.add_row("", Text(problem, "red"))
            console.print(table)
            say(console, f"\n{counted(len(problems), 'problem') if problems else 'No problem'} found.")

        rows = [finding._asdict() for finding in findings]
        answer(console, lambda: {"ok": not problems, "findings": rows}, show)
        sys.exit(bool(problems))

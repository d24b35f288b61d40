"""`jaxconf report`."""

import dataclasses

from jaxconf.cli.common import Command, Folder, answer, terminal


@dataclasses.dataclass(frozen=True)
class Report(Command):
    """Draw the figures of an analysis again, and write its report again, from its run folder."""

    folder: Folder
    """the run folder that `jaxconf analyze` wrote"""

    def run(self) -> None:
        from jaxconf.report.run import draw
        from jaxconf.report.terminal import print_summary

        console, table = terminal(), draw(self.folder)
        answer(console, table.summary, lambda: print_summary(table, console))

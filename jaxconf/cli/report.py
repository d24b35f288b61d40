"""`jaxconf report`."""

import dataclasses

from jaxconf.cli.common import Folder


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw the figures and the report of a run again."""

    folder: Folder
    """the run folder"""

    def run(self) -> None:
        from rich.console import Console

        from jaxconf.report.run import draw
        from jaxconf.report.terminal import print_summary

        print_summary(draw(self.folder), Console())

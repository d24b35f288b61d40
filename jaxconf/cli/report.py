"""`jaxconf report`."""

import dataclasses

from jaxconf.cli.common import Folder


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw the figures of an analysis again, and write its report again, from its run folder."""

    folder: Folder
    """the run folder that `jaxconf analyze` wrote"""

    def run(self) -> None:
        from rich.console import Console

        from jaxconf.report.run import draw
        from jaxconf.report.terminal import print_summary

        print_summary(draw(self.folder), Console())

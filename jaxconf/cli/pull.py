"""`jaxconf pull`."""

import dataclasses
from pathlib import Path

from jaxconf.cli.common import Command, Quiet, Repository, answer, hub_progress, terminal


@dataclasses.dataclass(frozen=True)
class Pull(Command):
    """Download a run that `jaxconf push` uploaded, as a run folder, and show what it found."""

    name: Repository
    """the dataset"""
    out: Path | None = None
    """the folder to write, which must not exist yet; runs/NAME by default"""
    revision: str | None = None
    """the branch, tag or commit of the dataset"""
    quiet: Quiet = False

    def run(self) -> None:
        from jaxconf.report.terminal import print_summary
        from jaxconf.results.publish import pull

        console = terminal()
        with hub_progress(self.quiet):
            table = pull(self.name, self.out, revision=self.revision)
        answer(console, table.summary, lambda: print_summary(table, console))

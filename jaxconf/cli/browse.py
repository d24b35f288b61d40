"""`jaxconf browse`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxconf.cli.common import COUNT_OR_ALL, Command, Quiet, answer, say, speaking


@dataclasses.dataclass(frozen=True)
class Browse(Command):
    """Make a site with a page for each neuron of finished analyses, which opens from disk and from any web server.

    Several runs are set side by side. What a run folder lacks is measured first, with the model that it names.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """the run folders that `jaxconf analyze` wrote, in the order in which they are shown;
    the folder of a training, or of `jaxconf track`, counts as a run for each measured step"""
    neurons: Annotated[int | Literal["all"], COUNT_OR_ALL] = 200
    """how many neurons of each run get a page, those with the largest effects on the loss,
    beside those that a rule names; or all"""
    out: Path | None = None
    """the folder for the site; site in the first run folder by default"""
    memory: str = "4GB"
    """how much of each device's memory a batch may take, beside the weights, such as 4GB or 500MB"""
    mesh: str | None = None
    """how many devices split the text (data) and the weights (model), such as data=4,model=2"""
    quiet: Quiet = False

    def run(self) -> None:
        from jaxconf.runtime.memory import read_size
        from jaxconf.training.browse import browse

        with speaking("tokens", self.quiet) as (console, progress):
            page = browse(
                self.runs,
                neurons=self.neurons,
                out=self.out,
                mesh=self.mesh,
                memory=read_size(self.memory, "--memory"),
                progress=progress,
                say=lambda sentence: say(console, sentence),
            )
        answer(console, lambda: {"site": page}, lambda: say(console, f"Site: {page}"))

"""`jaxconf track`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Accept, Command, Counts, OwnText, Quiet, TextColumn, answer, say, speaking
from jaxconf.cli.train import answer_of_grid
from jaxconf.data.sources import in_column
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Track(Command):
    """Draw what was measured during a training run or a grid; or, with --revisions, measure the public revisions of a
    hub model and draw that.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """the folder of a training run, or of a grid, which is several models trained together;
    with --revisions, the hub id of a model"""
    revisions: str | None = None
    """branches or tags of the hub model, separated by commas without spaces, such as step0,step1000,step2000;
    the options from --accept to --force are for these revisions only"""
    accept: Accept = ()
    effects: bool = False
    """measure not only the weights but also the effects of ablating each neuron of the last layer"""
    components: str = ""
    """with --effects, components other than neurons to measure too, such as heads,null, as for jaxconf analyze"""
    delete: bool = False
    """delete each revision that was downloaded for this command once it is measured"""
    out: Path | None = None
    """the folder for the measurements and figures; runs/MODEL by default"""
    data: OwnText = "own"
    text_column: TextColumn = None
    tokens: int = 4096
    """how many tokens to measure the effects on"""
    counts: Counts = None
    k: int | None = None
    """size of the unembedding's effective null space;
    by default that of Stolfo et al. for a model of theirs, or else 1% of the width"""
    mesh: str | None = None
    """how many devices split the text (data) and the weights (model), such as data=4,model=2"""
    force: bool = False
    """replace the measurements that the folder holds"""
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        import pandas as pd

        from jaxconf.runtime.placement import read_mesh
        from jaxconf.training.summary import summary_lines
        from jaxconf.training.track import track

        with speaking("revisions", self.quiet) as (console, progress):
            found = track(
                self.source,
                None if self.revisions is None else [name for name in self.revisions.split(",") if name],
                accept=self.accept,
                effects=self.effects,
                components=self.components,
                delete=self.delete,
                out=self.out,
                data=in_column(self.data, self.text_column),
                tokens=self.tokens,
                counts=self.counts,
                k=self.k,
                mesh=read_mesh(self.mesh) if self.mesh else None,
                force=self.force,
                progress=progress,
            )
        source = Path(self.source)
        if isinstance(found, pd.DataFrame):
            answer_of_grid(console, found, source)
            return
        measured = self.out or Path("runs") / source.name
        folder = measured if self.revisions is not None else source if source.is_dir() else source.parent
        lines, page = summary_lines(found), folder / "emergence.html"
        answer(
            console,
            lambda: {"page": page, "verdict": lines, "facts": found.facts},
            lambda: say(console, *lines, f"\nFigures: {folder}/emergence_*.png\nPage: {page}"),
        )

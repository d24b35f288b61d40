"""`jaxconf track`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Quiet, Text, say, speaking
from jaxconf.cli.train import grid_sentence
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Track:
    """Draw what was measured while a model, or the models of a grid, were trained; or measure the public revisions of
    a hub model.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """the folder of a training run or of a grid, or with --revisions a hub id"""
    revisions: str | None = None
    """the hub's branches or tags, in one word: step0,step1000,step2000"""
    effects: bool = False
    """of the hub's revisions, measure not only the weights but also the effects of ablating every neuron"""
    delete: bool = False
    """delete each revision that was downloaded for this, once it is measured"""
    out: Path | None = None
    """where the hub's revisions are recorded; runs/MODEL by default"""
    data: Text = "stdlib"
    tokens: int = 4096
    """how many tokens to analyse"""
    k: int | None = None
    """size of the unembedding's effective null space; 1% of the width by default"""
    mesh: str | None = None
    """of the hub's revisions: the devices that split the text (data) and the weights (model), such as data=4,model=2"""
    force: bool = False
    """replace the track that the folder holds"""
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        import pandas as pd

        from jaxconf.runtime.placement import read_mesh
        from jaxconf.training.findings import summary_lines
        from jaxconf.training.track import track

        with speaking("revisions", self.quiet) as (console, progress):
            found = track(
                self.source,
                None if self.revisions is None else [name for name in self.revisions.split(",") if name],
                effects=self.effects,
                delete=self.delete,
                out=self.out,
                data=self.data,
                tokens=self.tokens,
                k=self.k,
                mesh=read_mesh(self.mesh) if self.mesh else None,
                force=self.force,
                progress=progress,
            )
        source = Path(self.source)
        if isinstance(found, pd.DataFrame):
            say(console, grid_sentence(len(found), source))
            return
        measured = self.out or Path("runs") / source.name
        folder = measured if self.revisions is not None else source if source.is_dir() else source.parent
        say(console, *summary_lines(found), f"\nFigures: {folder}/emergence_*.png")

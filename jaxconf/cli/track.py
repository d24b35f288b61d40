"""`jaxconf track`."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Quiet, Text, say, speaking
from jaxconf.cli.train import grid_sentence
from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import Hosts, alone


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
        from rich.console import Console

        from jaxconf.data.documents import documents
        from jaxconf.runtime.hosts import first, only_first_writes
        from jaxconf.runtime.placement import read_mesh
        from jaxconf.training.emergence import Emergence
        from jaxconf.training.figures import save_emergence_figures, summary_lines
        from jaxconf.training.grid import STUDY, compare
        from jaxconf.training.revisions import track_revisions

        console = Console(quiet=not first())
        source = Path(self.source)
        if self.revisions is None:
            if not alone():
                raise InputError(
                    "what was tracked is drawn by one host; start it on one, or name --revisions to measure"
                )
            if (source / STUDY).is_file():
                say(console, grid_sentence(len(compare(source)), source))
                return
            if not source.exists():
                raise InputError(
                    f"there is no folder {source}; give that of a training run, or a hub id with --revisions"
                )
            folder, emergence = source if source.is_dir() else source.parent, Emergence.load(source)
        else:
            folder = self.out or Path("runs") / source.name
            with only_first_writes(folder) as out, speaking("revisions", self.quiet) as (console, progress):
                emergence = track_revisions(
                    self.source,
                    [name for name in self.revisions.split(",") if name],
                    out,
                    documents=functools.partial(documents, self.data),
                    effects=self.effects,
                    tokens=self.tokens,
                    k=self.k,
                    mesh=read_mesh(self.mesh) if self.mesh else None,
                    delete=self.delete,
                    force=self.force,
                    progress=progress,
                )
        if first():
            save_emergence_figures(emergence, folder)
        say(console, *summary_lines(emergence), f"\nFigures: {folder}/emergence_*.png")

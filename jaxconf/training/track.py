"""What happened to the neurons of one model over its training."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from jaxconf.data.corpus import Documents
from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import alone, only_first_writes
from jaxconf.runtime.progress import Progress
from jaxconf.training.emergence import Emergence
from jaxconf.training.figures import save_emergence_figures
from jaxconf.training.grid_table import GRID, tabulate
from jaxconf.training.revisions import track_revisions


def track(
    source: str | Path,
    revisions: Sequence[str] | None = None,
    *,
    effects: bool = False,
    delete: bool = False,
    out: str | Path | None = None,
    data: str | Documents = "stdlib",
    tokens: int = 4096,
    k: int | None = None,
    mesh: tuple[int, int] | None = None,
    force: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Emergence | pd.DataFrame:
    """Draw a track and return it, after measuring it if it is of a hub model's revisions.

    `source`: without `revisions`, the folder of a tracked training run or its emergence.parquet; its figures are drawn
    beside it. Of the folder of a training grid, its table and its figure are written again, and the table is returned.
    The other options are for `revisions` only.

    With `revisions`, which are branches or tags: the hub id of a model. They are measured in the order of their steps,
    which are the numbers in which their names end (step1000); if one ends in none, or two in the same, the steps are
    the places in `revisions`, from 0. Each is downloaded when its turn comes. What is measured is the weights of the
    last layer; with `effects` also held-out loss and entropy (nats), accuracy, calibration and every neuron's effects,
    on at most `tokens` tokens. The track and its figures go to the folder `out`, by default runs/MODEL. The same call
    goes on after the revisions that `out` holds, and may name later ones besides; `force` replaces them.

    `data`: the text, a source as `jaxconf.documents` takes it or a function that gives the documents anew at each call;
    its first 40 million characters give the token counts. `k`: size of the effective null space, by default 1% of the
    width. `mesh`: the sizes of its axes `data` and `model`, by default as `jaxconf.runtime.placement.placement` says.
    `delete`: remove from the hub's cache what was downloaded of a revision once it is measured, or has failed.
    `progress`: called with the revisions done and in all.

    Raises InputError for a source that is no track, grid or hub model, and as `jaxconf.training.revisions` says.
    """
    if revisions is None:
        return _tracked(Path(source))
    with only_first_writes(Path(out or Path("runs") / Path(source).name)) as folder:
        found = track_revisions(
            str(source),
            revisions,
            data,
            folder,
            effects=effects,
            tokens=tokens,
            k=k,
            mesh=mesh,
            delete=delete,
            force=force,
            progress=progress,
        )
        save_emergence_figures(found, folder)
    return found


def _tracked(source: Path) -> Emergence | pd.DataFrame:
    """The track, or the table of the grid, that is there, drawn."""
    if not alone():
        raise InputError("what was tracked is drawn by one host; start it on one, or name --revisions to measure")
    if (source / GRID).is_file():
        return tabulate(source)
    if not source.exists():
        raise InputError(f"there is no folder {source}; give that of a training run, or a hub id with --revisions")
    found = Emergence.load(source)
    save_emergence_figures(found, source if source.is_dir() else source.parent)
    return found

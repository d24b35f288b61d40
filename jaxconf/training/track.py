"""Tracks of one model over its training: drawing them, and measuring those of hub models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jaxconf.data.corpus import Documents
from jaxconf.data.own_text import OWN
from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import alone, only_first_writes
from jaxconf.runtime.progress import Progress
from jaxconf.training.emergence import Emergence
from jaxconf.training.emergence_page import write_emergence_page
from jaxconf.training.figures import save_emergence_figures
from jaxconf.training.grid_table import GRID, tabulate
from jaxconf.training.revisions import track_revisions


def track(
    source: str | Path,
    revisions: Sequence[str] | None = None,
    *,
    accept: str | Sequence[str] = (),
    effects: bool = False,
    components: str = "",
    delete: bool = False,
    out: str | Path | None = None,
    data: str | Documents = OWN,
    tokens: int = 4096,
    counts: np.ndarray | str | Path | None = None,
    k: int | None = None,
    mesh: tuple[int, int] | None = None,
    force: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Emergence | pd.DataFrame:
    """Draw the figures of a track and its page, and return the track. With `revisions`, a hub model is measured first.

    Without `revisions`, `source` is the folder of a tracked training run or its emergence.parquet. The figures and the
    page, emergence.html, are written beside that file. If `source` is the folder of a training grid, the grid's table
    and figure are written again, and the table is returned. The other options are for `revisions` only.

    With `revisions` (branches, tags or commits), `source` is the hub id of a model. The revisions are measured in the
    order of their steps. The step of a revision is the number at the end of its name (step1000). If a name has none, or
    if two have the same, the steps are instead the places in `revisions`, counted from 0. A revision is downloaded just
    before it is measured. The weights of the last layer are measured; with `effects` also loss and entropy (nats),
    accuracy, calibration and every neuron's effects on at most `tokens` tokens of the text, and those of `components`
    other than neurons, as for `jaxconf.analyze`. The track and its figures
    go to the folder `out`, by default runs/MODEL. The same call again continues after the revisions that `out` holds;
    later revisions may be added to it. `force` replaces the track in `out`.

    `accept`: as for `jaxconf.load`, for those of the revisions whose config.json has the attribute.
    `data`: the text, as a source that `jaxconf.analyze` takes, or as a function that returns the documents at each
    call. `counts`: as for `jaxconf.analyze`. `k`: size of the effective null space, by default as in `jaxconf.analyze`.
    `mesh`: the sizes of the axes `data` and `model`, by default those of `jaxconf.runtime.placement.placement`.
    `delete`: once a revision is measured or has failed, delete from the hub's cache the files that were downloaded for
    it. `progress`: called with the number of revisions done and in all.

    Raises InputError for a source that is no track, grid or hub model, and as
    `jaxconf.training.revisions.track_revisions` does.
    """
    if revisions is None:
        return _tracked(Path(source))
    with only_first_writes(Path(out or Path("runs") / Path(source).name)) as folder:
        found = track_revisions(
            str(source),
            revisions,
            data,
            folder,
            accept=accept,
            effects=effects,
            components=components,
            tokens=tokens,
            counts=counts,
            k=k,
            mesh=mesh,
            delete=delete,
            force=force,
            progress=progress,
        )
        _draw(found, folder)
    return found


def _tracked(source: Path) -> Emergence | pd.DataFrame:
    """Draw the track or the grid that `source` holds; the track, or the grid's table."""
    if not alone():
        raise InputError("a track is drawn by one host; start the command on one, or give --revisions to measure")
    if (source / GRID).is_file():
        return tabulate(source)
    if not source.exists():
        raise InputError(f"there is no folder {source}; give that of a training run, or a hub id with --revisions")
    found = Emergence.load(source)
    _draw(found, source if source.is_dir() else source.parent)
    return found


def _draw(e: Emergence, folder: Path) -> None:
    save_emergence_figures(e, folder)
    write_emergence_page(e, folder)

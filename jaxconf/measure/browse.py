"""The site of finished runs: what their folders lack is measured first, with the model that they name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxconf.measure.pages import neuron_pages
from jaxconf.models.errors import InputError
from jaxconf.report.site.write import check_site, write_site
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.pages import PAGED, NeuronPages, paged
from jaxconf.results.run_folder import SITE, writable
from jaxconf.runtime.memory import MEMORY
from jaxconf.runtime.placement import load_placed
from jaxconf.runtime.progress import Progress


def browse(
    runs: str | Path | Sequence[str | Path],
    *,
    neurons: int | Literal["all"] = PAGED,
    out: str | Path | None = None,
    mesh: str | None = None,
    memory: int = MEMORY,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Write the site of finished runs, and return the path of its first page.

    `runs`: run folders of `jaxconf analyze`; several are set side by side, in this order. `neurons`: how many neurons
    of each run get a page, those with the largest effects on the loss beside those that a rule names; or "all". `out`:
    the folder of the site, by default `site` in the first run folder; an older site there is replaced. Pages that a
    run folder lacks are measured on its windows, with the model that it names, and kept in it. `mesh`: as for
    `jaxconf analyze`. `memory`: bytes that a batch may take. `say`: called with a sentence about the mesh.

    Raises InputError for folders that hold no run, whose model cannot be loaded, or which are not to be written.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not folders:
        raise InputError("no run is given; give the folders of one or more finished analyses")
    site = Path(out) if out is not None else folders[0] / SITE
    check_site(site)
    tables = [NeuronTable.load(folder) for folder in folders]
    for table in tables:
        paged(table, neurons)  # a mistake is found before anything is measured
    with writable(site.parent):
        for folder, table in zip(folders, tables, strict=True):
            if not set(paged(table, neurons)) <= set(NeuronPages.load(folder).names):
                _measure(folder, table, neurons, mesh, memory, progress, say)
        progress("site", 0, 0)
        return write_site(folders, site, neurons)


def _measure(
    folder: Path,
    table: NeuronTable,
    neurons: int | Literal["all"],
    mesh: str | None,
    memory: int,
    progress: Progress,
    say: Callable[[str], None],
) -> None:
    """Measure what the pages of a run show, and write it into its folder."""
    facts = table.facts
    with writable(folder):
        try:
            tokens, kept = (np.load(folder / name) for name in ("windows.npy", "kept.npy"))
        except OSError as error:
            raise InputError(
                f"{folder} has no pages and no {Path(error.filename).name} to measure them on; analyse the model "
                "again with --browse"
            ) from error
        progress("loading the model", 0, 0)
        try:
            lm = load_placed(facts["model"], facts.get("revision"), mesh, say, facts.get("accepted", ()))
        except InputError as error:
            raise InputError(f"{folder} has no pages, and its model cannot be loaded for them: {error}") from error
        pages = neuron_pages(lm, table, tokens, kept, neurons=neurons, memory=memory, progress=progress)
        pages.save(folder)

"""The site of finished runs and of trainings: what run folders lack is measured first, with the model they name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from jaxconf.analysis.metrics import COLUMNS, INTERVAL_COLUMNS
from jaxconf.measure.pages import neuron_pages
from jaxconf.models.errors import InputError
from jaxconf.report.site.data import Run
from jaxconf.report.site.write import check_site, run_in, sha256, write_runs
from jaxconf.results.columns import POSITION_COLUMNS
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.pages import PAGED, check_paged, no_pages, paged
from jaxconf.results.run_folder import NEURONS, SITE, writable
from jaxconf.runtime.memory import MEMORY
from jaxconf.runtime.placement import load_placed
from jaxconf.runtime.progress import Progress
from jaxconf.training.emergence import FILE, Emergence


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

    `runs`: run folders of `jaxconf analyze`, or folders of tracks (of `jaxconf train` and `jaxconf track`), of which
    each measured step counts as a run without pages. Several are set side by side, in this order. `neurons`: how many
    neurons of each run get a page, those with the largest effects on the loss beside those that a rule names; or "all".
    `out`: the folder of the site, by default `site` in the first run folder; an older site there is replaced. Pages
    that a run folder lacks are measured on its windows, with the model that it names, and kept in it. `mesh`: as for
    `jaxconf analyze`. `memory`: bytes that a batch may take. `say`: called with a sentence about the mesh.

    Raises InputError for folders that hold no run, whose model cannot be loaded, or which are not to be written.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not folders:
        raise InputError("no run is given; give the folders of one or more finished analyses")
    check_paged(neurons)
    site = Path(out) if out is not None else folders[0] / SITE
    check_site(site)
    tracks = {folder: Emergence.load(folder) for folder in folders if _is_track(folder)}
    found = {folder: run_in(folder) for folder in folders if folder not in tracks}
    with writable(site.parent):
        for folder, run in found.items():
            if not set(paged(run.table, neurons)) <= set(run.pages.names):
                _measure(folder, run.table, neurons, mesh, memory, progress, say)
                found[folder] = run_in(folder)
        progress("site", 0, 0)
        of_each = (
            steps_of(tracks[folder], sha256(folder / FILE)) if folder in tracks else [found[folder]]
            for folder in folders
        )
        return write_runs([run for of_folder in of_each for run in of_folder], site, neurons)


def _is_track(folder: Path) -> bool:
    return (folder / FILE).is_file() and not (folder / NEURONS).is_file()


def steps_of(track: Emergence, digest: str) -> list[Run]:
    """Each measured step of a track as a run without pages; `digest`: the SHA-256 of the track's file.

    Effects are NaN at steps at which only the weights were measured.
    """
    runs: list[Run] = []
    every = [*COLUMNS, *(f"{name}_{end}" for name in INTERVAL_COLUMNS for end in ("lo", "hi"))]
    unknown = {name: False if name.startswith("is_") else np.nan for name in every if name not in track.neurons}
    for row, values in zip(track.steps.to_dict("records"), track.singular_values, strict=True):
        frame = track.neurons[track.neurons["step"] == row["step"]].drop(columns="step").reset_index(drop=True)
        given = {"layer": track.facts["layer"], "rho_chance": row["rho_chance"]}
        facts = track.facts | {name: row.get(name) for name in ("step", "revision", "loss", "entropy")}
        nowhere, cosines = pd.DataFrame(columns=POSITION_COLUMNS), np.zeros((0, len(values)))
        table = NeuronTable(frame.assign(**(unknown | given)), facts, values, cosines, [], nowhere)
        runs.append(Run(row.get("revision") or f"step-{row['step']}", table, no_pages(), digest))
    return runs


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

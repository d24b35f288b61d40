"""A finished run in its folder: the table, its figures and its report."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from jaxconf.report.figures import FIGURES
from jaxconf.report.page import write_report
from jaxconf.report.passage_figures import save_story_figures
from jaxconf.report.style import save_figures
from jaxconf.results.neuron_table import PER_TOKEN, SETS, NeuronTable
from jaxconf.results.run_folder import staging

EXTRA = {SETS, PER_TOKEN, "figure_4.png", "figure_4_passages.png"}  # files that a run has if it was asked for them


def save_run(table: NeuronTable, tokens: np.ndarray, kept: np.ndarray, folder: Path, extra: Mapping[str, pd.DataFrame]) -> None:
    """Write the whole run: windows.npy (int32 [s t]), kept.npy (bool [s t]), the table, the `extra` tables by file name, the figures and the
    report.

    All of it is written to a folder beside the run first, so that an interruption leaves an older run as it was.
    """
    with staging(folder) as temporary:
        np.save(temporary / "windows.npy", tokens.astype(np.int32))
        np.save(temporary / "kept.npy", kept)
        table.save(temporary)
        for name, frame in extra.items():
            frame.to_parquet(temporary / name, index=False)
        _draw(table, temporary)
        written = {file.name for file in temporary.iterdir()}
    for name in EXTRA - written:  # of a run that stood here before
        (folder / name).unlink(missing_ok=True)


def draw(run: str | Path) -> NeuronTable:
    """Draw the figures and the report of a run again, as `jaxconf report` does; the run's table.

    `run`: the run folder, or its neurons.parquet. Raises InputError if there is no run.
    """
    table, run = NeuronTable.load(run), Path(run)
    _draw(table, run if run.is_dir() else run.parent)
    return table


def _draw(table: NeuronTable, folder: Path) -> None:
    """Write the figures and the report of a run, those of single tokens if the folder has their table."""
    save_figures(FIGURES, table, folder)
    if (folder / PER_TOKEN).is_file():
        save_story_figures(table, pd.read_parquet(folder / PER_TOKEN), folder)
    write_report(table, folder)

"""A finished result in its folder: tables, facts, figures and page."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxconf.report.figures import FIGURES
from jaxconf.report.optimum_figures import optimum_sets
from jaxconf.report.page import write_report
from jaxconf.report.passages.figures import save_token_figures
from jaxconf.report.play.page import write_beside
from jaxconf.report.shown import title
from jaxconf.report.style import save_figures
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.run_folder import (
    NEURONS,
    OPTIMUM,
    OPTIMUM_NEURONS,
    PAGES,
    PASSAGES,
    PER_TOKEN,
    PLAY,
    SETS,
    staging,
)


def save_run(
    table: NeuronTable, tokens: np.ndarray, kept: np.ndarray, folder: Path, extra: Mapping[str, pd.DataFrame]
) -> None:
    """Writes the run folder of an analysis, or nothing if that fails.

    It holds windows.npy (int32 [s t]), kept.npy (bool [s t]), the neuron table, the `extra` tables (file name → table:
    SETS, PER_TOKEN, OPTIMUM, OPTIMUM_NEURONS, PAGES, PASSAGES), the figures and the report. A failure leaves an older
    run folder as it was.
    """
    with staging(
        folder,
        NEURONS,
        *(SETS, PER_TOKEN, OPTIMUM, OPTIMUM_NEURONS, PAGES, PASSAGES),
        "figure_4*.png",
        "figure_optimum.png",
        PLAY,
    ) as there:
        np.save(there / "windows.npy", tokens.astype(np.int32))
        np.save(there / "kept.npy", kept)
        table.save(there)
        for name, frame in extra.items():
            frame.to_parquet(there / name, index=False)
        _draw(table, there)


def draw(run: str | Path) -> NeuronTable:
    """Draws the figures and the report of a run folder again, as `jaxconf report` does, and returns the neuron table.

    `run`: the run folder, or its neurons.parquet. Raises InputError if there is no such file.
    """
    table, run = NeuronTable.load(run), Path(run)
    _draw(table, run if run.is_dir() else run.parent)
    return table


def _draw(table: NeuronTable, folder: Path) -> None:
    """Writes the figures and the report of an analysis, those of single tokens too if the folder has their table."""
    save_figures(FIGURES, table, folder)
    if (folder / OPTIMUM).is_file():
        save_figures({"figure_optimum": _optimum_figure}, (table, pd.read_parquet(folder / OPTIMUM)), folder)
    if (folder / PER_TOKEN).is_file():
        save_token_figures(table, pd.read_parquet(folder / PER_TOKEN), folder)
    write_report(table, folder)


def _optimum_figure(of: tuple[NeuronTable, pd.DataFrame]) -> Figure:
    table, sets = of
    return optimum_sets(sets, title(table))


def save_study(
    found: Any,
    name: str,
    verdict: Sequence[str],
    figures: Mapping[str, Callable[[Any], Figure]],
    page: Callable[[Any, Sequence[Path]], str],
    folder: str | Path,
) -> Path:
    """Writes the result of a study, or nothing if that fails, and returns the path of its page.

    The folder gets `name`_….parquet for each table, `name`.json with the verdict and the facts, the `figures` (see
    `save_figures`), and `name`.html, which `page` makes from the result and the paths of its figures. `found`: a
    dataclass of tables and `facts`; a field that is itself such a dataclass adds its tables under the field's name.
    """
    folder = Path(folder)
    with staging(folder, f"{name}.json", f"{name}_*") as there:
        for table, frame in _tables(found, f"{name}_"):
            frame.to_parquet(there / f"{table}.parquet")
        facts = json.dumps({"verdict": list(verdict), **found.facts}, indent=1)
        (there / f"{name}.json").write_text(facts + "\n", encoding="utf-8")
        html = page(found, save_figures(figures, found, there))
        write_beside(found.facts, there)
        (there / f"{name}.html").write_text(html, encoding="utf-8")
    return folder / f"{name}.html"


def _tables(found: Any, prefix: str) -> Iterator[tuple[str, pd.DataFrame]]:
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if isinstance(value, pd.DataFrame):
            yield f"{prefix}{field.name}", value
        elif dataclasses.is_dataclass(value):
            yield from _tables(value, f"{prefix}{field.name}_")

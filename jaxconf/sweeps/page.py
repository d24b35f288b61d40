"""The joined result of a sweep: one table of every neuron of every cell, and one page that compares the cells."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.report.frame import picture, write_page
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.words import number
from jaxconf.sweeps.definition import AXES, CELLS, defined, finished

OF_CELLS = tuple(AXES.values())
SHOWN = {
    "loss": "nats",
    "entropy": "nats",
    "correlation": "of entropy with the divergence from the token frequencies",
    "entropy neurons": "by the rule",
    "frequency neurons": "by the rule",
    "largest rho": "",
    "chance": "the 99% quantile of the largest rho among as many random directions",
    "largest ln_mediated": "among neurons with rho above chance",
}
FIGURES = {"figure_2a": "Norm and LogitVar (Figure 7)", "figure_3b": "Token frequency (Figure 8)"}


def sweep_report(folder: str | Path) -> pd.DataFrame:
    """Join the finished cells of a sweep: write sweep.parquet and sweep.html into its folder, and return the table.

    A row for each neuron of each finished cell, with the cell's name (`cell`), its model, revision, data and
    ablation, and the columns of its neuron table. Raises InputError if no cell is finished.
    """
    folder = Path(folder)
    sweep = defined(folder)
    names = finished(sweep, folder)
    if not names:
        raise InputError(f"no cell of {folder} is finished; start a worker with jaxconf sweep")
    tables = {name: NeuronTable.load(folder / CELLS / name) for name in names}
    frames = []
    for name, table in tables.items():
        # The run has the commit; a cell is shown by the revision's name.
        table.facts |= {"revision": sweep.cells[name].get("revision")}
        facts = {key: table.facts.get(key) for key in OF_CELLS if key != "layer"}
        frames.append(pd.DataFrame({"cell": name, **facts}, index=table.frame.index).join(table.frame))
    joined = pd.concat(frames, ignore_index=True)
    with replacing(folder / "sweep.parquet") as path:
        joined.to_parquet(path, index=False)
    _write_page(folder, tables, len(sweep.cells))
    return joined


def _write_page(folder: Path, tables: Mapping[str, NeuronTable], cells: int) -> None:
    rows = "".join(_row(name, table) for name, table in tables.items())
    hints = dict.fromkeys(OF_CELLS, "") | SHOWN
    heads = "".join(f'<th scope="col" title="{escape(hint)}">{escape(name)}</th>' for name, hint in hints.items())
    write_page(
        folder / "sweep.html",
        files(__package__) / "page.html",
        "sweep",
        folder.resolve().name,
        f"A sweep, {len(tables)} of {cells} cells",
        table=f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>",
        figures="".join(_cards(name, table, folder / CELLS / name) for name, table in tables.items()),
    )


def _row(name: str, table: NeuronTable) -> str:
    frame, facts = table.frame, table.facts
    above = frame[frame["rho"] > frame["rho_chance"]]
    figures: dict[str, Any] = {
        "loss": facts["loss"],
        "entropy": facts["entropy"],
        "correlation": table.correlation(),
        "entropy neurons": int(frame["is_entropy_neuron"].sum()),
        "frequency neurons": int(frame["is_frequency_neuron"].sum()),
        "largest rho": frame["rho"].max(),
        "chance": frame["rho_chance"].iloc[0],
        "largest ln_mediated": above["ln_mediated"].max(),
    }
    of_cell = "".join(f"<td>{escape(_words(facts.get(key)))}</td>" for key in OF_CELLS)
    return f'<tr id="{escape(name)}">{of_cell}{"".join(f"<td>{number(figures[key])}</td>" for key in SHOWN)}</tr>'


def _cards(name: str, table: NeuronTable, folder: Path) -> str:
    where = ", ".join(_words(table.facts.get(key)) for key in OF_CELLS if table.facts.get(key) is not None)
    cards = "".join(picture(folder / f"{figure}.png", what, f"{what}: {where}") for figure, what in FIGURES.items())
    return f'<h3 class="cell">{escape(where)}</h3><div class="figures">{cards}</div>'


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"{value[0]} to {value[-1]}"
    return "" if value is None else str(value)

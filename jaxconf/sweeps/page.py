"""The joined result of a sweep: one table of every neuron of every cell, and one page that compares the cells."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from jaxconf.models.errors import InputError, listed
from jaxconf.report.markup import head, paragraphs, picture, row, table, text
from jaxconf.report.picture_page import picture_page
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.run_folder import staging
from jaxconf.results.words import COUNT_FACTS, counts_doubts, number, titled
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
    "tokens counted": "for the token-frequency direction, with add-one smoothing",
    "types seen": "tokens of the vocabulary that occur among those counted",
    "split-half cosine": "of the token-frequency directions from two halves of the counted tokens",
}
MOST_NAMED = 6  # cells that a sentence names
FIGURES = {"figure_2a": "Norm and LogitVar (Figure 7)", "figure_3b": "Token frequency (Figure 8)"}


def sweep_report(folder: str | Path) -> pd.DataFrame:
    """Join the finished cells of a sweep: write sweep.parquet and sweep.html into its folder, and return the table.

    The table has a row for each neuron of each finished cell, with the cell's name (`cell`), its `model`, `revision`,
    `data` and `ablation`, how many tokens were counted for its token-frequency direction, how many types occurred and
    the split-half cosine (COUNT_FACTS), and the columns of its neuron table. Raises InputError if the folder holds no
    sweep, or if no cell is finished.
    """
    folder = Path(folder)
    sweep = defined(folder)
    names = finished(sweep, folder)
    if not names:
        raise InputError(f"no cell of {folder} is finished; start a worker with jaxconf sweep")
    tables = {name: NeuronTable.load(folder / CELLS / name) for name in names}
    frames = []
    for name, neurons in tables.items():
        # The facts of a run have the commit, but the page and the table show the name of the revision.
        neurons.facts |= {"revision": sweep.cells[name].get("revision")}
        facts = {key: neurons.facts.get(key) for key in (*OF_CELLS, *COUNT_FACTS) if key != "layer"}
        frames.append(pd.DataFrame({"cell": name, **facts}, index=neurons.frame.index).join(neurons.frame))
    joined = pd.concat(frames, ignore_index=True)
    with staging(folder, "sweep.parquet") as there:
        joined.to_parquet(there / "sweep.parquet", index=False)
        (there / "sweep.html").write_text(_page(folder, tables, len(sweep.cells), doubts(joined)), encoding="utf-8")
    return joined


def doubts(joined: pd.DataFrame) -> list[str]:
    """A sentence for each uncertain token-frequency direction, which names the cells. `joined`: from `sweep_report`."""
    cells: dict[str, list[str]] = {}
    for of_cell in joined.drop_duplicates("cell").to_dict("records"):
        for doubt in counts_doubts(of_cell):
            cells.setdefault(doubt, []).append(of_cell["cell"])
    return [f"{listed(names, MOST_NAMED)}: {doubt}" for doubt, names in cells.items()]


def _page(folder: Path, tables: Mapping[str, NeuronTable], cells: int, doubts: list[str]) -> str:
    hints = dict.fromkeys(OF_CELLS, "") | SHOWN
    return picture_page(
        files(__package__) / "page.html",
        "sweep",
        folder.resolve().name,
        f"A sweep, {len(tables)} of {cells} cells",
        doubts=paragraphs(doubts),
        table=table((head(name, hint) for name, hint in hints.items()), (_row(*item) for item in tables.items())),
        figures="".join(_cards(name, neurons, folder / CELLS / name) for name, neurons in tables.items()),
    )


def _row(name: str, neurons: NeuronTable) -> str:
    frame, facts = neurons.frame, neurons.facts
    above = frame[frame["rho"] > frame["rho_chance"]]
    values: dict[str, Any] = {
        "loss": facts["loss"],
        "entropy": facts["entropy"],
        "correlation": neurons.correlation(),
        "entropy neurons": int(frame["is_entropy_neuron"].sum()),
        "frequency neurons": int(frame["is_frequency_neuron"].sum()),
        "largest rho": frame["rho"].max(),
        "chance": frame["rho_chance"].iloc[0],
        "largest ln_mediated": above["ln_mediated"].max(),
        "tokens counted": facts.get("counts_tokens"),
        "types seen": facts.get("counts_types"),
        "split-half cosine": facts.get("counts_cosine"),
    }
    shown = [f"{x:,}" if isinstance(x, int) else number(x) for x in (values[key] for key in SHOWN)]
    return row([*(text(_words(facts.get(key))) for key in OF_CELLS), *map(text, shown)], id=name)


def _cards(name: str, neurons: NeuronTable, folder: Path) -> str:
    named = neurons.facts | {"model": titled(str(neurons.facts["model"]))}
    where = ", ".join(_words(named.get(key)) for key in OF_CELLS if named.get(key) is not None)
    cards = "".join(picture(folder / f"{figure}.png", what, f"{what}: {where}") for figure, what in FIGURES.items())
    return f'<h3 class="cell">{escape(where)}</h3><div class="figures">{cards}</div>'


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"{value[0]} to {value[-1]}"
    return "" if value is None else str(value)

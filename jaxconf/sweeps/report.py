"""The joined result of a sweep: one table of every neuron of every cell, and one page that compares the cells."""

import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jaxconf.models.errors import InputError, listed
from jaxconf.models.files import replacing
from jaxconf.results.files import KEY, packed
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.run_folder import swapped
from jaxconf.results.words import COUNT_FACTS, counts_doubts
from jaxconf.studies.scale.page import scale_page
from jaxconf.studies.scale.summary import named_neurons, summaries
from jaxconf.sweeps.cells import CELLS, finished
from jaxconf.sweeps.definition import AXES, Cells, defined
from jaxconf.training.revisions import steps_of

TABLE, PAGE = "sweep.parquet", "sweep.html"
OF_CELLS = tuple(AXES.values())
MOST_NAMED = 6  # cells that a sentence names


def sweep_report(folder: str | Path) -> pd.DataFrame:
    """Join the finished cells of a sweep: write sweep.parquet and sweep.html into its folder, and return the table.

    The table has a row for each neuron of each finished cell, with the cell's name (`cell`), its `model`, `revision`,
    `data` and `ablation`, how many tokens were counted for its token-frequency direction, how many types occurred and
    the split-half cosine (COUNT_FACTS), and the columns of its neuron table. sweep.parquet is a folder with a file for
    each model (`pandas.read_parquet` reads it whole). In each file a cell is a row group, and the facts of all of them
    are in the schema's metadata, in that order. Raises InputError if the folder holds no sweep, or if no cell is
    finished.
    """
    folder = Path(folder)
    cells = defined(folder)
    names = finished(cells, folder)
    if not names:
        raise InputError(f"no cell of {folder} is finished; run them with jaxconf sweep")
    tables = {name: NeuronTable.load(folder / CELLS / name) for name in names}
    frames, facts = [], {name: table.facts for name, table in tables.items()}
    for name, table in tables.items():
        # The facts of a run have the commit, but the page and the table show the name of the revision.
        table.facts = table.facts | {"revision": cells[name].get("revision")}
        told = {key: table.facts.get(key) for key in (*OF_CELLS, *COUNT_FACTS) if key != "layer"}
        frames.append(pd.DataFrame({"cell": name, **told}, index=table.frame.index).join(table.frame))
    joined = pd.concat(frames, ignore_index=True)
    of = summaries(tables, {name: step for name, step in _steps(cells).items() if name in tables})
    above = f"A sweep, {len(tables)} of {len(cells)} cells"
    html = scale_page(
        folder.resolve().name, above, of, named_neurons(tables, of), doubts(joined), f"{CELLS}/{{}}/report.html"
    )
    _write_table(joined, facts, folder / TABLE)
    with replacing(folder / PAGE) as path:
        path.write_text(html, encoding="utf-8")
    return joined


def _steps(cells: Cells) -> dict[str, float]:
    """The name of a cell → the training step that its revision is of, NaN if it names none."""
    revisions = list(dict.fromkeys(cell["revision"] for cell in cells.values() if cell.get("revision")))
    steps = steps_of(revisions) if revisions else {}
    return {name: steps.get(cell.get("revision", ""), float("nan")) for name, cell in cells.items()}


def _write_table(joined: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]], place: Path) -> None:
    """Write a file for each model, whole or not at all."""
    schema = pa.Schema.from_pandas(joined.drop(columns="model"), preserve_index=False)
    with swapped(place) as there:
        for model, own in joined.groupby("model", sort=False):
            file = there / f"model={urllib.parse.quote(str(model), safe='')}" / "neurons.parquet"
            file.parent.mkdir()
            told = [{"cell": name, **facts[name]} for name in own["cell"].unique()]
            with pq.ParquetWriter(file, schema.with_metadata({**(schema.metadata or {}), KEY: packed(told)})) as writer:
                for _, of_cell in own.drop(columns="model").groupby("cell", sort=False):
                    writer.write_table(pa.Table.from_pandas(of_cell, schema, preserve_index=False))


def doubts(joined: pd.DataFrame) -> list[str]:
    """A sentence for each uncertain token-frequency direction, which names the cells. `joined`: from `sweep_report`."""
    cells: dict[str, list[str]] = {}
    for of_cell in joined.drop_duplicates("cell").to_dict("records"):
        for doubt in counts_doubts(of_cell):
            cells.setdefault(doubt, []).append(of_cell["cell"])
    return [f"{listed(names, MOST_NAMED)}: {doubt}" for doubt, names in cells.items()]

"""The neuron table for other programs: as CSV, as JSON lines, and in Neuronpedia's layout."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from jaxconf.models.errors import InputError
from jaxconf.results.columns import meanings
from jaxconf.results.files import plain
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.neuronpedia import write_neuronpedia
from jaxconf.results.run_folder import appearing

Format = Literal["csv", "jsonl", "neuronpedia"]


def export(run: str | Path, format: Format, out: str | Path | None = None) -> Path:
    """Writes the neuron table of a finished analysis for other programs into the new folder `out`, and returns that.

    `run`: the run folder, or its neurons.parquet. `format`: "csv" gives neurons.csv and "jsonl" neurons.jsonl, each
    with every row, column and digit, and facts.json with the facts of the run and the meaning of the columns;
    "neuronpedia" gives the folders of `jaxconf.results.neuronpedia`. `out`: by default the folder FORMAT in the run
    folder. Raises InputError if there is no such run, for another format, and if `out` exists.
    """
    if format not in get_args(Format):
        raise InputError(f"there is no format {format!r}; give {', '.join(get_args(Format)[:-1])} or neuronpedia")
    table, run = NeuronTable.load(run), Path(run)
    folder = Path(out) if out else (run if run.is_dir() else run.parent) / format
    with appearing(folder) as there:
        if format == "neuronpedia":
            write_neuronpedia(table, there)
            return folder
        frame = table.to_pandas()
        if format == "csv":
            frame.to_csv(there / "neurons.csv", index="name" not in table.frame, lineterminator="\n")
        else:
            with (there / "neurons.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in _rows(table))
        columns = [
            {"column": column, "unit": unit, "meaning": said} for column, unit, said in meanings(table.frame.columns)
        ]
        facts = json.dumps(plain({"facts": table.facts, "columns": columns}), indent=1, ensure_ascii=False)
        (there / "facts.json").write_text(facts + "\n", encoding="utf-8")
    return folder


def _rows(table: NeuronTable) -> Iterator[dict[str, Any]]:
    """The rows as JSON can hold them; a number that is not finite is null."""
    for name, row in zip(table.names, table.frame.to_dict("records"), strict=True):
        yield plain({"name": name, **row})

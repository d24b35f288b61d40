"""`jaxconf export`."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxconf.cli.common import Command, Folder, answer, say, terminal


@dataclasses.dataclass(frozen=True)
class Export(Command):
    """Write the neuron table of a run for other programs: as CSV, as JSON lines, or in the layout of Neuronpedia's
    exports.
    """

    folder: Folder
    """the run folder that `jaxconf analyze` wrote, or its neurons.parquet"""
    format: Literal["csv", "jsonl", "neuronpedia"] = "csv"
    """csv and jsonl have every row and column of the table, and the facts of the run beside it; neuronpedia has the
    neurons of each layer and an explanation of those that meet a rule"""
    out: Path | None = None
    """the folder to write, which must not exist yet; by default the folder in the run folder named like the format"""

    def run(self) -> None:
        from jaxconf.results.exports import export

        console, folder = terminal(), export(self.folder, self.format, self.out)
        answer(console, lambda: {"folder": folder, "format": self.format}, lambda: say(console, f"Folder: {folder}"))

"""`jaxconf models`."""

import dataclasses

from jaxconf.cli.common import Command, answer, terminal


@dataclasses.dataclass(frozen=True)
class Models(Command):
    """List the model families that are supported, each with the largest difference between its logits and those of
    transformers when it was last measured.
    """

    def run(self) -> None:
        from rich.table import Table
        from rich.text import Text

        from jaxconf.models.supported import supported

        console, rows = terminal(), supported()
        table = Table("model_type", "family", "largest |Δlogit|", box=None, pad_edge=False)
        for row in rows:
            table.add_row(row.model_type, Text(row.what), "not measured" if row.error is None else f"{row.error:.1e}")
        answer(console, lambda: {"families": [row._asdict() for row in rows]}, lambda: console.print(table))

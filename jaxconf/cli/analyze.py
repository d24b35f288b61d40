"""`jaxconf analyze`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Group
from tyro.constructors import PrimitiveConstructorSpec

from jaxconf.cli.common import Accept, Command, OptionalModel, Quiet, answer, say, speaking
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.runtime.hosts import Hosts


def _layer(words: Sequence[str]) -> Any:
    """The value of --layer."""
    try:
        return words[0] if words[0] in ("last", "all") else int(words[0])
    except ValueError:
        raise ValueError(f"{words[0]!r} is no layer; give a whole number counted from 0, last or all") from None


LAYER: Any = PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT|{last,all}",
    instance_from_str=_layer,
    is_instance=lambda value: isinstance(value, int | str),
    str_from_instance=lambda value: [str(value)],
)


@dataclasses.dataclass(frozen=True)
class Analyze(Command, AnalyzeOptions):
    """Measure every neuron of a model's last layer, or of other layers, and write a run folder with a table, figures
    and a report.
    """

    model: OptionalModel = AnalyzeOptions.model
    accept: Accept = AnalyzeOptions.accept
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = AnalyzeOptions.set
    layer: Annotated[int | Literal["last", "all"], LAYER] = AnalyzeOptions.layer
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        import pandas as pd

        from jaxconf.measure.run import run
        from jaxconf.report.terminal import print_sets, print_summary
        from jaxconf.results.optimum import optimum_sentences
        from jaxconf.results.run_folder import OPTIMUM, SETS

        with speaking("tokens", self.quiet) as (console, progress):
            table = run(self, progress, lambda sentence: say(console, sentence))
        if console.quiet:  # another host has the folder
            return
        out = self.folder(self.model)
        report, extra = out / "report.html", {OPTIMUM: (out / OPTIMUM).is_file(), SETS: bool(self.set)}
        tables = {name: pd.read_parquet(out / name) for name, there in extra.items() if there}

        def show() -> None:
            print_summary(table, console)
            if OPTIMUM in tables:
                say(console, "", *optimum_sentences(tables[OPTIMUM]))
            if SETS in tables:
                print_sets(tables[SETS], console)
            say(console, f"\nReport: {report}")

        def summary() -> dict[str, Any]:
            rows = {Path(name).stem: frame.to_dict("records") for name, frame in tables.items()}
            return {"report": report, **table.summary(), **rows}

        answer(console, summary, show)

"""`jaxconf analyze`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import (
    COUNT_OR_ALL,
    Accept,
    Command,
    OptionalModel,
    Quiet,
    answer,
    say,
    speaking,
    whole_number_or,
)
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.runtime.hosts import Hosts

LAYER: Any = whole_number_or("layer", "a whole number counted from 0, last or all", "last", "all")


@dataclasses.dataclass(frozen=True)
class Analyze(Command, AnalyzeOptions):
    """Measure every neuron of a model's last layer, or of other layers, and write a run folder with a table, figures
    and a report.
    """

    model: OptionalModel = AnalyzeOptions.model
    accept: Accept = AnalyzeOptions.accept
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = AnalyzeOptions.set
    layer: Annotated[int | Literal["last", "all"], LAYER] = AnalyzeOptions.layer
    neurons: Annotated[int | Literal["all"], COUNT_OR_ALL] = AnalyzeOptions.neurons
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        import pandas as pd

        from jaxconf.measure.run import run
        from jaxconf.report.terminal import print_sets, print_summary
        from jaxconf.results.optimum import optimum_sentences
        from jaxconf.results.run_folder import OPTIMUM, SETS, SITE

        with speaking("tokens", self.quiet) as (console, progress):
            table = run(self, progress, lambda sentence: say(console, sentence))
        if console.quiet:  # another host has the folder
            return
        out = self.folder(self.model)
        report, extra = out / "report.html", {OPTIMUM: (out / OPTIMUM).is_file(), SETS: bool(self.set)}
        tables = {name: pd.read_parquet(out / name) for name, there in extra.items() if there}

        site = {"site": out / SITE / "index.html"} if self.browse else {}

        def show() -> None:
            print_summary(table, console)
            if OPTIMUM in tables:
                say(console, "", *optimum_sentences(tables[OPTIMUM]))
            if SETS in tables:
                print_sets(tables[SETS], console)
            say(console, f"\nReport: {report}")
            for page in site.values():
                say(console, f"Site: {page}")

        def summary() -> dict[str, Any]:
            rows = {Path(name).stem: frame.to_dict("records") for name, frame in tables.items()}
            return {"report": report, **site, **table.summary(), **rows}

        answer(console, summary, show)

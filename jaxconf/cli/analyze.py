"""`jaxconf analyze`."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import COUNT_OR_ALL, Accept, OptionalModel, Quiet, say, speaking, whole_number_or
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.runtime.hosts import Hosts

LAYER: Any = whole_number_or("layer", "a whole number counted from 0, last or all", "last", "all")


@dataclasses.dataclass(frozen=True)
class Analyze(AnalyzeOptions):
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
        from jaxconf.runtime.hosts import first

        with speaking("tokens", self.quiet) as (console, progress):
            table = run(self, progress, lambda sentence: say(console, sentence))
        if not first():
            return
        out = self.folder(self.model)
        print_summary(table, console)
        if (out / OPTIMUM).is_file():
            say(console, "", *optimum_sentences(pd.read_parquet(out / OPTIMUM)))
        if self.set:
            print_sets(pd.read_parquet(out / SETS), console)
        say(console, f"\nReport: {out / 'report.html'}")
        if self.browse:
            say(console, f"Site: {out / SITE / 'index.html'}")

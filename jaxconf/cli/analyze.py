"""`jaxconf analyze`."""

import dataclasses

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import OptionalModel, Quiet, say, speaking
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Analyze(AnalyzeOptions):
    """Measure every neuron of a model's last layer, or of other layers, and write a run folder with a table, figures
    and a report.
    """

    model: OptionalModel = AnalyzeOptions.model
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = AnalyzeOptions.set
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        import pandas as pd

        from jaxconf.measure.run import run
        from jaxconf.report.terminal import print_sets, print_summary
        from jaxconf.results.run_folder import SETS
        from jaxconf.runtime.hosts import first

        with speaking("tokens", self.quiet) as (console, progress):
            table = run(self, progress, lambda sentence: say(console, sentence))
        if not first():
            return
        out = self.folder(self.model)
        print_summary(table, console)
        if self.set:
            print_sets(pd.read_parquet(out / SETS), console)
        say(console, f"\nReport: {out / 'report.html'}")

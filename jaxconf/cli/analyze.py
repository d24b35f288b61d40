"""`jaxconf analyze`."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Group
from tyro.constructors import PrimitiveConstructorSpec

from jaxconf.cli.common import Accept, OptionalModel, Quiet, say, speaking
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
class Analyze(AnalyzeOptions):
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

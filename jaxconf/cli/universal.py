"""`jaxconf universal`."""

import dataclasses
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Accept, Command, Counts, OwnText, Quiet, TextColumn, job, say_result
from jaxconf.data.sources import in_column
from jaxconf.measure.options import Measuring, Output
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Universal(Command):
    """Find which neurons of a model recur in models that were trained independently of it. Writes tables of every
    neuron with its best matches and families, figures and a page.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL MODEL [MODEL ...]")] = ()
    """two models or more with the same tokenizer: folders, such as those in models/ of a grid, hub ids, or "bundled";
    the neurons of the first are matched with those of the others"""
    accept: Accept = ()
    data: OwnText = "own"
    text_column: TextColumn = None
    tokens: int = 65536
    """how many tokens to correlate activations over, in windows of 256
    (or of the shortest context, if that is shorter)"""
    counts: Counts = None
    effects: int = 4096
    """how many tokens to measure the effects of ablation on, in the last layer of each model;
    entropy and frequency neurons are found by these effects; 0 leaves them out"""
    min_excess: float = 0.5
    """universal neurons: the least excess, which is the correlation with the best match
    minus the largest correlation with the randomly rotated layers"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Measuring] = dataclasses.field(default_factory=Measuring)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.universal.families import FamilyRules
        from jaxconf.studies.universal.sentences import sentences
        from jaxconf.studies.universal.study import check_number, universal

        check_number(self.models)
        how = self.measuring
        rules, memory = FamilyRules(self.min_excess), read_size(how.memory, "--memory")
        with job(self.models[0], "universal.json", self.output, how, self.quiet) as work:
            found = universal(
                self.models,
                self.tokens,
                data=in_column(self.data, self.text_column),
                counts=self.counts,
                effects=self.effects,
                rules=rules,
                k=how.k,
                seed=how.seed,
                memory=memory,
                accept=self.accept,
                load=lambda model, accept=(): work.load(model, None, how.mesh, accept),
                progress=work.progress,
            )
            work.progress("figures and page", 0, 0)
            found.save(work.out)
        say_result(work.console, sentences(found), work.out / "universal.html")

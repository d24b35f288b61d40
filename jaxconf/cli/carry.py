"""`jaxconf carry`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Command, Components, ModelSource, Quiet, TextColumn, job, say_result
from jaxconf.data.sources import in_column
from jaxconf.measure.options import Output, Resampling
from jaxconf.runtime.hosts import Hosts

RUN = (
    "a finished run folder of `jaxconf analyze` on this model, whose entropy neurons by each rule are the sets;\n"
    "by default the documents of the first text that are never held out are analysed, unless a --set is given"
)


@dataclasses.dataclass(frozen=True)
class Carry(Command):
    """Measure whether a model's entropy neurons only influence its confidence, or carry it too, and how well it can be
    decoded at all. Writes tables, figures and a page.
    """

    source: Group[ModelSource] = dataclasses.field(default_factory=ModelSource)
    data: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """the text to read, as for `jaxconf analyze`; may be given several times, to compare texts;
    by default what the model was trained on if its folder says so, and else stdlib"""
    text_column: TextColumn = None
    tokens: int = 32768
    """how many tokens of each text to read; whole documents of them are held out, in three splits"""
    effects: int = 4096
    """on about how many of these tokens the influence is measured"""
    run_folder: Annotated[Path | None, tyro.conf.arg(name="run", help=RUN)] = None
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """a set of neurons of the last layer, such as 11.584,11.2378, or of components, such as sae.12,sae.99, or a file
    with such a set on each line; may be given several times"""
    components: Components = "neurons"
    controls: int = 20
    """random sets to compare each set with, each of as many neurons"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Resampling] = dataclasses.field(default_factory=Resampling)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.data.own_text import OWN
        from jaxconf.measure.inputs import check_amounts
        from jaxconf.measure.neuron_sets import read_sets
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.carry.sentences import sentences
        from jaxconf.studies.carry.study import carry

        how = self.measuring
        check_amounts(1, tokens=self.tokens, effects=self.effects, controls=self.controls)
        sets, memory, model = read_sets(self.set), read_size(how.memory, "--memory"), self.source.model
        with job(model, "carry.json", self.output, how, self.quiet) as work:
            work.progress("loading the model", 0, 0)
            found = carry(
                work.load(model, self.source.revision, how.mesh, self.source.accept),
                self.tokens,
                data=[in_column(data, self.text_column) for data in self.data or [OWN]],
                effects=self.effects,
                run=self.run_folder,
                sets=sets,
                components=self.components,
                controls=self.controls,
                k=how.k,
                bootstrap_draws=how.bootstrap_draws,
                seed=how.seed,
                memory=memory,
                facts={"model": model},
                progress=work.progress,
            )
            work.progress("figures and page", 0, 0)
            found.save(work.out)
        say_result(work.console, sentences(found), work.out / "carry.html")

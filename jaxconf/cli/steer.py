"""`jaxconf steer`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Command, Components, ModelSource, OwnText, Quiet, TextColumn, job, say_result
from jaxconf.data.sources import in_column
from jaxconf.measure.options import Output, Resampling
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Steer(Command):
    """Scale a model's confidence neurons, push its stream, or change its temperature, and measure which calibrates it
    best on text that it was not chosen on. Writes tables, figures and a page.
    """

    source: Group[ModelSource] = dataclasses.field(default_factory=ModelSource)
    data: OwnText = "own"
    text_column: TextColumn = None
    tokens: int = 16384
    """how many tokens of the text to read; half of its documents choose the doses"""
    from_run: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """the folder of a finished `jaxconf analyze` of this model, whose entropy and frequency neurons are scaled"""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """neurons of the last layer that are scaled together, such as 11.584,11.2378, or components, such as sae.12,sae.99,
    or a file with such a set on each line; may be given several times; without --run and --set, the ten neurons with
    the highest rho"""
    components: Components = "neurons"
    directions: Path | None = None
    """an .npz file of further directions to push the stream along: its array "write" has one on each row, and "names"
    may name them"""
    temperature: float = 0.7
    """what the model's logits are divided by first: below 1 the model is too sure of itself; 1 leaves it as it is"""
    prompts: int = 32
    """how many beginnings of held-out text the model continues with each treatment; 0 for none"""
    controls: int = 10
    """how many random sets of as many neurons to compare each set with"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Resampling] = dataclasses.field(default_factory=Resampling)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.measure.neuron_sets import read_sets
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.steering.sentences import sentences
        from jaxconf.studies.steering.study import steer

        how, model = self.measuring, self.source.model
        sets, memory = read_sets(self.set), read_size(how.memory, "--memory")
        with job(model, "steer.json", self.output, how, self.quiet) as work:
            work.progress("loading the model", 0, 0)
            found = steer(
                work.load(model, self.source.revision, how.mesh, self.source.accept),
                self.tokens,
                data=in_column(self.data, self.text_column),
                run=self.from_run,
                sets=sets,
                components=self.components,
                directions=self.directions,
                temperature=self.temperature,
                prompts=self.prompts,
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
        say_result(work.console, sentences(found), work.out / "steer.html")

"""`jaxconf induction`."""

import dataclasses

from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Command, Components, ModelSource, OwnText, Quiet, TextColumn, job, say_result
from jaxconf.data.sources import in_column
from jaxconf.measure.options import Output, Resampling
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Induction(Command):
    """Give a model text that repeats, and measure its entropy neurons, induction heads and calibration there. Writes
    tables, figures and a page.
    """

    source: Group[ModelSource] = dataclasses.field(default_factory=ModelSource)
    data: OwnText = "own"
    text_column: TextColumn = None
    sequences: int = 64
    """how many sequences to build, each of which is BOS, a piece of text, and the same piece again"""
    length: int = 100
    """how many tokens the piece of text has"""
    random: bool = False
    """repeat random tokens instead of text"""
    natural: bool = False
    """also measure natural repeats: places where a window of 256 tokens has the same six tokens twice,
    among the first 262,144 tokens of the text"""
    neurons: str | None = None
    """the neurons to measure, such as 11.584,11.2378, or components in their place, such as sae.12,sae.99;
    by default the ten neurons of the last layer with the highest rho"""
    components: Components = "neurons"
    heads: str | None = None
    """the heads that are ablated by making them attend to BOS alone, such as 5.1,5.5;
    by default the four with the highest induction scores, but at most a quarter of all heads"""
    controls: int = 20
    """how many random sets of neurons, and of heads, to compare with"""
    tokens: int = 4096
    """how many tokens of ordinary text the scaling of the neurons is measured on, besides the repeat"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Resampling] = dataclasses.field(default_factory=Resampling)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.measure.inputs import check_amounts
        from jaxconf.measure.neuron_sets import read_option, read_set
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.induction.sentences import sentences
        from jaxconf.studies.induction.study import induction

        how = self.measuring
        check_amounts(1, sequences=self.sequences, tokens=self.tokens)
        neurons = read_set("--neurons", self.neurons) if self.neurons else None
        heads = read_option("--heads", self.heads, "head") if self.heads else None
        memory = read_size(how.memory, "--memory")
        model = self.source.model
        with job(model, "induction.json", self.output, how, self.quiet) as work:
            work.progress("loading the model", 0, 0)
            found = induction(
                work.load(model, self.source.revision, how.mesh, self.source.accept),
                self.tokens,
                data=in_column(self.data, self.text_column),
                sequences=self.sequences,
                length=self.length,
                random=self.random,
                natural=self.natural,
                neurons=neurons,
                components=self.components,
                heads=heads,
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
        say_result(work.console, sentences(found), work.out / "induction.html")

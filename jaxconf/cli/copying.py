"""`jaxconf copying`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Command, Components, NamedModel, Quiet, TextColumn, job, say_result
from jaxconf.data.sources import in_column
from jaxconf.measure.options import Measuring, Output
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Copying(Command):
    """Give a model prompts that contradict what it knows, and measure whether it repeats the context or its memory,
    with and without its entropy neurons. Writes tables, figures and a page.
    """

    source: Group[NamedModel]
    data: Path
    """statements as CSV, with the columns rel_p_id, statement_subject, statement_relation and statement_object"""
    statements: int = 100
    """how many statements to ask, drawn at random; up to three prompts are made of each"""
    neurons: str | None = None
    """neurons of the last layer that are ablated together, such as 11.584,11.2378, or components in their place, such
    as sae.12,sae.99; by default the ten neurons with the highest rho"""
    components: Components = "neurons"
    controls: int = 100
    """how many random sets of as many neurons to compare with"""
    as_published: bool = False
    """also ablate the neurons that the paper's rule selects: the ten with the lowest LogitVar among those with a rho
    of 0.4 or more, at the paper's --k: 40 for GPT-2 Small, 48 for Phi-1.5 and Pythia 1.4B, 96 for Mistral 7B v0.1 and
    Llama-3 8B, and 3/128 of the width for other models"""
    text: Annotated[
        str,
        tyro.conf.arg(
            help="the text whose activations give the values that ablated neurons are set to;\n"
            "it is named as for --data of `jaxconf analyze`"
        ),
    ] = "own"
    text_column: TextColumn = None
    tokens: int = 16384
    """how many tokens of --text to read"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Measuring] = dataclasses.field(default_factory=Measuring)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.data.statements import read_statements
        from jaxconf.measure.inputs import check_amounts
        from jaxconf.measure.neuron_sets import read_set
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.copying.sentences import sentences
        from jaxconf.studies.copying.study import copying

        how = self.measuring
        check_amounts(1, statements=self.statements, tokens=self.tokens)
        check_amounts(0, seed=how.seed)
        neurons = read_set("--neurons", self.neurons) if self.neurons else None
        memory = read_size(how.memory, "--memory")
        read_statements(self.data)  # mistakes in the file are reported before the weights are loaded
        model = self.source.model
        with job(model, "copying.json", self.output, how, self.quiet) as work:
            work.progress("loading the model", 0, 0)
            found = copying(
                work.load(model, self.source.revision, how.mesh, self.source.accept),
                self.data,
                statements=self.statements,
                text=in_column(self.text, self.text_column, "--text"),
                tokens=self.tokens,
                neurons=neurons,
                components=self.components,
                controls=self.controls,
                k=how.k,
                as_published=self.as_published,
                seed=how.seed,
                memory=memory,
                facts={"model": model},
                progress=work.progress,
            )
            work.progress("figures and page", 0, 0)
            found.save(work.out)
        say_result(work.console, sentences(found), work.out / "copying.html")

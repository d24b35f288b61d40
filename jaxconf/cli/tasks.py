"""`jaxconf tasks`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Command, Components, NamedModel, Quiet, TextColumn, job, say_result
from jaxconf.data.sources import in_column
from jaxconf.measure.options import Output, Resampling
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Tasks(Command):
    """Ask a model questions, and measure its accuracy, its calibration, and whether its confidence tells right answers
    from wrong ones, with and without its confidence neurons. Writes tables, figures and a page.
    """

    source: Group[NamedModel]
    data: str
    """questions as .jsonl, .json (lines), .csv, .parquet, a folder or hf://datasets/OWNER/NAME, of which
    :subset=en,split=test behind it names a part: with the columns question, choices and answer, those of MMLU, ARC or
    HellaSwag, or for short answers question and answer"""
    from_run: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """the folder of a finished `jaxconf analyze` of this model, whose entropy and frequency neurons are ablated"""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """neurons of the last layer that are ablated together, such as 11.584,11.2378, or components, such as
    sae.12,sae.99, or a file with such a set on each line; may be given several times; without --run and --set, the ten
    neurons with the highest rho"""
    components: Components = "neurons"
    scale: tuple[float, ...] = (0.0, 2.0)
    """factors by which the activations of the neurons are multiplied, besides setting them to their means"""
    questions: int = 200
    """how many questions to ask, drawn at random"""
    text: Annotated[
        str,
        tyro.conf.arg(
            help="the text whose activations give the means that ablated neurons are set to;\n"
            "it is named as for --data of `jaxconf analyze`"
        ),
    ] = "own"
    text_column: TextColumn = None
    tokens: int = 16384
    """how many tokens of --text to read"""
    reasoning: str | None = None
    """reasoning text, named as for --data of `jaxconf analyze`, in which entropy and activations are given token by
    token"""
    reasoning_tokens: int = 4096
    """how many tokens of --reasoning to read"""
    controls: int = 20
    """how many random sets of as many neurons to compare each set with"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Resampling] = dataclasses.field(default_factory=Resampling)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.data.questions import read_questions
        from jaxconf.measure.inputs import check_amounts
        from jaxconf.measure.neuron_sets import read_sets
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.tasks.sentences import sentences
        from jaxconf.studies.tasks.study import tasks

        how = self.measuring
        check_amounts(1, questions=self.questions, tokens=self.tokens, reasoning_tokens=self.reasoning_tokens)
        check_amounts(0, seed=how.seed, bootstrap_draws=how.bootstrap_draws)
        sets = read_sets(self.set)
        memory = read_size(how.memory, "--memory")
        questions = read_questions(self.data)  # mistakes in the file are reported before the weights are loaded
        model = self.source.model
        with job(model, "tasks.json", self.output, how, self.quiet) as work:
            work.progress("loading the model", 0, 0)
            found = tasks(
                work.load(model, self.source.revision, how.mesh, self.source.accept),
                questions,
                from_run=self.from_run,
                sets=sets,
                components=self.components,
                scale=self.scale,
                questions=self.questions,
                text=in_column(self.text, self.text_column, "--text"),
                tokens=self.tokens,
                reasoning=self.reasoning,
                reasoning_tokens=self.reasoning_tokens,
                controls=self.controls,
                k=how.k,
                bootstrap_draws=how.bootstrap_draws,
                seed=how.seed,
                memory=memory,
                facts={"model": model, "data": self.data},
                progress=work.progress,
            )
            work.progress("figures and page", 0, 0)
            found.save(work.out)
        say_result(work.console, sentences(found), work.out / "tasks.html")

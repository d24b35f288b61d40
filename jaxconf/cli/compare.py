"""`jaxconf compare`."""

import dataclasses
import shutil
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Accept, Command, Model, OwnText, Quiet, TextColumn, job, say_result
from jaxconf.data.sources import in_column
from jaxconf.measure.options import Output, Resampling
from jaxconf.runtime.hosts import Hosts

RESUME = ".partial-compare"


@dataclasses.dataclass(frozen=True)
class Compare(Command):
    """Compare a base model with models that were trained further from it: their candidate entropy neurons, the effects
    of ablating them, and calibration. Writes tables, figures and a page.
    """

    base: Model
    """the base model, with one or more TUNED models after it;
    a folder in Hugging Face layout, a hub id such as openai-community/gpt2,
    or "bundled", the small model that comes with jaxconf"""
    tuned: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TUNED [TUNED ...]")]
    """one or more models that were trained further from the base model; each is compared with it"""
    accept: Accept = ()
    data: OwnText = "own"
    text_column: TextColumn = None
    tokens: int = 16384
    """how many tokens of the text to run the models on;
    a model with another tokenizer is compared by its weights alone"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Resampling] = dataclasses.field(default_factory=Resampling)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.comparison.sentences import paragraphs
        from jaxconf.studies.comparison.study import compare

        how = self.measuring
        memory = read_size(how.memory, "--memory")
        with job(self.base, "comparison.json", self.output, how, self.quiet) as work:
            found = compare(
                self.base,
                self.tuned,
                self.tokens,
                data=in_column(self.data, self.text_column),
                k=how.k,
                bootstrap_draws=how.bootstrap_draws,
                seed=how.seed,
                memory=memory,
                resume_folder=work.out / RESUME,
                accept=self.accept,
                load=lambda model, accept=(): work.load(model, None, how.mesh, accept),
                progress=work.progress,
            )
            work.progress("figures and page", 0, 0)
            found.save(work.out)
            shutil.rmtree(work.out / RESUME, ignore_errors=True)
        say_result(work.console, paragraphs(found), work.out / "comparison.html")

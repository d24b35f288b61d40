"""`jaxconf copying`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import NamedModel, Quiet, job, read_option, say_result
from jaxconf.measure.options import Measuring, Output
from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Copying:
    """Contradict what a model knows: whether it repeats the context or its memory, with and without its entropy
    neurons, with tables, figures and a page.
    """

    source: Group[NamedModel]
    data: Path
    """statements as CSV, with the columns rel_p_id, statement_subject, statement_relation and statement_object"""
    statements: int = 100
    """how many statements to ask, drawn at random; up to three prompts are made of each"""
    neurons: str | None = None
    """the chosen set, such as 11.584,11.2378, of the last layer; by default the ten with the highest rho"""
    controls: int = 100
    """random sets to compare with, each of as many neurons"""
    text: Annotated[
        str,
        tyro.conf.arg(
            help="text, as for --data of `jaxconf analyze`, over which the neurons' mean activations are taken"
        ),
    ] = "stdlib"
    tokens: int = 16384
    """how many tokens of that text"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Measuring] = dataclasses.field(default_factory=Measuring)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.data.documents import documents
        from jaxconf.data.statements import read_statements
        from jaxconf.data.windows import windows
        from jaxconf.results.run_folder import save_result
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.copying.figures import save_copying_figures, sentences
        from jaxconf.studies.copying.page import write_copying_report
        from jaxconf.studies.copying.study import check_chosen, copying

        how = self.measuring
        if self.statements < 1 or self.tokens < 1 or how.seed < 0:
            raise InputError(
                f"--statements is {self.statements}, --tokens {self.tokens} and --seed {how.seed}; "
                "give 1 or more, for the seed 0 or more"
            )
        neurons = read_option("--neurons", self.neurons, "11.584,11.2378")
        memory, statements = read_size(how.memory, "--memory"), read_statements(self.data)
        model = self.source.model
        with job(model, "copying.json", self.output, how, self.quiet) as work:
            work.progress("loading the model", 0, 0)
            lm = work.load(model, self.source.revision, how.mesh)
            check_chosen(lm.config, neurons or [(lm.config.n_layers - 1, 0)], self.controls)
            work.progress("reading text", 0, 0)
            found = copying(
                lm,
                statements,
                windows(documents(self.text), lm.tokenizer, self.tokens, min(256, lm.config.n_positions)),
                count=self.statements,
                neurons=neurons,
                controls=self.controls,
                k=how.k,
                seed=how.seed,
                memory=memory,
                facts={"model": model, "data": str(self.data), "text": self.text},
                progress=work.progress,
            )
            work.progress("figures and page", 0, 0)
            save_result(found, "copying", sentences(found), save_copying_figures, write_copying_report, work.out)
        say_result(work.console, sentences(found), work.out / "copying.html")

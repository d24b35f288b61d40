"""`jaxconf universal`."""

import dataclasses
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Quiet, Text, job, say_result
from jaxconf.measure.options import Measuring, Output
from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Universal:
    """Find which neurons of a model recur in models that were trained apart from it, with tables of every neuron and
    its families, figures and a page.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL MODEL [MODEL ...]")] = ()
    """two models or more with one tokenizer: folders, such as those of a grid, hub ids, or "bundled";
    the neurons of the first are matched"""
    data: Text = "stdlib"
    tokens: int = 65536
    """how many tokens to correlate activations over, in windows of 256 (or of the shortest context)"""
    effects: int = 4096
    """tokens that the effects of ablating the last layers' neurons are measured on, for entropy and frequency neurons;
    0 for none"""
    min_excess: float = 0.5
    """universal neurons: how much more the best match must correlate than the best of the randomly rotated layers"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Measuring] = dataclasses.field(default_factory=Measuring)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.data.documents import documents
        from jaxconf.data.windows import windows
        from jaxconf.results.run_folder import save_result
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.universal.figures import save_universal_figures, sentences
        from jaxconf.studies.universal.page import write_universal_report
        from jaxconf.studies.universal.study import FamilyRules, check_models, check_options, universal

        if len(self.models) < 2:
            raise InputError("give two models or more, the first of which is compared with the others")
        if self.tokens < 1:
            raise InputError(f"--tokens is {self.tokens}; give how many tokens to correlate activations over")
        how = self.measuring
        rules, memory = FamilyRules(self.min_excess), read_size(how.memory, "--memory")
        check_options(self.effects, rules, how.seed)
        with job(self.models[0], "universal.json", self.output, how, self.quiet) as work:
            lms: list[Any] = []
            for model in self.models:
                work.progress("loading the models", len(lms), len(self.models))
                lms.append(work.load(model, None, how.mesh))
            check_models(lms)
            work.progress("reading text", 0, 0)
            length = min(256, *(lm.config.n_positions for lm in lms))
            found = universal(
                lms,
                windows(documents(self.data), lms[0].tokenizer, self.tokens, length),
                effects=self.effects,
                rules=rules,
                k=how.k,
                seed=how.seed,
                memory=memory,
                facts={"model": self.models[0], "models": list(self.models), "data": self.data},
                progress=work.progress,
            )
            work.progress("figures and page", 0, 0)
            save_result(found, "universal", sentences(found), save_universal_figures, write_universal_report, work.out)
        say_result(work.console, sentences(found), work.out / "universal.html")

"""`jaxconf compare`."""

import dataclasses
import shutil
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import Model, Quiet, Text, job, say_result
from jaxconf.measure.options import Output, Resampling
from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import Hosts

PARTIAL = ".partial-compare"


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare a model with models that were trained further from it: candidates for entropy neurons, effects and
    calibration, with tables, figures and a page.
    """

    base: Model
    """a folder in Hugging Face layout, a hub id such as openai-community/gpt2,
    or "bundled", the small model that comes with jaxconf"""
    tuned: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TUNED [TUNED ...]")]
    """one or more models that were trained further from it, each of which is compared with it"""
    data: Text = "stdlib"
    tokens: int = 16384
    """how many tokens of the text to run the models on;
    a model with another tokenizer is compared by its weights alone"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Resampling] = dataclasses.field(default_factory=Resampling)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        from jaxconf.data.documents import documents
        from jaxconf.data.windows import windows
        from jaxconf.measure.analyze import check_options
        from jaxconf.models.families import config_from_hf
        from jaxconf.models.language_model import find, read_config
        from jaxconf.results.run_folder import save_result
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.comparison.figures import paragraphs, save_comparison_figures
        from jaxconf.studies.comparison.page import write_comparison_report
        from jaxconf.studies.comparison.study import check_same_shape, compare_models

        if self.tokens < 1:
            raise InputError(f"--tokens is {self.tokens}; give how many tokens to analyse")
        if not self.tuned:
            raise InputError(
                "there is no model to compare with; give at least one that was trained on from the base model"
            )
        how = self.measuring
        memory = read_size(how.memory, "--memory")
        with job(self.base, "comparison.json", self.output, how, self.quiet) as work:

            def config_of(model: str) -> Any:
                return config_from_hf(read_config(find(model, weights=False)[0]))

            def load(model: str) -> Any:
                work.progress(f"{model}: loading", 0, 0)
                return dataclasses.replace(work.load(model, None, how.mesh), name=model)

            configs = [config_of(model) for model in (self.base, *self.tuned)]
            for model, config in zip(
                self.tuned, configs[1:], strict=True
            ):  # before the weights, which can take minutes
                check_same_shape(configs[0], config, model)
            check_options(configs[0], "last", how.k, "auto", 1e-4, how.bootstrap_draws, how.seed)
            base = load(self.base)
            work.progress("reading text", 0, 0)
            context = min(256, *(config.n_positions for config in configs))
            found = compare_models(
                base,
                map(load, self.tuned),
                windows(documents(self.data), base.tokenizer, self.tokens, context),
                k=how.k,
                bootstrap_draws=how.bootstrap_draws,
                seed=how.seed,
                memory=memory,
                facts={"data": self.data},
                resume_folder=work.out / PARTIAL,
                progress=work.progress,
            )
            work.progress("figures and page", 0, 0)
            save_result(
                found, "comparison", paragraphs(found), save_comparison_figures, write_comparison_report, work.out
            )
            shutil.rmtree(work.out / PARTIAL, ignore_errors=True)
        say_result(work.console, paragraphs(found), work.out / "comparison.html")

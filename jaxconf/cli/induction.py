"""`jaxconf induction`."""

import dataclasses
from typing import Any

from tyro.conf import OmitArgPrefixes as Group

from jaxconf.cli.common import ModelSource, Quiet, Text, job, read_option, say_result
from jaxconf.measure.options import Output, Resampling
from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import Hosts

NATURAL_TOKENS = 2**18


@dataclasses.dataclass(frozen=True)
class Induction:
    """Let text repeat, and measure what entropy neurons, induction heads and calibration do then, with tables, figures
    and a page.
    """

    source: Group[ModelSource] = dataclasses.field(default_factory=ModelSource)
    data: Text = "stdlib"
    sequences: int = 64
    """how many sequences to build: BOS, a piece of text, and the same piece again"""
    length: int = 100
    """tokens of the piece of text"""
    random: bool = False
    """repeat random tokens instead of text"""
    natural: bool = False
    """also look for six tokens that the text repeats by itself, in windows of 256 of its first 262,144 tokens"""
    neurons: str | None = None
    """the chosen neurons, such as 11.584,11.2378; by default the ten of the last layer with the highest rho"""
    heads: str | None = None
    """the heads that are made to look at BOS alone, such as 5.1,5.5;
    by default those with the highest induction score"""
    controls: int = 20
    """random sets, of neurons and of heads, to compare with"""
    tokens: int = 4096
    """how many tokens of text the doses are measured on, besides the repeat"""
    output: Group[Output] = dataclasses.field(default_factory=Output)
    measuring: Group[Resampling] = dataclasses.field(default_factory=Resampling)
    quiet: Quiet = False
    hosts: Group[Hosts] = dataclasses.field(default_factory=Hosts)

    def run(self) -> None:
        import numpy as np

        from jaxconf.data.documents import documents
        from jaxconf.data.windows import windows
        from jaxconf.measure.neuron_sets import check_set
        from jaxconf.results.run_folder import save_result
        from jaxconf.runtime.memory import read_size
        from jaxconf.studies.induction.figures import save_induction_figures, sentences
        from jaxconf.studies.induction.page import write_induction_report
        from jaxconf.studies.induction.study import check_heads, check_repeats, induction

        if self.sequences < 1 or self.tokens < 1:
            raise InputError(f"--sequences is {self.sequences} and --tokens {self.tokens}; give 1 or more for each")
        neurons = read_option("--neurons", self.neurons, "11.584,11.2378")
        heads = read_option("--heads", self.heads, "5.1,5.5")
        memory = read_size(self.measuring.memory, "--memory")
        model, revision = self.source.model, self.source.revision
        with job(model, "induction.json", self.output, self.measuring, self.quiet) as work:
            work.progress("loading the model", 0, 0)
            lm = work.load(model, revision, self.measuring.mesh)
            check_repeats(lm, self.length)
            check_set(lm.config, neurons or [(0, 0)], self.controls)
            if heads:
                check_heads(lm.config, heads)
            work.progress("reading text", 0, 0)
            context = min(256, lm.config.n_positions)
            if self.random:
                rng = np.random.default_rng(self.measuring.seed)
                drawn = rng.choice(_text_ids(lm), (self.sequences, self.length))
            else:
                pieces = windows(
                    documents(self.data), lm.tokenizer, self.sequences * (self.length + 1), self.length + 1
                )
                if len(pieces) < self.sequences:
                    raise InputError(
                        f"the text gives {len(pieces)} sequences of {self.length} tokens; "
                        f"give more text, or --sequences {len(pieces)}"
                    )
                drawn = pieces[:, 1:]  # without BOS
            found = induction(
                lm,
                drawn,
                windows(documents(self.data), lm.tokenizer, self.tokens, context),
                natural=windows(documents(self.data), lm.tokenizer, NATURAL_TOKENS, context) if self.natural else None,
                neurons=neurons,
                heads=heads,
                controls=self.controls,
                k=self.measuring.k,
                bootstrap_draws=self.measuring.bootstrap_draws,
                seed=self.measuring.seed,
                memory=memory,
                facts={"model": model, "data": self.data, "repeated": "random tokens" if self.random else "text"},
                progress=work.progress,
            )
            work.progress("figures and page", 0, 0)
            save_result(found, "induction", sentences(found), save_induction_figures, write_induction_report, work.out)
        say_result(work.console, sentences(found), work.out / "induction.html")


def _text_ids(lm: Any) -> list[int]:
    """Tokens that may be drawn at random: all that are text."""
    return sorted(set(range(min(lm.config.vocab_size, lm.tokenizer.vocab_size))) - lm.special_ids)

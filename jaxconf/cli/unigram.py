"""`jaxconf unigram`."""

import dataclasses
from pathlib import Path

from jaxconf.cli.common import Accept, Command, Model, OwnText, Quiet, TextColumn, answer, say, speaking
from jaxconf.data.sources import in_column
from jaxconf.measure.options import Source


@dataclasses.dataclass(frozen=True)
class Unigram(Command):
    """Count the tokens of a text with a model's tokenizer, and save them as .npy, an integer for each token id."""

    model: Model
    """a folder or hub id of a model with a tokenizer, or "bundled"; the weights are not loaded"""
    out: Path
    """the .npy file to write"""
    revision: str | None = Source.revision
    """the branch, tag or commit on the hub"""
    accept: Accept = ()
    data: OwnText = "own"
    text_column: TextColumn = None
    force: bool = False
    """replace the file if it exists"""
    quiet: Quiet = False

    def run(self) -> None:
        import numpy as np

        from jaxconf.measure.unigram import unigram

        with speaking("tokens", self.quiet) as (console, progress):
            counts = unigram(
                self.model,
                self.out,
                revision=self.revision,
                accept=self.accept,
                data=in_column(self.data, self.text_column),
                force=self.force,
                progress=progress,
                say=lambda sentence: say(console, sentence),
            )
        found = {"tokens": counts.sum(), "ids": len(counts), "ids_seen": np.count_nonzero(counts), "counts": self.out}
        said = "{tokens:,} tokens, {ids_seen:,} of {ids:,} ids seen: {counts}".format(**found)
        answer(console, lambda: found, lambda: say(console, said))

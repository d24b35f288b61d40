"""What the commands share: groups of options, the frame of a job that writes into a folder, and how they speak."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from jaxconf.measure.options import Measuring, Output, Source

if TYPE_CHECKING:
    from rich.console import Console

    from jaxconf.models.language_model import LanguageModel
    from jaxconf.runtime.progress import Progress

Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
OptionalModel = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[MODEL]")]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
Text = Annotated[str, tyro.conf.arg(help="text, as for `jaxconf analyze`")]
Quiet = Annotated[
    bool,
    tyro.conf.arg(help="do not show the progress: bars in a terminal, and otherwise lines on standard error"),
]


@dataclasses.dataclass(frozen=True)
class ModelSource(Source):
    """Which model is measured."""

    model: OptionalModel = Source.model


@dataclasses.dataclass(frozen=True)
class NamedModel(Source):
    """Which model is measured; it must be named."""

    model: Model = dataclasses.field()


class Job(NamedTuple):
    """What a command works with."""

    out: Path  # the folder to write to
    console: "Console"
    progress: "Progress"

    def load(self, model: str, revision: str | None, mesh: str | None) -> "LanguageModel":
        """A model on its mesh, about which a sentence is printed if it has several devices."""
        from jaxconf.runtime.placement import load_placed

        return load_placed(model, revision, mesh, lambda sentence: say(self.console, sentence))


@contextlib.contextmanager
def job(model: str, mark: str, output: Output, measuring: Measuring, quiet: bool) -> Iterator[Job]:
    """The frame of a command's work: its folder is claimed, its progress shown, and its trace recorded if wanted.

    `mark`: the file that makes the folder a result.
    """
    from jaxconf.results.run_folder import claim
    from jaxconf.runtime.hosts import only_first_writes
    from jaxconf.runtime.timing import traced

    with (
        only_first_writes(output.folder(model)) as out,
        claim(out, mark, output.force),
        speaking("tokens", quiet) as (console, progress),
        traced(measuring.profile),
    ):
        yield Job(out, console, progress)


@contextlib.contextmanager
def speaking(unit: str, quiet: bool) -> Iterator[tuple["Console", "Progress"]]:
    """A console, which only the first host shows, and what shows the progress within the block.

    `unit`: of the rates.
    """
    from rich.console import Console

    from jaxconf.runtime.hosts import first
    from jaxconf.runtime.progress import progress

    console = Console(quiet=not first())
    with progress(console, unit, quiet) as report:
        yield console, report


def say(console: "Console", *sentences: str) -> None:
    """Print each sentence as a line, however long it is."""
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def say_result(console: "Console", sentences: Sequence[str], page: Path) -> None:
    """Print what a study found, and where its page is."""
    say(console, *sentences, f"\nPage: {page}")


def read_option(option: str, text: str | None, example: str) -> list[tuple[int, int]] | None:
    """The (layer, index) of the neurons or heads that an option names, if it is given.

    Raises InputError for any other text.
    """
    from jaxconf.measure.neuron_sets import read_names
    from jaxconf.models.errors import InputError

    try:
        return read_names(text) if text else None
    except ValueError as error:
        raise InputError(f"{option} is {text!r}; give names such as {example}") from error

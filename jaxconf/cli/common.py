"""What the commands share: groups of options, the set-up of a job that writes into a folder, and printing."""

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
Text = Annotated[
    str,
    tyro.conf.arg(
        help="the text to read, as for `jaxconf analyze`: a file, a folder, hf://datasets/OWNER/NAME, stdlib, or "
        "synthetic text such as noise"
    ),
]
TextColumn = Annotated[
    str | None,
    tyro.conf.arg(
        help='what holds the text: the column of a table, or the key of JSON lines, by default "text"; the '
        "same as :column=NAME at the end of the text's name"
    ),
]
OwnText = Annotated[
    str,
    tyro.conf.arg(
        help='the text to read, as for `jaxconf analyze`: "own" is what the model was trained on if its folder says '
        "so, and else stdlib"
    ),
]
Components = Annotated[
    str,
    tyro.conf.arg(
        help="where the components are from that a set names, as for `jaxconf analyze`, such as sae=FOLDER, null, pc=8 "
        "or directions=FILE"
    ),
]
Counts = Annotated[
    Path | None,
    tyro.conf.arg(
        help="token counts as .npy (see `jaxconf unigram`); "
        "by default those of the first 40 million characters of --data; a model's tokens beyond those of its "
        "tokenizer may be left out, and count as 0 (any tokens, without a tokenizer)"
    ),
]
Accept = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        metavar="NAME",
        help="attributes of config.json that jaxconf does not know and that you know not to change the model's "
        "outputs, with commas between them; may be given several times",
    ),
]
Quiet = Annotated[
    bool,
    tyro.conf.arg(
        help="hide the progress, which is shown as bars in a terminal and otherwise as lines on standard error"
    ),
]


@dataclasses.dataclass(frozen=True)
class ModelSource(Source):
    """Which model is measured."""

    model: OptionalModel = Source.model
    accept: Accept = Source.accept


@dataclasses.dataclass(frozen=True)
class NamedModel(Source):
    """Which model is measured; the option has no default."""

    model: Model = dataclasses.field()
    accept: Accept = Source.accept


class Job(NamedTuple):
    """What a command needs for its work."""

    out: Path  # the folder to write to
    console: "Console"
    progress: "Progress"

    def load(self, model: str, revision: str | None, mesh: str | None, accept: Sequence[str] = ()) -> "LanguageModel":
        """Load a model onto its mesh; print the sizes of the mesh if it has several devices."""
        from jaxconf.runtime.placement import load_placed

        return load_placed(model, revision, mesh, lambda sentence: say(self.console, sentence), accept)


@contextlib.contextmanager
def job(model: str, mark: str, output: Output, measuring: Measuring, quiet: bool) -> Iterator[Job]:
    """Claim the command's output folder, show the progress, and record a trace of JAX if --profile is given.

    `mark`: the file that marks a folder as a result of this command. Raises InputError as
    `jaxconf.results.run_folder.claim` does.
    """
    from jaxconf.results.run_folder import claim, traced
    from jaxconf.runtime.hosts import only_first_writes

    with (
        only_first_writes(output.folder(model)) as out,
        claim(out, mark, output.force),
        speaking("tokens", quiet) as (console, progress),
        traced(measuring.profile),
    ):
        yield Job(out, console, progress)


@contextlib.contextmanager
def speaking(unit: str, quiet: bool) -> Iterator[tuple["Console", "Progress"]]:
    """A console, which prints on the first host only, and the function that shows the progress within the block.

    `unit`: what the rates count, such as "tokens".
    """
    from rich.console import Console

    from jaxconf.runtime.hosts import first
    from jaxconf.runtime.progress import progress

    console = Console(quiet=not first())
    with progress(console, unit, quiet) as report:
        yield console, report


def say(console: "Console", *sentences: str) -> None:
    """Print each sentence on a line of its own, which is never wrapped."""
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def say_result(console: "Console", sentences: Sequence[str], page: Path) -> None:
    """Print the sentences about what a study found, and the path of its page."""
    say(console, *sentences, f"\nPage: {page}")

"""What the commands share: groups of options, the set-up of a job that writes into a folder, and printing."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from jaxconf.measure.options import Measuring, Output, Source

if TYPE_CHECKING:
    from rich.console import Console

    from jaxconf.models.language_model import LanguageModel
    from jaxconf.runtime.progress import Progress

Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
OptionalModel = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[MODEL]")]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
Repository = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
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


_as_json: ContextVar[bool] = ContextVar("_as_json", default=False)  # whether the command was given --json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """What every command has."""

    json: bool = False
    """print the result as JSON on standard output, for programs; all else that is said goes to standard error"""


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
    """A console, as `terminal` gives it, and the function that shows the progress within the block.

    `unit`: what the rates count, such as "tokens".
    """
    from jaxconf.runtime.progress import progress

    console = terminal()
    with progress(console, unit, quiet) as report:
        yield console, report


def terminal() -> "Console":
    """The console for what is said to people: standard error with --json, and else standard output.

    It prints on the first host only.
    """
    from rich.console import Console

    from jaxconf.runtime.hosts import alone, first

    return Console(quiet=not (alone() or first()), stderr=_as_json.get())


@contextlib.contextmanager
def hub_progress(quiet: bool) -> Iterator[None]:
    """Within the block, the bars that huggingface_hub shows on standard error are hidden if `quiet` is true."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if not quiet or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[None]:
    """Within the block, `answer` prints JSON if `as_json` is true."""
    token = _as_json.set(as_json)
    try:
        yield
    finally:
        _as_json.reset(token)


def answer(console: "Console", summary: Callable[[], Any], show: Callable[[], None]) -> None:
    """Print the result of a command: what `summary` returns as JSON on standard output with --json, or else by `show`.

    Every command ends with it. `summary`: its mappings and sequences may hold numpy's numbers and paths; numbers that
    are not finite become null.
    """
    if console.quiet:
        return
    if not _as_json.get():
        show()
        return
    from jaxconf.results.files import plain

    print(json.dumps(plain(summary()), indent=2, default=str))


def say(console: "Console", *sentences: str) -> None:
    """Print each sentence on a line of its own, which is never wrapped."""
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def say_result(console: "Console", sentences: Sequence[str], page: Path) -> None:
    """Print what a study found: the sentences and the path of its page, or with --json its facts and both."""
    answer(
        console,
        lambda: {"page": page, **json.loads(page.with_suffix(".json").read_text("utf-8"))},
        lambda: say(console, *sentences, f"\nPage: {page}"),
    )

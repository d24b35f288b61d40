"""The `jaxconf` command: which command is meant, and how it ends."""

import sys
import traceback
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from jaxconf.cli.analyze import Analyze
from jaxconf.cli.compare import Compare
from jaxconf.cli.copying import Copying
from jaxconf.cli.induction import Induction
from jaxconf.cli.models import Models
from jaxconf.cli.report import Report
from jaxconf.cli.sweep import Sweep, SweepReport
from jaxconf.cli.track import Track
from jaxconf.cli.train import Train, preset
from jaxconf.cli.unigram import Unigram
from jaxconf.cli.universal import Universal
from jaxconf.models.errors import InputError, nearest
from jaxconf.runtime.hosts import alone, join, leave, of_a_lost_host, part

DESCRIPTION = "Finds, measures and explains a language model's confidence neurons."
COMMANDS: dict[str, type[Any]] = {
    "analyze": Analyze,
    "induction": Induction,
    "compare": Compare,
    "universal": Universal,
    "copying": Copying,
    "unigram": Unigram,
    "train": Train,
    "track": Track,
    "sweep": Sweep,
    "sweep-report": SweepReport,
    "report": Report,
    "models": Models,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    The process ends with 2 and one sentence if the user can correct what is wrong, and with 130 if it was interrupted.
    """
    try:
        command = parsed(list(sys.argv[1:] if arguments is None else arguments))
        if hasattr(command, "hosts"):
            join(command.hosts, by_itself=not isinstance(command, Sweep))
        command.run()
        part()
    except InputError as error:
        print(f"jaxconf: {error}", file=sys.stderr)
        leave(2)
    except KeyboardInterrupt:
        print(
            "jaxconf: interrupted; the same command continues from what was finished (analyze, compare, sweep, track) "
            "or starts again",
            file=sys.stderr,
        )
        leave(130)
    except Exception as error:
        if alone():
            raise
        lost = of_a_lost_host(error)
        if not lost:
            traceback.print_exc()
        leave(1, explained=not lost)


def parsed(arguments: list[str]) -> Any:
    """The command that the arguments name, with its options.

    Raises InputError for an unknown command. tyro ends the process after the help, and with 2 for wrong options.
    """
    config, arguments = preset(arguments)
    count = 2 if arguments[:2] == ["sweep", "report"] else 1
    name, rest = "-".join(arguments[:count]), arguments[count:]
    if not name or name.startswith("-"):
        return tyro.cli(_all_commands(), args=arguments, prog="jaxconf", description=DESCRIPTION)
    if name not in COMMANDS:
        raise InputError(
            f"there is no command {name!r}; the nearest is {nearest(name, COMMANDS)!r}, and jaxconf --help lists all"
        )
    prog = f"jaxconf {' '.join(arguments[:count])}"
    if name == "train":  # whose --out has no default, which tyro's own mark says
        return tyro.cli(Train, args=rest, prog=prog, default=Train(out=tyro.MISSING, config=config))
    return tyro.cli(COMMANDS[name], args=rest, prog=prog)


def _all_commands() -> Any:
    """The commands as tyro lists them."""
    commands = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items()]
    return typing.Union[tuple(commands)]  # noqa: UP007

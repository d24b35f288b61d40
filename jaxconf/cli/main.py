"""The `jaxconf` command: which command is meant, and how it ends."""

import importlib
import shutil
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import Any

import tyro

from jaxconf.cli.sweep import Sweep
from jaxconf.cli.train import Train, preset
from jaxconf.models.errors import InputError, nearest
from jaxconf.runtime.hosts import alone, join, leave, of_a_lost_host, part

DESCRIPTION = "Finds, measures and explains a language model's confidence neurons."
NAMES = "analyze induction compare universal copying unigram train track sweep sweep-report report models"


def command(name: str) -> type[Any]:
    """The class of a command's options: that of sweep-report is SweepReport in jaxconf/cli/sweep.py."""
    words = name.split("-")
    return getattr(importlib.import_module(f"jaxconf.cli.{words[0]}"), "".join(word.title() for word in words))


COMMANDS = {name: command(name) for name in NAMES.split()}


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

    Raises InputError for an unknown command. The process ends after the help, and with 2 for wrong options.
    """
    if arguments[:1] in (["-h"], ["--help"]):
        print(listing())
        sys.exit()
    if not arguments or arguments[0].startswith("-"):
        raise InputError("no command is given; jaxconf --help lists them")
    config, arguments = preset(arguments)
    count = 2 if arguments[:2] == ["sweep", "report"] else 1
    name, rest = "-".join(arguments[:count]), arguments[count:]
    if name not in COMMANDS:
        raise InputError(
            f"there is no command {name!r}; the nearest is {nearest(name, COMMANDS)!r}, and jaxconf --help lists all"
        )
    prog = f"jaxconf {' '.join(arguments[:count])}"
    if name == "train":  # whose --out has no default, which tyro's own mark says
        return tyro.cli(Train, args=rest, prog=prog, default=Train(out=tyro.MISSING, config=config))
    return tyro.cli(COMMANDS[name], args=rest, prog=prog)


def listing() -> str:
    """All commands, each with the first paragraph of its help."""
    width, column = min(120, shutil.get_terminal_size().columns), 16
    lines = ["usage: jaxconf COMMAND [OPTIONS]", "", DESCRIPTION, ""]
    for name, command in COMMANDS.items():
        about = " ".join((command.__doc__ or "").partition("\n\n")[0].split())
        head = f"  {name.replace('-', ' ')}".ljust(column)
        lines.append(textwrap.fill(about, width, initial_indent=head, subsequent_indent=" " * column))
    return "\n".join([*lines, "", "jaxconf COMMAND --help lists the options of a command."])

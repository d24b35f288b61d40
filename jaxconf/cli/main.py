"""The `jaxconf` command: finds the command that the arguments name, runs it and sets the exit code."""

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


def options_of(name: str) -> type[Any]:
    """The class of a command's options: that of sweep-report is SweepReport in jaxconf/cli/sweep.py."""
    words = name.split("-")
    return getattr(importlib.import_module(f"jaxconf.cli.{words[0]}"), "".join(word.title() for word in words))


COMMANDS = {name: options_of(name) for name in NAMES.split()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, by default those of the process.

    Exit codes: 2 after an InputError, whose sentence is printed on standard error; 130 after Ctrl-C; 1 after any other
    error on one of several hosts. On a single host, any other error is raised.
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
            "jaxconf: the command was interrupted; give it again: analyze, compare, sweep and track continue from what "
            "was finished, and the other commands start from the beginning",
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

    Raises InputError if no command is given, and for an unknown command or preset. Exits after it has printed a help
    text, and with code 2 for wrong options.
    """
    if arguments[:1] in (["-h"], ["--help"]):
        print(listing())
        sys.exit()
    if not arguments or arguments[0].startswith("-"):
        raise InputError("no command is given; jaxconf --help lists the commands")
    config, arguments = preset(arguments)
    count = 2 if arguments[:2] == ["sweep", "report"] else 1
    name, rest = "-".join(arguments[:count]), arguments[count:]
    if name not in COMMANDS:
        raise InputError(
            f"there is no command {name!r}; the nearest is {nearest(name, COMMANDS)!r}, and jaxconf --help lists all"
        )
    prog = f"jaxconf {' '.join(arguments[:count])}"
    if name == "train":  # tyro.MISSING makes --out required, although the preset is given as a default
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

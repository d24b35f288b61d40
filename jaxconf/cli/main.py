"""The `jaxconf` command: finds the command that the arguments name, runs it and sets the exit code."""

import dataclasses
import difflib
import importlib
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import tyro

from jaxconf.cli.train import preset
from jaxconf.models.errors import InputError, nearest
from jaxconf.runtime.hosts import alone, join, leave, of_a_lost_host, part
from jaxconf.runtime.program_cache import use_cache
from jaxconf.runtime.version import __version__

DESCRIPTION = "Finds, measures and explains a language model's confidence neurons."
NAMES = (
    "analyze induction compare universal copying carry steer tasks unigram train track sweep sweep-report report models"
)


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
        use_cache()
        if hasattr(command, "hosts"):
            join(command.hosts)
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

    Raises InputError if no command is given, and for a command, preset, option or argument that there is not. Exits
    after it has printed a help text or the version, and with code 2 for other wrong options.
    """
    if arguments[:1] in (["-h"], ["--help"]):
        print(listing())
        sys.exit()
    if arguments[:1] == ["--version"]:
        print(f"jaxconf {__version__}")
        sys.exit()
    if not arguments:
        raise InputError("no command is given; jaxconf --help lists the commands")
    if arguments[0].startswith("-"):
        raise InputError(
            f"there is no option {arguments[0]!r} before a command; give a command first (jaxconf --help lists them)"
        )
    count = 2 if arguments[:2] == ["sweep", "report"] else 1
    name, rest = "-".join(arguments[:count]), arguments[count:]
    if name not in COMMANDS:
        close = nearest(name, COMMANDS).replace("-", " ")
        raise InputError(f"there is no command {name!r}; the nearest is {close!r}, and jaxconf --help lists all")
    prog = f"jaxconf {' '.join(arguments[:count])}"
    given: dict[str, Any] = {"args": rest, "prog": prog, "return_unknown_args": True}
    if name == "train":
        given["default"], given["args"] = preset(rest)
    command, unknown = tyro.cli(COMMANDS[name], **given)
    if unknown:
        raise InputError(_unknown(prog, unknown, COMMANDS[name]))
    return command


def _unknown(prog: str, words: Sequence[str], command: type[Any]) -> str:
    """What is wrong with words that a command has no use for, and what to do."""
    name, options = prog.removeprefix("jaxconf "), list(_options(command))
    wrong = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
    if wrong:
        close = difflib.get_close_matches(wrong, [*options, "--help"], 1)
        nearest_option = f"the nearest is {close[0]}, and " if close else ""
        return f"{name} has no option {wrong}; {nearest_option}{prog} --help lists all"
    extra = " ".join(words)
    if not dataclasses.fields(command):
        return f"{name} takes no arguments; leave out {extra!r}"
    or_else = ", or give the option whose value it is before it" if options else ""
    return f"{name} has no use for the argument {extra!r}; leave it out{or_else}"


def _options(command: type[Any], prefix: str = "--") -> Iterator[str]:
    """The options of a command, such as --tokens."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else [hint]
        if dataclasses.is_dataclass(kind):  # a group, whose own name is part of its options unless it is marked
            yield from _options(cast(type[Any], kind), prefix if marks else f"{prefix}{name}.")
        elif tyro.conf.Positional not in marks:
            renamed = (mark.name for mark in marks if getattr(mark, "name", None))
            yield prefix + next(renamed, name.replace("_", "-"))


def listing() -> str:
    """All commands, each with the first paragraph of its help."""
    width, column = min(120, shutil.get_terminal_size().columns), 16
    lines = ["usage: jaxconf COMMAND [OPTIONS]", "", DESCRIPTION, ""]
    for name, command in COMMANDS.items():
        about = " ".join((command.__doc__ or "").partition("\n\n")[0].split())
        head = f"  {name.replace('-', ' ')}".ljust(column)
        lines.append(textwrap.fill(about, width, initial_indent=head, subsequent_indent=" " * column))
    more = "jaxconf COMMAND --help lists the options of a command, and jaxconf --version prints the version."
    return "\n".join([*lines, "", textwrap.fill(more, width)])

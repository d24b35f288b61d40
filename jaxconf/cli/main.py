"""The `jaxconf` command: finds the command that the arguments name, runs it and sets the exit code.

The modules of commands are imported when they are needed, so that `jaxconf --help` answers at once.
"""

import ast
import dataclasses
import difflib
import importlib
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from jaxconf.models.errors import InputError, nearest
from jaxconf.runtime.hosts import alone, join, leave, of_a_lost_host, part
from jaxconf.runtime.program_cache import use_cache
from jaxconf.runtime.version import __version__

DESCRIPTION = "Finds, measures and explains a language model's confidence neurons."
GROUPS = {
    "Measure a model": "analyze report models",
    "Pass a result on": "push pull export",
    "Study a model": "induction compare universal copying carry steer tasks",
    "Train models, and measure many": "train track sweep sweep-report unigram",
    "Set up": "doctor completion",
}
"""The commands, in the order in which `jaxconf --help` lists them."""


class Commands(Mapping[str, type[Any]]):
    """The class of each command's options: that of sweep-report is SweepReport in jaxconf/cli/sweep.py."""

    def __getitem__(self, name: str) -> type[Any]:
        if name not in list(self):
            raise KeyError(name)
        return getattr(importlib.import_module(f"jaxconf.cli.{_module(name)}"), _class(name))

    def __iter__(self) -> Iterator[str]:
        return iter(" ".join(GROUPS.values()).split())

    def __len__(self) -> int:
        return len(list(iter(self)))


COMMANDS = Commands()


def _module(name: str) -> str:
    return name.partition("-")[0]


def _class(name: str) -> str:
    return name.title().replace("-", "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, by default those of the process.

    Exit codes: 2 after an InputError, whose sentence is printed on standard error; 130 after Ctrl-C; 1 after any other
    error on one of several hosts. On a single host, any other error is raised.
    """
    try:
        command = parsed(list(sys.argv[1:] if arguments is None else arguments))
        from jaxconf.cli.common import answering

        use_cache()
        if hasattr(command, "hosts"):
            join(command.hosts)
        with answering(command.json):
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
    import tyro

    from jaxconf.cli.help import show_help

    prog, kind = f"jaxconf {' '.join(arguments[:count])}", COMMANDS[name]
    given: dict[str, Any] = {"args": rest, "prog": prog}
    if name == "train":
        given["default"], given["args"] = importlib.import_module("jaxconf.cli.train").preset(rest)
    if {"-h", "--help"} & set(rest):
        show_help(kind, prog, given.get("default"))
    command, unknown = tyro.cli(kind, return_unknown_args=True, **given)
    if unknown:
        raise InputError(_unknown(prog, unknown, kind))
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
    if [field.name for field in dataclasses.fields(command)] == ["json"]:
        return f"{name} takes no arguments; leave out {extra!r}"
    or_else = ", or give the option whose value it is before it" if options != ["--json"] else ""
    return f"{name} has no use for the argument {extra!r}; leave it out{or_else}"


def _options(command: type[Any], prefix: str = "--") -> Iterator[str]:
    """The options of a command, such as --tokens."""
    from tyro.conf import Positional

    hints = get_type_hints(command, include_extras=True)
    for name, hint in ((field.name, hints[field.name]) for field in dataclasses.fields(command)):
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else [hint]
        if dataclasses.is_dataclass(kind):  # a group, whose own name is part of its options unless it is marked
            yield from _options(cast(type[Any], kind), prefix if marks else f"{prefix}{name}.")
        elif Positional not in marks:
            renamed = (mark.name for mark in marks if getattr(mark, "name", None))
            yield prefix + next(renamed, name.replace("_", "-"))


def listing() -> str:
    """All commands in their groups, each with the first paragraph of its help."""
    width, column = min(120, shutil.get_terminal_size().columns), 16
    lines = ["usage: jaxconf COMMAND [OPTIONS]", "", DESCRIPTION]
    for group, names in GROUPS.items():
        lines += ["", _bold(group)]
        for name in names.split():
            head = f"  {name.replace('-', ' ')}".ljust(column)
            lines.append(textwrap.fill(_about(name), width, initial_indent=head, subsequent_indent=" " * column))
    more = (
        "jaxconf COMMAND --help lists the options of a command, jaxconf --version prints the version, and jaxconf "
        "completion makes a shell complete commands and options."
    )
    return "\n".join([*lines, "", textwrap.fill(more, width)])


def _about(name: str) -> str:
    """The first paragraph of a command's help, read from its module without importing it."""
    tree = ast.parse(Path(__file__).with_name(f"{_module(name)}.py").read_text("utf-8"))
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == _class(name))
    return " ".join((ast.get_docstring(next(classes)) or "").partition("\n\n")[0].split())


def _bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text

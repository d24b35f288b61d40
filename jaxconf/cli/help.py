"""The help of one command: its options in boxes, those that are needed most often first.

tyro makes a box for each nested dataclass. So the help is that of a dataclass with the same options in other boxes,
which is made here for the purpose and parses nothing.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, cast, get_args, get_origin, get_type_hints

import tyro

from jaxconf.measure.options import Resampling
from jaxconf.runtime.hosts import Hosts

OFTEN = (
    "data tokens out layer set run_folder from_run statements questions vary seeds steps resume layers neurons "
    "ablation components sequences length revisions effects scale tries status plan revision format public counts "
    "controls prompts"
).split()
"""Options that are needed often, in any command; those that are needed most often come first."""
ALWAYS = ["force", "quiet", "json"]
MOST = 10  # options in the first box
SELDOM = {field.name for kind in (Resampling, Hosts) for field in dataclasses.fields(kind)} | {"accept"}


class Option(NamedTuple):
    """A field of a command: its name, its type with tyro's marks and its help, and its default or MISSING."""

    name: str
    hint: Any
    default: Any

    @property
    def boxed(self) -> bool:
        """Whether tyro has a box of its own for it: an argument without a name, or a group that keeps its name."""
        kind, *marks = get_args(self.hint)
        return tyro.conf.Positional in marks or dataclasses.is_dataclass(kind)


def show_help(command: type[Any], prog: str, default: Any = None) -> None:
    """Print the help of a command, and exit. `default`: an instance whose values are the defaults, if there is one."""
    options = list(_options(command, default))
    named = {option.name: option for option in options}
    boxed = [option for option in options if option.boxed]
    required = [option.name for option in options if option.default is dataclasses.MISSING and not option.boxed]
    always = [name for name in ALWAYS if name in named]
    often = list(dict.fromkeys([*required, *(name for name in OFTEN if name in named)]))[: MOST - len(always)]
    first = [named[name] for name in [*often, *always]]
    rest = [option for option in options if option not in [*first, *boxed]]
    boxes = {
        "more": [option for option in rest if option.name not in SELDOM],
        "seldom_needed": [option for option in rest if option.name in SELDOM],
    }
    nested = [(name, _marked(_made(name, box, []), tyro.conf.OmitArgPrefixes)) for name, box in boxes.items() if box]
    shown = _made("Shown", [*boxed, *first], nested)
    tyro.extras.set_accent_color("cyan")
    tyro.cli(shown, prog=prog, description=inspect.getdoc(command), args=["--help"])


def _options(command: type[Any], default: Any) -> Iterator[Option]:
    """The options of a command, those of its groups too; a group whose name is part of its options counts as one."""
    hints, about = get_type_hints(command, include_extras=True), _help(command)
    for field in dataclasses.fields(command):
        hint = hints[field.name]
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else [hint]
        value = field.default
        if default is not None:
            value = getattr(default, field.name)
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if dataclasses.is_dataclass(kind) and marks:
            yield from _options(cast(type[Any], kind), None if value is dataclasses.MISSING else value)
            continue
        said = tyro.conf.arg(help=about.get(field.name), help_behavior_hint="" if value is None else None)
        yield Option(field.name, functools.reduce(_marked, [tyro.conf.DisallowNone, said, *marks], kind), value)


def _marked(hint: Any, mark: Any) -> Any:
    return Annotated[hint, mark]


def _help(command: type[Any]) -> dict[str, str]:
    """The text below each field of a dataclass and of those that it inherits from."""
    found: dict[str, str] = {}
    for kind in filter(dataclasses.is_dataclass, reversed(command.__mro__)):
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind)))):
            if not isinstance(node, ast.ClassDef):
                continue
            for field, text in itertools.pairwise(node.body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        found[name] = inspect.cleandoc(said)
    return found


def _made(name: str, options: list[Option], nested: list[tuple[str, Any]]) -> Any:
    fields: list[Any] = [(option.name, option.hint, _field(option.default)) for option in options]
    return dataclasses.make_dataclass(name, [*fields, *nested], kw_only=True, frozen=True)


def _field(default: Any) -> Any:
    if default is dataclasses.MISSING:
        return dataclasses.field()
    return dataclasses.field(default_factory=lambda: default)

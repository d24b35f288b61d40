"""The names of texts: a place, and behind it which subset, split and column of a data set are read.

A name is PLACE or PLACE:FIELD=VALUE,FIELD=VALUE with the fields of `Source`, such as `reviews.csv:column=body` or
`hf://datasets/allenai/c4:subset=en,split=train`.
"""

import re
from pathlib import Path
from typing import NamedTuple

from jaxconf.models.errors import InputError, nearest

FIELDS = ("subset", "split", "column")
_NAMES = "|".join(FIELDS)


class Source(NamedTuple):
    """What the name of a text says. `str` gives the name again."""

    place: str  # a path, hf://… or stdlib
    subset: str | None = None  # a part of a data set, which the hub also calls its config
    split: str | None = None  # such as train
    column: str | None = None  # what holds the text: the column of a table, or the key of an object in JSON lines

    def __str__(self) -> str:
        given = [f"{name}={getattr(self, name)}" for name in FIELDS if getattr(self, name)]
        return self.place + ":" * bool(given) + ",".join(given)


def parsed(source: str) -> Source:
    """What a name says; that of a file which exists is its path, whatever is in it. Not for synthetic text.

    Raises InputError for a field that there is not, that is given twice, or that has no value.
    """
    found = re.fullmatch(rf"(?s)(.*?):((?:{_NAMES})=.*|\w+=[^/]*)", source)
    if not found or Path(source).expanduser().exists():
        return Source(source)
    given: dict[str, str] = {}
    # A column's name may hold commas. So only a comma before the name of a field begins another field.
    for part in re.split(rf",(?=(?:{_NAMES})=)", found[2]):
        name, _, value = part.partition("=")
        if name not in FIELDS:
            raise InputError(
                f"the text {source!r} has the unknown field {name!r}; the nearest is {nearest(name, FIELDS)!r}, and "
                f"all are {', '.join(FIELDS)}"
            )
        if name in given or not value:
            problem = "twice" if name in given else "without a value"
            raise InputError(f"the text {source!r} has {name} {problem}; give {name}=VALUE once")
        given[name] = value
    return Source(found[1], **given)


def in_column(source: str, column: str | None, option: str = "--data") -> str:
    """The name of the same text, read from the column that --text-column gives, or `source` itself if that is None.

    `option`: what gives the source on the command line, for error messages. Raises InputError if the source names
    another column, or is a text that has none.
    """
    from jaxconf.data.own_text import OWN
    from jaxconf.data.worlds import world_of

    if column is None:
        return source
    if not column:
        raise InputError("--text-column is empty; give the name of the column that holds the text")
    if source in (OWN, "stdlib") or world_of(source):
        raise InputError(f"the text {source!r} has no columns; leave out --text-column, or give a table with {option}")
    said = parsed(source)
    if said.column not in (None, column):
        raise InputError(
            f"{option} names the column {said.column!r}, and --text-column is {column!r}; give one of the two"
        )
    return str(said._replace(column=column))

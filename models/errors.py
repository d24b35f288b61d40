"""`InputError`, the exception for every mistake that a user can make, and helpers for its messages."""

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """An input of the user cannot be used.

    The message is one sentence that says what is wrong and what to do. The command line prints it and exits with
    code 2.
    """


class UnknownAttributes(InputError):
    """A config.json has attributes whose meaning is not known."""

    def __init__(self, within: str, names: Sequence[str]) -> None:
        super().__init__(f"{within} has {', '.join(map(repr, names))}, whose meaning is not known; use another model")
        self.within, self.names = within, tuple(names)


def nearest(name: str, known: Iterable[str]) -> str:
    """The entry of `known` that is most similar to `name`."""
    return str(difflib.get_close_matches(name, list(known), 1, 0.0)[0])


def between(first: int, last: int) -> str:
    """The whole numbers that can be given, such as "a number from 0 to 3", or "0" if there is only that one."""
    return f"a number from {first} to {last}" if first < last else f"{first}"


def listed(names: Sequence[str], most: int) -> str:
    """The names with commas between them, and how many more there are after the first `most`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def first_line(error: Exception) -> str:
    """The reason that the operating system gives, or else the first line of an error's message, without a full stop at
    its end, for use inside another message.
    """
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return reason.strip().partition("\n")[0].rstrip(" .")

"""`InputError`, the exception for every mistake that a user can make, and helpers for its messages."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """An input of the user cannot be used.

    The message is one sentence that says what is wrong and what to do. The command line prints it and exits with
    code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The entry of `known` that is most similar to `name`."""
    return difflib.get_close_matches(name, list(known), 1, 0.0)[0]


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the reason that the operating system gives, without a full
    stop at its end, for use inside another message.
    """
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return reason.strip().partition("\n")[0].rstrip(" .")

"""The one exception for what a user can cause, and what its messages share."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence that says what is wrong and what to do; the command line prints it and exits with 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like a name."""
    return difflib.get_close_matches(name, list(known), 1, 0.0)[0]


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the reason that the operating system gives, fit to stand in a
    sentence.
    """
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return reason.strip().partition("\n")[0].rstrip(" .")

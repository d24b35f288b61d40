"""The one exception for what a user can cause."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence that says what is wrong and what to do; the command line prints it and exits with 2.
    """

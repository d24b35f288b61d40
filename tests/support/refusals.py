"""What every refusal has in common."""

import re
from collections.abc import Callable

import pytest

from jaxconf.models.errors import InputError


def check_error(call: Callable[[], object], *parts: str) -> str:
    """The message of the InputError that `call` raises: one line that holds all the parts."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    return message


def check_sentence(message: str) -> None:
    """One line, one sentence."""
    assert "\n" not in message
    assert not re.search(r"[.!?] [A-Z]", message.rstrip(".")), message


def refused(call: Callable[[], object], *parts: str) -> str:
    """As `check_error`, where the message begins with a lower-case letter and ends without a full stop."""
    message = check_error(call, *parts)
    assert message[0].islower(), message
    assert not message.endswith("."), message
    return message

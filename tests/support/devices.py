"""Which of a test's parameters run on an accelerator too."""

from collections.abc import Iterable
from typing import Any

import pytest


def also_on_devices(values: Iterable[Any], *chosen: Any) -> list[Any]:
    """The parameters, the chosen ones marked `device`: few, since a program takes seconds to compile there."""
    values = list(values)
    assert all(value in values for value in chosen), chosen
    arguments = [value if isinstance(value, tuple) else (value,) for value in values]
    marks = [pytest.mark.device if value in chosen else () for value in values]
    return [pytest.param(*of, marks=mark) for of, mark in zip(arguments, marks, strict=True)]

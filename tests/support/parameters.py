"""Which of a test's parameters run on an accelerator too, and which in `make slow` alone."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def marked(values: Iterable[Any], devices: Collection[Any] = (), quick: Collection[Any] | None = None) -> list[Any]:
    """The parameters of a test, with marks.

    `devices`: those marked `device`: few, since a program takes seconds to compile there. `quick`: those not marked
    `slow`, by default all.
    """
    values = list(values)
    assert all(value in values for value in (*devices, *(quick or ()))), (devices, quick)

    def parameter(value: Any) -> Any:
        on_devices = [pytest.mark.device] * (value in devices)
        slow = [pytest.mark.slow] * (quick is not None and value not in quick)
        return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=[*on_devices, *slow])

    return [parameter(value) for value in values]

"""How results read: numbers, counts, facts and neuron sets in words."""

import numpy as np


def number(value: float | None) -> str:
    """A number for a reader: three significant digits, or "n/a" if there is none."""
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.3g}"


def count_of(count: int, kind: str) -> str:
    """How many neurons of a kind there are, for example "2 entropy neurons"."""
    return f"{count:,} {kind} neuron{'s' * (count != 1)}"

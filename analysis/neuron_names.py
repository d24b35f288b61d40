"""Names of neurons: "layer.index", or in a mixture of experts "layer.expert.index". Nothing here needs JAX.

On the axis of neurons, the experts of a layer stand one after the other, so a neuron also has one index in its layer.
"""

from collections.abc import Sequence

import numpy as np


def neuron_name(layer: int, index: int, experts: Sequence[int] = ()) -> str:
    """The name of the neuron `index` of a layer, such as "11.584" or "11.3.584".

    `experts`: the width of each expert of a layer; empty if the model is not a mixture.
    """
    if not experts:
        return f"{layer}.{index}"
    ends = np.cumsum(experts)
    expert = int(np.searchsorted(ends, index, side="right"))
    return f"{layer}.{expert}.{index - (ends[expert] - experts[expert])}"


def read_names(text: str) -> list[tuple[int, ...]]:
    """The numbers of each name, from names such as "11.584,11.3.584". Raises ValueError for other text."""
    found = [tuple(map(int, name.strip().split("."))) for name in text.split(",")]
    if not all(len(name) in (2, 3) for name in found):
        raise ValueError(f"{text!r} has names that are not of two or three numbers")
    return found


def place(name: Sequence[int], experts: Sequence[int] = ()) -> tuple[int, int]:
    """The layer and the index in it of a neuron, from (layer, index) or (layer, expert, index).

    Raises ValueError for an expert, or a neuron of it, that there is not.
    """
    if len(name) == 2:
        return int(name[0]), int(name[1])
    layer, expert, index = map(int, name)
    if not (0 <= expert < len(experts) and 0 <= index < experts[expert]):
        raise ValueError(f"there is no neuron {layer}.{expert}.{index}")
    return layer, sum(experts[:expert]) + index

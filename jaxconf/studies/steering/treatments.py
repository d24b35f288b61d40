"""What is steered, and how strongly: the temperature, neuron sets of the last layer, and directions of its stream."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxconf.measure.named_sets import NamedSet

TEMPERATURE = "temperature"
PROBE, NULL = "probe direction", "null direction"
TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0)
FACTORS = (-2.0, 0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)
AMOUNTS = (-1.6, -0.8, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.8, 1.6)


class Treatment(NamedTuple):
    """One thing that is steered. A dose divides the logits, multiplies activations, or is added along a direction."""

    name: str
    kind: str  # "temperature", "set", "random" or "direction"
    beside: str  # of a random set: the set that it is compared with, else its own name
    doses: tuple[float, ...]
    neutral: float  # the dose that changes nothing
    members: tuple[int, ...] = ()  # of a set: its neurons in the last layer


def treatments_of(
    sets: Sequence[tuple[str, Sequence[NamedSet]]], directions: Sequence[str], temperature: float = 1.0
) -> list[Treatment]:
    """All treatments. `sets`: the name of each selection of neurons, and its sets, the first of which is its own.

    `temperature`: that of the model, whose inverse is one of the doses of the treatment "temperature".
    """
    temperatures = tuple(sorted({*TEMPERATURES, 1 / temperature}))
    found = [Treatment(TEMPERATURE, "temperature", TEMPERATURE, temperatures, 1.0)]
    for name, (own, *random) in sets:
        found.append(Treatment(name, "set", name, FACTORS, 1.0, _indices(own)))
        for one in random:
            found.append(Treatment(f"{one.name} beside {name}", "random", name, FACTORS, 1.0, _indices(one)))
    return found + [Treatment(name, "direction", name, AMOUNTS, 0.0) for name in directions]


def _indices(one: NamedSet) -> tuple[int, ...]:
    return tuple(index for _, index in one.members)

"""What is steered, and how strongly: the temperature, sets of the last layer, and directions of its stream.

Letters: n direction, d model width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxconf.analysis.dictionaries import constant
from jaxconf.measure.named_sets import NamedSet, Population
from jaxconf.measure.selections import Selection
from jaxconf.models.config import DecoderConfig

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
    own: NamedSet | None = None  # the set that is scaled, or the one direction that is added; None of the temperature

    @property
    def component(self) -> str:
        """What the set is of; "" for the temperature."""
        return self.own.population.component if self.own else ""


def treatments_of(sets: Sequence[Selection], pushes: Sequence[NamedSet], temperature: float = 1.0) -> list[Treatment]:
    """All treatments. `sets`: what is scaled. `pushes`: what is added, from `pushes_of`.

    `temperature`: that of the model, whose inverse is one of the doses of the treatment "temperature".
    """
    temperatures = tuple(sorted({*TEMPERATURES, 1 / temperature}))
    found = [Treatment(TEMPERATURE, "temperature", TEMPERATURE, temperatures, 1.0)]
    for name, (own, *random), _ in sets:
        found.append(Treatment(name, "set", name, FACTORS, 1.0, own))
        for one in random:
            found.append(Treatment(f"{one.name} beside {name}", "random", name, FACTORS, 1.0, one))
    return found + [Treatment(one.name, "direction", one.name, AMOUNTS, 0.0, one) for one in pushes]


def pushes_of(config: DecoderConfig, names: Sequence[str], directions: np.ndarray) -> list[NamedSet]:
    """Directions that are added to the stream, each a set by itself; what one unit of a dose adds, [n d]."""
    population, last = Population("direction", (len(names),), names, constant(config, directions)), config.n_layers - 1
    return [NamedSet(name, "direction", [(last, n)], population) for n, name in enumerate(names)]

"""Sets of neurons: masks of them, and random sets to compare them with. Letters: c set, n neuron.

The neurons of a layer may be in groups, the experts of a mixture. `widths`: how many each group of a layer has. What is
said of neurons holds for the directions of a dictionary too, which are one group of the last layer.
"""

from collections.abc import Sequence

import numpy as np

from jaxconf.models.config import DecoderConfig

Neurons = Sequence[tuple[int, int]]
"""A neuron set: the layer and the index of each neuron."""


def widths_of(config: DecoderConfig) -> tuple[int, ...]:
    """How many neurons each expert of a layer has, or in a model that is no mixture the layer."""
    return config.experts or (config.d_mlp,)


def by_group(widths: Sequence[int], neurons: Neurons) -> dict[tuple[int, int], list[int]]:
    """(layer, group) → the indices of the set's neurons there, in ascending order."""
    of_group = _groups(widths)
    found: dict[tuple[int, int], list[int]] = {}
    for layer, index in sorted(neurons):
        found.setdefault((layer, int(of_group[index])), []).append(index)
    return found


def crowded(widths: Sequence[int], neurons: Neurons) -> tuple[int, int] | None:
    """Where the set takes more than half of a group's neurons, how many, and how many there are.

    `random_sets` needs as many others. None: there is no such place.
    """
    taken = ((len(own), widths[group]) for (_, group), own in by_group(widths, neurons).items())
    return next(((most, width) for most, width in taken if 2 * most > width), None)


def masks_of(count: int, sets: Sequence[Neurons]) -> dict[int, np.ndarray]:
    """Layer → which of its neurons are in each set, bool [c n]; only layers that have some, in ascending order.

    `count`: how many neurons a layer has.
    """
    masks = {
        layer: np.zeros((len(sets), count), bool)
        for layer in sorted({layer for members in sets for layer, _ in members})
    }
    for row, members in enumerate(sets):
        for layer, index in members:
            masks[layer][row, index] = True
    return masks


def one_by_one(config: DecoderConfig) -> np.ndarray:
    """The mask of sets that each have one neuron of a layer, bool [n n]."""
    return np.eye(config.d_mlp, dtype=bool)


def random_sets(
    widths: Sequence[int], neurons: Neurons, count: int, rng: np.random.Generator
) -> list[list[tuple[int, int]]]:
    """`count` random sets of neurons outside `neurons`, each with as many of each layer and group as `neurons` has."""
    own, of_group = by_group(widths, neurons), _groups(widths)
    others = {group: np.setdiff1d(np.flatnonzero(of_group == group[1]), members) for group, members in own.items()}

    def drawn(group: tuple[int, int]) -> list[tuple[int, int]]:
        chosen = np.sort(rng.choice(others[group], len(own[group]), replace=False))
        return [(group[0], int(index)) for index in chosen]

    return [[pair for group in own for pair in drawn(group)] for _ in range(count)]


def _groups(widths: Sequence[int]) -> np.ndarray:
    """The group of each neuron of a layer, int [n]."""
    return np.repeat(np.arange(len(widths)), widths)

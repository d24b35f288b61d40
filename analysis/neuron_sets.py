"""Sets of neurons: masks of them, and random sets to compare them with. Letters: c set, n neuron."""

from collections.abc import Sequence

import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.mlp import expert_of_each

Neurons = Sequence[tuple[int, int]]
"""A neuron set: the layer and the index of each neuron."""


def by_group(config: DecoderConfig, neurons: Neurons) -> dict[tuple[int, int], list[int]]:
    """(layer, expert) → the indices of the set's neurons there, in ascending order; the expert is 0 without experts."""
    of_expert = _experts(config)
    found: dict[tuple[int, int], list[int]] = {}
    for layer, index in sorted(neurons):
        found.setdefault((layer, int(of_expert[index])), []).append(index)
    return found


def crowded(config: DecoderConfig, neurons: Neurons) -> tuple[int, int] | None:
    """Where the set takes more than half of a layer's or an expert's neurons, how many, and how many there are.

    `random_sets` needs as many others. None: there is no such place.
    """
    widths = config.experts or (config.d_mlp,)
    taken = ((len(own), widths[expert]) for (_, expert), own in by_group(config, neurons).items())
    return next(((most, width) for most, width in taken if 2 * most > width), None)


def masks_of(config: DecoderConfig, sets: Sequence[Neurons]) -> dict[int, np.ndarray]:
    """Layer → which of its neurons are in each set, bool [c n]; only layers that have some, in ascending order."""
    masks = {
        layer: np.zeros((len(sets), config.d_mlp), bool)
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
    config: DecoderConfig, neurons: Neurons, count: int, rng: np.random.Generator
) -> list[list[tuple[int, int]]]:
    """`count` random sets of neurons outside `neurons`, each with as many neurons of each layer as `neurons` has.

    In a mixture of experts, each has as many neurons of each expert.
    """
    own, of_expert = by_group(config, neurons), _experts(config)
    others = {group: np.setdiff1d(np.flatnonzero(of_expert == group[1]), members) for group, members in own.items()}

    def drawn(group: tuple[int, int]) -> list[tuple[int, int]]:
        chosen = np.sort(rng.choice(others[group], len(own[group]), replace=False))
        return [(group[0], int(index)) for index in chosen]

    return [[pair for group in own for pair in drawn(group)] for _ in range(count)]


def _experts(config: DecoderConfig) -> np.ndarray:
    """The expert of each neuron of a layer, int [n]; 0 if the model is not a mixture."""
    return expert_of_each(config) if config.experts else np.zeros(config.d_mlp, int)

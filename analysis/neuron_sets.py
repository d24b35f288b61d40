"""Sets of neurons: masks of them, and random sets to compare them with. Letters: c set, n neuron."""

import collections
from collections.abc import Sequence

import numpy as np

from jaxconf.models.config import DecoderConfig

Neurons = Sequence[tuple[int, int]]
"""A neuron set: the layer and the index of each neuron."""


def most_in_a_layer(neurons: Neurons) -> int:
    """How many neurons a set that is not empty has of the layer of which it has most."""
    return max(collections.Counter(layer for layer, _ in neurons).values())


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
    """`count` random sets of neurons outside `neurons`, each with as many neurons of each layer as `neurons` has."""
    layers = sorted({layer for layer, _ in neurons})
    own = {layer: [index for other, index in neurons if other == layer] for layer in layers}
    others = {layer: np.setdiff1d(np.arange(config.d_mlp), own[layer]) for layer in layers}

    def drawn(layer: int) -> list[tuple[int, int]]:
        return [(layer, int(index)) for index in np.sort(rng.choice(others[layer], len(own[layer]), replace=False))]

    return [[pair for layer in layers for pair in drawn(layer)] for _ in range(count)]

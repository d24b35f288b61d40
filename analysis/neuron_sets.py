"""Sets of neurons: masks of them, and random sets to compare them with. Letters: c set, n neuron."""

import collections
from collections.abc import Sequence

import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.mlp import expert_of_each

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
    """`count` random sets of neurons outside `neurons`, each with as many neurons of each layer as `neurons` has.

    In a mixture of experts, each has as many neurons of each expert.
    """
    own: dict[tuple[int, int], list[int]] = {}
    for layer, index in sorted(neurons):
        own.setdefault((layer, expert_of(config, index)), []).append(index)
    of_expert = expert_of_each(config) if config.experts else np.zeros(config.d_mlp, int)
    others = {group: np.setdiff1d(np.flatnonzero(of_expert == group[1]), members) for group, members in own.items()}

    def drawn(group: tuple[int, int]) -> list[tuple[int, int]]:
        chosen = np.sort(rng.choice(others[group], len(own[group]), replace=False))
        return [(group[0], int(index)) for index in chosen]

    return [[pair for group in own for pair in drawn(group)] for _ in range(count)]


def expert_of(config: DecoderConfig, index: int) -> int:
    """The expert of a neuron; 0 if the model is not a mixture."""
    return int(expert_of_each(config)[index]) if config.experts else 0

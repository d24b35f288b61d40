"""Runs with neuron sets ablated, in groups of windows and of sets that fit the memory.

Letters: c neuron set, s window, t position, q position that counts, n neuron, k neuron of a set. Sets of the last layer
are evaluated by its algebra, and for all others the layers above are run again: `jaxconf.analysis.rerun` has both.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.blocks import Size
from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.analysis.rerun import Entry, Frozen, Masks, Members, NullRows, Sets, compiled_entry, streams
from jaxconf.analysis.unembedding import Readout, of_directions, readout
from jaxconf.analysis.whole_logits import Prediction
from jaxconf.measure.named_sets import NamedSet
from jaxconf.models.language_model import LanguageModel
from jaxconf.runtime.batching import Batch, batches, batches_in_memory, even_size
from jaxconf.runtime.memory import bytes_of_a_window

CELLS, BLOCK = Size("set_cells"), Size("set_v")


@dataclasses.dataclass(frozen=True)
class SetRuns:
    """Neuron sets of a model, and how they are run."""

    lm: LanguageModel
    sets: Mapping[int, np.ndarray]  # layer → which of its neurons each set has, bool [c n]
    frequency: Frequency
    memory: int  # bytes of a device
    frozen: Frozen = "final"
    dictionary: Dictionary | None = None  # if the sets are of its directions instead of neurons; the layer is the last

    @classmethod
    def of(cls, lm: LanguageModel, sets: Sequence[NamedSet], memory: int) -> "SetRuns":
        """Those of sets of one population, without token frequencies."""
        population, unused = sets[0].population, frequency(np.zeros(lm.config.vocab_size))
        masks = population.masks([one.members for one in sets])
        return cls(lm, masks, unused, memory, dictionary=population.dictionary)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.sets))

    @property
    def count(self) -> int:
        return len(self.sets[self.layers[0]])

    @property
    def by_algebra(self) -> bool:
        by_layer = len(self.layers) == 1 and streams(self.lm.config, self.layers[0], self.frozen)
        return by_layer or self.dictionary is not None

    @functools.cached_property
    def readout(self) -> Readout:
        paper = readout(self.lm.config, self.lm.params)
        return paper if self.dictionary is None else of_directions(self.lm.config, paper, "paper", self.dictionary.w)

    def groups(self, count: int, length: int, positions: int) -> Iterator[Batch]:
        """The indices of `count` windows in groups. `positions`: of a window, those that count."""
        return groups_of_windows(self.lm, self.memory, count, length, positions)

    def chunks(self, windows: int, length: int) -> Iterator[Batch]:
        """The indices of the sets in chunks that a group of `windows` is run with."""
        config, of_a_device = self.lm.config, windows // self.lm.mesh.shape["data"]
        if self.by_algebra:  # the changes of activation, the write directions, and a block of M
            most = max(int(masks.sum(1).max()) for masks in self.sets.values())
            each = 4 * max(1, most) * (of_a_device * length + config.d_model + int(BLOCK))
        else:
            each = of_a_device * bytes_of_a_window(config, length)
        return batches_in_memory(self.count, each, self.memory)

    def given(self, tokens: np.ndarray, positions: np.ndarray) -> tuple[Any, ...]:
        """The arguments of `compiled_entry` for windows, int [s t], up to the `positions` that count, int [q]."""
        lm = self.lm
        return lm.config, self.layers, lm.params, self.readout, self.frequency, lm.over_data(tokens), positions

    def entry(self, tokens: np.ndarray, positions: np.ndarray) -> tuple[Entry, Prediction]:
        """What all sets share on windows, int [s t], and the unablated predictions at the `positions`, [s q]."""
        return compiled_entry(*self.given(tokens, positions), self.frozen, self.dictionary)

    def some(self, some: np.ndarray, ablations: Mapping[int, LayerAblation], nulls: NullRows | None = None) -> Sets:
        """The sets with these indices. `ablations`: layer → what its neurons are set to."""
        if not self.by_algebra:
            return Masks({layer: masks[some] for layer, masks in self.sets.items()}, dict(ablations), nulls)
        ((layer, masks),) = self.sets.items()
        most = max(1, int(masks.sum(1).max()))
        indices = np.argsort(~masks[some], axis=1, kind="stable")[:, :most]
        return Members(indices, np.take_along_axis(masks[some], indices, 1), ablations[layer])

    @property
    def how(self) -> tuple[Any, ...]:
        """The first arguments of the functions of `jaxconf.analysis.rerun`."""
        return self.lm.config, self.lm.params, self.readout, self.frequency


def groups_of_windows(lm: LanguageModel, memory: int, count: int, length: int, positions: int) -> Iterator[Batch]:
    """The indices of `count` windows of `length` tokens in groups whose predictions fit in the memory and the cache.

    `positions`: of a window, those that count. `memory`: bytes of a device.
    """
    each, D = bytes_of_a_window(lm.config, length) + 4 * positions * 6 * lm.config.vocab_size, lm.mesh.shape["data"]
    most = max(1, min(memory // each, int(CELLS) // positions))
    return batches(count, D * even_size(-(-count // D), most))

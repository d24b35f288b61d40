"""Statistics of a layer's activations over text. Letters: s window, t position.

With a `dictionary` (`jaxconf.analysis.dictionaries`), which reads a site of the layer, its coefficients are in the
activations' place, and its directions in the neurons'.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxconf.analysis.activations import (
    Activations,
    ActivationStatistics,
    Moments,
    Products,
    activations,
    activations_of_neurons,
    correlations,
    merged,
    mode,
    moments_of_a_layer,
    products_of_a_site,
    statistics_of,
    sums_of_products,
)
from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.effects import LastLayer, last_layer
from jaxconf.models.config import DecoderConfig
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.results.words import counted
from jaxconf.runtime.batching import Batch, batches
from jaxconf.runtime.memory import bytes_of_a_window
from jaxconf.runtime.progress import Progress

COPIES = 4  # of the coefficients of a dictionary that a device holds
BYTES_OF_AN_ACTIVATION = 12  # on the host: float32 as kept, as fetched, and as fetched without the repeated windows


def windows_at_once(config: DecoderConfig, length: int, memory: int, directions: int = 0) -> int:
    """How many windows of `length` tokens a device runs together, in a quarter of `memory` bytes.

    `directions`: how many a dictionary has whose coefficients are read.
    """
    return max(1, memory // 4 // (bytes_of_a_window(config, length) + COPIES * 4 * length * directions))


def _groups(lm: LanguageModel, tokens: np.ndarray, memory: int, dictionary: Dictionary | None) -> Iterator[Batch]:
    """The windows `tokens`, int [s t], in groups that the devices run together."""
    (S, T), D, directions = tokens.shape, lm.mesh.shape["data"], 0 if dictionary is None else len(dictionary.w)
    return batches(S, D * min(windows_at_once(lm.config, T, memory, directions), -(-S // D)))


@dataclasses.dataclass
class LayerActivations:
    """A layer's activations over text, in groups of windows that the devices run together.

    The model runs over the text whenever they are read, but only the first time if the host can keep what it finds, in
    a quarter of `memory` bytes: the activations, and for the last layer the stream too. Several hosts keep nothing.
    """

    lm: LanguageModel
    tokens: np.ndarray  # int [s t]
    layer: int
    memory: int  # bytes: of a device, that a group may take; of the host, four times what it may keep
    dictionary: Dictionary | None = None
    _kept: LastLayer | Activations | None = dataclasses.field(default=None, init=False, repr=False)  # of every window

    def __iter__(self) -> Iterator[tuple[Batch, Activations]]:
        kept = self._kept
        for group in _groups(self.lm, self.tokens, self.memory, self.dictionary):
            found = self._found(group[0])
            if self._kept is None:
                kept = self._put(kept, group, found)
            yield group, Activations.of(found.h, found.weight) if isinstance(found, LastLayer) else found
        if self._kept is None:
            self._kept = kept

    def last_layer(self, windows: np.ndarray) -> LastLayer:
        """The last layer, if it is this one, in the windows with these indices, [s t …]."""
        found = self._found(windows)
        assert isinstance(found, LastLayer)
        return found

    def some(self, windows: np.ndarray) -> "LayerActivations":
        """The activations in the windows with these indices, int [s], ascending; nothing of the others is held."""
        if len(windows) == len(self.tokens):
            return self
        of = dataclasses.replace(self, tokens=self.tokens[windows])
        of._kept = None if self._kept is None else jax.tree.map(lambda x: x[windows], self._kept)
        return of

    def _found(self, windows: np.ndarray) -> LastLayer | Activations:
        lm, tokens = self.lm, self.tokens[windows]
        if self._kept is not None:
            return jax.tree.map(lambda x: lm.over_data(x[windows]), self._kept)
        if self.layer == lm.config.n_layers - 1:
            return last_layer(lm.config, lm.params, lm.over_data(tokens), dictionary=self.dictionary)[0]
        return activations(lm.config, lm.params, lm.over_data(tokens), self.layer, self.dictionary)

    def _put(self, kept: Any, group: Batch, found: Any) -> Any:
        """The arrays of every window, with what was found in a group; None if the host cannot keep them."""
        (windows, real), every = group, len(self.tokens)
        size = every * sum(x.nbytes for x in jax.tree.leaves(found)) // len(windows)
        if jax.process_count() > 1 or size > self.memory // 4:
            return None
        if kept is None:
            kept = jax.tree.map(lambda x: np.empty((every, *x.shape[1:]), x.dtype), found)
        for of_every, x in zip(jax.tree.leaves(kept), jax.tree.leaves(fetched(found)), strict=True):
            of_every[windows[real]] = x[real]
        return kept


def activation_correlations(
    of: LayerActivations, mean: np.ndarray, kept: np.ndarray, values: np.ndarray, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Pearson correlations over the kept positions of each neuron's activation with each of k values, float64 [k n],
    and at how many of these positions each neuron counts, [n].

    In a mixture of experts, a neuron counts where its expert is chosen. `mean`: of the activations, [n], from which
    deviations are summed. `kept`: bool [s t]. `values`: float32 [k s t]. A correlation is NaN where the activation or
    the value is constant.
    """
    lm, (S, T) = of.lm, of.tokens.shape
    centred = np.where(kept, values - values[:, kept].mean(1)[:, None, None], 0).astype(np.float32)
    progress("correlations", 0, S * T)
    mean = np.nan_to_num(mean).astype(np.float32)
    sums: Products | None = None
    for (rows, real), h in of:
        counted = lm.over_data((kept[rows] & real[:, None]).astype(np.float32))
        some = lm.over_data(np.moveaxis(centred[:, rows] * real[:, None], 0, -1))
        found = fetched(sums_of_products(h, counted, some, mean))
        more = Products(*(np.asarray(x, np.float64) for x in found))
        sums = more if sums is None else Products(*(x + y for x, y in zip(sums, more, strict=True)))
        progress("correlations", (int(rows[real][-1]) + 1) * T, S * T)
    assert sums is not None
    return correlations(sums), np.broadcast_to(sums.count, mean.shape)


def activation_statistics(of: LayerActivations, progress: Progress, *, ordered: bool = False) -> ActivationStatistics:
    """The activation statistics of every neuron of a layer, over all tokens.

    `ordered`: whether to include the median and the mode, which need all activations of a neuron at once.
    """
    S, T = of.tokens.shape
    found: Moments | None = None
    progress("activations", 0, S * T)
    for (rows, real), h in of:
        arrays = fetched(moments_of_a_layer(h, real))
        more = Moments(*(x.astype(np.float64) for x in arrays))
        found = more if found is None else merged(found, more)
        progress("activations", (int(rows[real][-1]) + 1) * T, S * T)
    assert found is not None
    statistics = statistics_of(found)
    if not ordered:
        return statistics
    every = activations_of_each(of, np.arange(len(statistics.mean)), progress)
    own = (h[~np.isnan(h)] for h in every)
    median, modes = zip(*((np.median(h), mode(h)) if h.size else (np.nan, np.nan) for h in own), strict=True)
    return statistics._replace(median=np.array(median, np.float64), mode=np.array(modes))


def activations_of_each(of: LayerActivations, neurons: np.ndarray, progress: Progress) -> Iterator[np.ndarray]:
    """The activations of one neuron of a layer after the other, float32 [s t]; `neurons`: which, int.

    In a mixture of experts they are NaN where the neuron's expert is not chosen.

    The host holds as many neurons' activations as fit into the memory of `of`, and all activations are read once for
    each such block of neurons.
    """
    tokens = of.tokens
    size = min(len(neurons), max(1, of.memory // (BYTES_OF_AN_ACTIVATION * tokens.size)))
    stage = f"activations of {counted(len(neurons), 'neuron')}"
    progress(stage, 0, tokens.size)
    for some, real_neurons in batches(len(neurons), size):
        h = np.empty((size, *tokens.shape), np.float32)
        for (rows, real), of_all in of:
            found = fetched(activations_of_neurons(of_all, neurons[some]))
            h[:, rows[real]] = np.moveaxis(found[real], -1, 0)
        yield from h[real_neurons]
        progress(stage, (int(some[-1]) + 1) * tokens.size // len(neurons), tokens.size)


def stream_covariance(lm: LanguageModel, tokens: np.ndarray, site: str, kept: np.ndarray, memory: int) -> np.ndarray:
    """The covariance of a stream over the kept positions, bool [s t] as `tokens`; float64 [d d]."""
    about, first, second = None, 0.0, 0.0
    for rows, real in _groups(lm, tokens, memory, None):
        counted = kept[rows] & real[:, None]
        if about is None:  # about the mean, so that little is lost to rounding
            some, _ = fetched(products_of_a_site(lm.config, lm.params, tokens[rows], counted, site, 0.0))
            about = some / max(1, counted.sum())
        here = fetched(products_of_a_site(lm.config, lm.params, lm.over_data(tokens[rows]), counted, site, about))
        first, second = first + here[0].astype(np.float64), second + here[1].astype(np.float64)
    mean = first / kept.sum()
    return second / kept.sum() - np.outer(mean, mean)

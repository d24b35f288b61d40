"""Statistics of a layer's activations over text. Letters: s window, t position."""

import numpy as np

from jaxconf.analysis.activations import (
    ActivationStatistics,
    Moments,
    activations_of_neurons,
    correlations,
    merged,
    mode,
    moments_of_a_layer,
    statistics_of,
    sums_of_products,
)
from jaxconf.models.config import DecoderConfig
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches
from jaxconf.runtime.memory import bytes_of_a_window
from jaxconf.runtime.progress import Progress

BYTES_OF_AN_ACTIVATION = 12  # on the host: float32 as kept, as fetched, and as fetched without the repeated windows


def windows_at_once(config: DecoderConfig, length: int, memory: int) -> int:
    """How many windows of `length` tokens a device runs together, in a quarter of `memory` bytes."""
    return max(1, memory // 4 // bytes_of_a_window(config, length))


def activation_correlations(
    lm: LanguageModel,
    tokens: np.ndarray,
    layer: int,
    mean: np.ndarray,
    kept: np.ndarray,
    values: np.ndarray,
    memory: int,
    progress: Progress,
) -> np.ndarray:
    """Pearson correlations over the kept positions of each neuron's activation with each of k values, float64 [k n].

    `tokens`: int [s t]. `mean`: of the activations, [n], from which deviations are summed. `kept`: bool [s t].
    `values`: float32 [k s t]. A correlation is NaN where the activation or the value is constant.
    """
    config, (S, T), D = lm.config, tokens.shape, lm.mesh.shape["data"]
    centred = np.where(kept, values - values[:, kept].mean(1)[:, None, None], 0).astype(np.float32)
    progress("correlations", 0, tokens.size)
    sums: list[np.ndarray] = []
    for rows, real in batches(S, D * min(windows_at_once(config, T, memory), -(-S // D))):
        counted = lm.over_data((kept[rows] & real[:, None]).astype(np.float32))
        some = lm.over_data(np.moveaxis(centred[:, rows] * real[:, None], 0, -1))
        found = fetched(
            sums_of_products(
                config, lm.params, lm.over_data(tokens[rows]), counted, some, mean.astype(np.float32), layer
            )
        )
        more = [np.asarray(x, np.float64) for x in found]
        sums = [x + y for x, y in zip(sums, more, strict=True)] if sums else more
        progress("correlations", (int(rows[real][-1]) + 1) * T, tokens.size)
    first, second, products = sums
    squares = np.square(centred, dtype=np.float64).sum((1, 2))
    return correlations(int(kept.sum()), first, second, products, squares)


def activation_statistics(
    lm: LanguageModel, tokens: np.ndarray, layer: int, memory: int, progress: Progress, *, ordered: bool = False
) -> ActivationStatistics:
    """The activation statistics of every neuron of a layer, over all tokens of the windows `tokens`, int [s t].

    `ordered`: whether to include the median and the mode. These need all activations of a neuron at once. So the host
    holds the activations of as many neurons as fit into `memory` bytes, and the model runs over the text once for each
    such block of neurons.
    """
    config, (S, T), D = lm.config, tokens.shape, lm.mesh.shape["data"]
    windows = list(batches(S, D * min(windows_at_once(config, T, memory), -(-S // D))))
    found: Moments | None = None
    progress("activations", 0, tokens.size)
    for rows, real in windows:
        arrays = fetched(moments_of_a_layer(config, lm.params, lm.over_data(tokens[rows]), real, layer))
        more = Moments(int(real.sum()) * T, *(x.astype(np.float64) for x in arrays))
        found = more if found is None else merged(found, more)
        progress("activations", found.tokens, tokens.size)
    assert found is not None
    statistics = statistics_of(found)
    if not ordered:
        return statistics
    median, modes = np.empty(config.d_mlp), np.empty(config.d_mlp)
    size = min(config.d_mlp, max(1, memory // (BYTES_OF_AN_ACTIVATION * tokens.size)))
    progress("medians and modes", 0, tokens.size)
    for neurons, real_neurons in batches(config.d_mlp, size):
        h = np.empty((size, *tokens.shape), np.float32)
        for rows, real in windows:
            some = fetched(activations_of_neurons(config, lm.params, lm.over_data(tokens[rows]), neurons, layer))
            h[:, rows[real]] = np.moveaxis(some[real], -1, 0)
        for neuron, of_neuron in zip(neurons[real_neurons], h.reshape(size, -1), strict=False):
            median[neuron], modes[neuron] = np.median(of_neuron), mode(of_neuron)
        progress("medians and modes", (int(neurons[-1]) + 1) * tokens.size // config.d_mlp, tokens.size)
    return statistics._replace(median=median, mode=modes)

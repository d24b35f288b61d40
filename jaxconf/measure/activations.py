"""What neurons' activations usually are: the values that ablation sets them to. Letters: s window, t position, u chosen neuron."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_set
from jaxconf.runtime.progress import Progress

DEVIATIONS = 3
ABLATIONS = ("mean", "median", "mode", f"mean+{DEVIATIONS}std", f"mean-{DEVIATIONS}std")
BINS = 1000  # between a neuron's smallest and largest activation, for the mode


def ablation_values(lm: LanguageModel, tokens: np.ndarray, layer: int, neurons: list[int], memory: int, progress: Progress) -> pd.DataFrame:
    """A row per neuron of the layer, its number the index, with ABLATIONS of its activations over all tokens, int [s t]; float64.

    The mode is the middle of the fullest of BINS equal bins; mean ± 3 standard deviations are clipped to the range that was seen. Holds four
    bytes for each token and neuron. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 3.2; Tighidet et al. 2025 (arXiv 2509.10663).
    """
    parts, columns = [], np.asarray(neurons)
    for rows, real in batches_in_memory(len(tokens), bytes_of_a_set(lm.config, tokens.shape[1]), memory, lm.mesh.shape["data"]):
        parts.append(
            fetched(_activations(lm.config, lm.params, lm.over_data(tokens[rows]), columns, layer))[real].reshape(-1, len(columns))
        )
        progress("activations", min(int(rows[-1]) + 1, len(tokens)) * tokens.shape[1], tokens.size)
    h = np.concatenate(parts)
    low, high, mean, std = h.min(0), h.max(0), h.mean(0, dtype=np.float64), h.std(0, dtype=np.float64)
    width = np.maximum(high - low, np.finfo(np.float32).tiny) / BINS
    bins = np.minimum((h - low) / width, BINS - 1).astype(np.int64)
    counts = np.bincount((bins + BINS * np.arange(len(columns))).ravel(), minlength=BINS * len(columns)).reshape(-1, BINS)
    mode = np.where(high > low, low + (counts.argmax(1) + 0.5) * width, low)
    far = [np.clip(mean + sign * DEVIATIONS * std, low, high) for sign in (1, -1)]
    return pd.DataFrame(dict(zip(ABLATIONS, (mean, np.median(h, 0), mode, *far), strict=True)), index=neurons, dtype=np.float64)


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def _activations(config: DecoderConfig, params: Params, tokens: jax.Array, neurons: jax.Array, layer: int) -> jax.Array:
    site = f"blocks.{layer}.mlp.hook_post"
    return forward(config, params, tokens, capture=[site], stop_at_layer=layer + 1).captured[site][..., neurons].astype(jnp.float32)

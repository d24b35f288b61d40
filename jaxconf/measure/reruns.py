"""Effects of neurons in any layer, and of sets of neurons, by running what lies above them again.

Letters: s window, t position, c set of neurons, n neuron.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import Ablation, ablated
from jaxconf.analysis.effects import METRICS, Position, metrics
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.rerun import Frozen, Unablated, entering, rerun, unablated
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.resume import Part, kept_part

CACHED = 2**26  # bytes, measured: with 4 GB a layer takes half as long again

Sets = Mapping[int, np.ndarray]
"""Layer → which of its neurons are ablated, bool [c n]."""


def rerun_parts(
    lm: LanguageModel,
    freq: Frequency,
    tokens: np.ndarray,
    kept: np.ndarray,
    sets: Sets,
    means: Mapping[int, np.ndarray],
    ablation: Ablation,
    ablation_value: float,
    frozen: Frozen,
    memory: int,
    partial: Path | None,
    progress: Progress,
) -> Iterator[Part]:
    """What ablating each set changes, METRICS of each [s c], in one group of windows after the other.

    `means`: layer → its neurons' mean activations. `memory`: bytes that the sets which run together may take.
    """
    config, layers, T = lm.config, tuple(sorted(sets)), tokens.shape[1]
    count = len(sets[layers[0]])
    mean = {layer: jnp.asarray(means[layer], jnp.float32) for layer in layers}

    def of_group(rows: np.ndarray, real: np.ndarray) -> Part:
        begin = int(rows[0])
        batch, target, mask = tokens[rows], np.roll(tokens[rows], -1, 1), kept[rows] & real[:, None]

        @functools.cache
        def entered() -> Any:
            follows = lm.over_data(target)
            resid, h, before = compiled_entry(config, layers, lm.params, freq, lm.over_data(batch), follows, frozen)
            return resid, follows, before, {layer: ablated(ablation, h[layer], mean[layer], ablation_value) for layer in layers}

        def compute(some: np.ndarray) -> dict[str, np.ndarray]:
            chosen = {layer: sets[layer][some] for layer in layers}
            resid, follows, before, values = entered()
            change = metrics(compiled_rerun(config, lm.params, freq, resid, follows, before, values, chosen))  # c s t
            sums = {name: fetched(jnp.where(mask, value, 0).sum(-1)).T[real, : count - some[0]] for name, value in change.items()}
            return sums | {name: fetched(getattr(before.figures, name))[mask] for name in Position._fields}

        parts = []
        for some in chunks(lm, count, batch.shape, memory):
            parts.append(kept_part(partial / f"{begin}-{some[0]}.npz" if partial else None, functools.partial(compute, some)))
            done = begin * count + (int(some[-1]) + 1) * int(real.sum())
            progress(f"effects in layer {', '.join(map(str, layers))}", done * T // count, tokens.size)
        window, position = np.nonzero(mask)
        place = {"window": begin + window, "position": position, "token": batch[mask], "target": target[mask]}
        figures = {name: parts[0][name] for name in Position._fields}
        sums = {name: np.concatenate([part[name] for part in parts], 1) for name in METRICS}
        return Part(sums, pd.DataFrame({**place, **figures}), {})

    return itertools.starmap(of_group, groups(lm, tokens.shape, memory))


def token_effects(
    lm: LanguageModel,
    freq: Frequency,
    tokens: np.ndarray,
    kept: np.ndarray,
    layer: int,
    neurons: Sequence[int],
    mean: np.ndarray,
    ablation: Ablation,
    ablation_value: float,
    frozen: Frozen,
    memory: int,
    progress: Progress,
) -> pd.DataFrame:
    """What ablating each of these neurons of a layer does at every kept position: a row for each neuron and position.

    Columns `neuron` ("layer.index"), `window`, `position`, `token`, `target`, `activation`, and of the model as it is and with the neuron
    ablated, in nats, `loss`, `loss_ablated`, `loss_ablated_ln_frozen`, `entropy`, `entropy_ablated`, `reciprocal_rank` and
    `reciprocal_rank_ablated` (of the target; pure numbers). Source: Stolfo et al. 2024 (arXiv 2406.16254), figure 4.
    """
    config, (S, T) = lm.config, tokens.shape
    mean32, rows = jnp.asarray(mean, jnp.float32), []
    for window in range(S):
        position = np.nonzero(kept[window])[0]
        batch, target = tokens[[window]], np.roll(tokens[[window]], -1, 1)
        resid, h, before = compiled_entry(config, (layer,), lm.params, freq, batch, target, frozen)
        values = {layer: ablated(ablation, h[layer], mean32, ablation_value)}
        loss, entropy, reciprocal, own = fetched((before.figures.loss, before.figures.entropy, 1 / before.figures.rank, h[layer]))
        loss, entropy, reciprocal = (x[0, position] for x in (loss, entropy, reciprocal))
        for some in chunks(lm, len(neurons), batch.shape, memory):
            masks = {layer: np.arange(config.d_mlp) == np.asarray(neurons)[some, None]}
            change = fetched(compiled_rerun(config, lm.params, freq, resid, target, before, values, masks))
            for at, neuron in enumerate(neurons[some[0] : some[-1] + 1]):
                moved = {name: value[at, 0, position] for name, value in change._asdict().items()}
                columns = {
                    "neuron": f"{layer}.{neuron}",
                    "window": window,
                    "position": position,
                    "token": batch[0, position],
                    "target": target[0, position],
                    "activation": own[0, position, neuron],
                    "loss": loss,
                    "loss_ablated": loss + moved["loss"],
                    "loss_ablated_ln_frozen": loss + moved["loss_ln_frozen"],
                    "entropy": entropy,
                    "entropy_ablated": entropy + moved["entropy"],
                    "reciprocal_rank": reciprocal,
                    "reciprocal_rank_ablated": reciprocal + moved["reciprocal_rank"],
                }
                rows.append(pd.DataFrame(columns))
        progress(f"tokens of layer {layer}", (window + 1) * T, S * T)
    return pd.concat(rows, ignore_index=True)


def bytes_of_a_window(config: DecoderConfig, length: int) -> int:
    """What running a window takes beside its logits: the widest of the activations, and the scores of a block of queries."""
    return 4 * length * (12 * config.d_model + 4 * config.d_mlp + 2 * config.n_heads * length)


def bytes_of_a_set(config: DecoderConfig, length: int) -> int:
    """What an ablated set takes for each window: some six logits beside running it."""
    return bytes_of_a_window(config, length) + 4 * length * 6 * config.vocab_size


def of_use(memory: int) -> int:
    """Of so many bytes, those that make work on sets faster: on a CPU, what the caches do not hold costs more than it gains."""
    return min(memory, CACHED) if jax.default_backend() == "cpu" else memory


def groups(lm: LanguageModel, shape: tuple[int, ...], memory: int, each: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of windows of that shape [s t] those that are run together, all groups of one size, as many on each device, and which of them are not
    there only to fill the last group. `each`: bytes that a window takes, by default what it takes to ablate a set.
    """
    devices = lm.mesh.shape["data"]
    size = devices * int(np.clip(of_use(memory) // (each or bytes_of_a_set(lm.config, shape[1])), 1, -(-shape[0] // devices)))
    for begin in range(0, shape[0], size):
        rows = np.arange(begin, begin + size)
        yield np.minimum(rows, shape[0] - 1), rows < shape[0]


def chunks(lm: LanguageModel, count: int, shape: tuple[int, ...], memory: int) -> Iterator[np.ndarray]:
    """Of `count` sets those that are run together with a group of windows of that shape [s t], all chunks of one size; the last repeats a set."""
    on_a_device = -(-shape[0] // lm.mesh.shape["data"])
    size = int(np.clip(of_use(memory) // (bytes_of_a_set(lm.config, shape[1]) * on_a_device), 1, count))
    for begin in range(0, count, size):
        yield np.minimum(np.arange(begin, begin + size), count - 1)


def joined(parts: list[Any], count: int) -> Any:
    """What the chunks found, along the sets' axis, without the repeated ones."""
    return jax.tree.map(lambda *x: np.concatenate(fetched(x))[:count], *parts)


def one_by_one(config: DecoderConfig) -> np.ndarray:
    """Every neuron of a layer as a set of its own, bool [n n]."""
    return np.eye(config.d_mlp, dtype=bool)


@functools.partial(jax.jit, static_argnames=("config", "layers", "frozen"))
def compiled_entry(
    config: DecoderConfig,
    layers: tuple[int, ...],
    params: Params,
    freq: Frequency,
    tokens: jax.Array,
    target: jax.Array,
    frozen: Frozen = "final",
) -> tuple[jax.Array, dict[int, jax.Array], Unablated]:
    """What every set begins with: the stream that enters the first of the layers [s t d], the activations of each layer [s t n], and the model
    as it is from there.
    """
    resid, h = entering(config, params, tokens, layers)
    return resid, h, unablated(config, params, freq, resid, target, layers[0], frozen)


compiled_rerun = jax.jit(rerun, static_argnames="config")

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

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.metrics import EFFECTS, UNABLATED, effects_of
from jaxconf.analysis.rerun import Frozen, Unablated, entering, rerun, unablated
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_set
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.resume import Part, kept_part

Sets = Mapping[int, np.ndarray]
"""Layer → which of its neurons are ablated, bool [c n]."""


def rerun_parts(
    lm: LanguageModel,
    freq: Frequency,
    tokens: np.ndarray,
    kept: np.ndarray,
    sets: Sets,
    ablations: Mapping[int, LayerAblation],
    frozen: Frozen,
    memory: int,
    partial: Path | None,
    progress: Progress,
) -> Iterator[Part]:
    """What ablating each set changes, EFFECTS of each [s c], in one group of windows after the other.

    `ablations`: layer → what its neurons are set to. `memory`: bytes that the sets which run together may take.
    """
    config, layers, T = lm.config, tuple(sorted(sets)), tokens.shape[1]
    count, stage = len(sets[layers[0]]), f"effects in layer {', '.join(map(str, layers))}"

    def of_group(rows: np.ndarray, real: np.ndarray) -> Part:
        begin = int(rows[0])
        batch, target, mask = tokens[rows], np.roll(tokens[rows], -1, 1), kept[rows] & real[:, None]
        on_a_device = len(rows) // lm.mesh.shape["data"]

        @functools.cache
        def entered() -> Any:
            follows = lm.over_data(target)
            resid, h, before = compiled_entry(config, layers, lm.params, freq, lm.over_data(batch), follows, frozen)
            return resid, follows, before, {layer: ablations[layer].ablated(h[layer]) for layer in layers}

        def compute(some: np.ndarray) -> dict[str, np.ndarray]:
            chosen = {layer: sets[layer][some] for layer in layers}
            resid, follows, before, values = entered()
            change = effects_of(compiled_rerun(config, lm.params, freq, resid, follows, before, values, chosen))  # c s t
            sums = {name: fetched(jnp.where(mask, value, 0).sum(-1)).T[real, : count - some[0]] for name, value in change.items()}
            return sums | {name: fetched(getattr(before.prediction, name))[mask] for name in UNABLATED}

        parts = []
        for some, _ in batches_in_memory(count, bytes_of_a_set(config, T) * on_a_device, memory):
            parts.append(kept_part(partial / f"{begin}-{some[0]}.npz" if partial else None, functools.partial(compute, some)))
            done = begin * count + (int(some[-1]) + 1) * int(real.sum())
            progress(stage, done * T // count, tokens.size)
        window, position = np.nonzero(mask)
        place = {"window": begin + window, "position": position, "token": batch[mask], "target": target[mask]}
        unablated = {name: parts[0][name] for name in UNABLATED}
        sums = {name: np.concatenate([part[name] for part in parts], 1) for name in EFFECTS}
        return Part(sums, pd.DataFrame({**place, **unablated}), {})

    progress(stage, 0, tokens.size)
    return itertools.starmap(of_group, batches_in_memory(len(tokens), bytes_of_a_set(config, T), memory, lm.mesh.shape["data"]))


def token_effects(
    lm: LanguageModel,
    freq: Frequency,
    tokens: np.ndarray,
    kept: np.ndarray,
    layer: int,
    neurons: Sequence[int],
    ablation: LayerAblation,
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
    rows = []
    progress(f"tokens of layer {layer}", 0, S * T)
    for window in range(S):
        position = np.nonzero(kept[window])[0]
        batch, target = tokens[[window]], np.roll(tokens[[window]], -1, 1)
        resid, h, before = compiled_entry(config, (layer,), lm.params, freq, batch, target, frozen)
        values = {layer: ablation.ablated(h[layer])}
        loss, entropy, reciprocal, own = fetched((before.prediction.loss, before.prediction.entropy, 1 / before.prediction.rank, h[layer]))
        loss, entropy, reciprocal = (x[0, position] for x in (loss, entropy, reciprocal))
        for some, _ in batches_in_memory(len(neurons), bytes_of_a_set(config, T), memory):
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

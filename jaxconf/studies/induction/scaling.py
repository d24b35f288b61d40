"""Calibration dose by dose: chosen neurons' activations are multiplied, and the temperature that does the same is sought.

Letters: b sequence, t position, v vocabulary, c set of neurons, p position where a prediction counts.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.calibration import Predicted, expected_calibration_error, predicted
from jaxconf.analysis.neuron_sets import Neurons, masks_of
from jaxconf.analysis.rerun import entering
from jaxconf.analysis.temperature import Change, Unchanged, best_temperature, change, unchanged
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.models.sites import Ablate
from jaxconf.runtime.batching import batches_in_memory, joined
from jaxconf.runtime.memory import bytes_of_a_set
from jaxconf.runtime.progress import Progress

FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)


@functools.partial(jax.jit, static_argnames=("config", "layers"))
def _dose_enters(
    config: DecoderConfig, layers: tuple[int, ...], params: Params, tokens: jax.Array
) -> tuple[jax.Array, dict[int, jax.Array], jax.Array, Unchanged]:
    resid, h = entering(config, params, tokens, layers)
    logits = forward(config, params, resid, start_at_layer=layers[0]).logits
    assert logits is not None
    lp = jax.nn.log_softmax(logits)
    return resid, h, lp, unchanged(lp)


@functools.partial(jax.jit, static_argnames="config")
def _dosed(
    config: DecoderConfig,
    params: Params,
    resid: jax.Array,
    target: jax.Array,
    h: dict[int, jax.Array],
    lp: jax.Array,
    masks: dict[int, jax.Array],
    factor: jax.Array,
) -> tuple[Predicted, Change]:
    """Predictions [c b t] with the activations of each set multiplied, and how far they are from the unablated log-probabilities."""

    def one(members: dict[int, jax.Array]) -> tuple[Predicted, Change]:
        edits = {f"blocks.{layer}.mlp.hook_post": Ablate(members[layer], factor * value) for layer, value in h.items()}
        logits = forward(config, params, resid, edits=edits, start_at_layer=min(h)).logits
        assert logits is not None
        after = jax.nn.log_softmax(logits)
        return predicted(after, target), change(lp, after)

    return jax.vmap(one)(masks)


def doses_of(
    lm: LanguageModel, data: str, tokens: np.ndarray, mask: np.ndarray, sets: Mapping[str, Neurons], memory: int, progress: Progress
) -> pd.DataFrame:
    """A row per set and factor, over the positions where `mask`, bool [b t], is true."""
    config, masks = lm.config, masks_of(lm.config, list(sets.values()))
    before: list[Unchanged] = []
    after: dict[float, list[tuple[Predicted, Change]]] = {factor: [] for factor in FACTORS}  # [c p] each
    D, each = lm.mesh.shape["data"], bytes_of_a_set(config, tokens.shape[1])
    for group, real in batches_in_memory(len(tokens), each, memory, D):
        where = mask[group] & real[:, None]
        resid, h, lp, base = _dose_enters(config, tuple(masks), lm.params, lm.over_data(tokens[group]))
        before.append(jax.tree.map(lambda x, where=where: x[where], fetched(base)))
        target = lm.over_data(np.roll(tokens[group], -1, 1))
        for factor in FACTORS:
            parts = []
            for some, _ in batches_in_memory(len(sets), each * len(group) // D, memory):
                members = {layer: of[some] for layer, of in masks.items()}
                found = _dosed(config, lm.params, resid, target, h, lp, members, jnp.float32(factor))
                parts.append(jax.tree.map(lambda x, where=where: x[:, where], fetched(found)))
            after[factor].append(joined(parts, len(sets)))
        progress(f"doses, {data}", (group[-1] + 1) * tokens.shape[1], tokens.size)
    base = jax.tree.map(lambda *x: np.concatenate(x), *before)
    rows = []
    for factor, parts in after.items():
        predictions, changed = jax.tree.map(lambda *x: np.concatenate(x, 1), *parts)
        for at, name in enumerate(sets):
            of = Predicted(*(x[at] for x in predictions))
            # Without a dose there is no change, and what rounding leaves of one is not to be explained.
            temperature, explained = (1.0, math.nan) if factor == 1 else best_temperature(base, Change(*(x[at] for x in changed)))
            rows.append(
                {
                    "data": data,
                    "set": name,
                    "kind": "set" if at == 0 else "random",
                    "factor": factor,
                    "loss": np.mean(of.loss, dtype=np.float64),
                    "entropy": np.mean(of.entropy, dtype=np.float64),
                    "ece": expected_calibration_error(np.asarray(of.confidence), np.asarray(of.correct)),
                    "brier": np.mean(of.brier, dtype=np.float64),
                    "top1": np.mean(of.correct),
                    "temperature": temperature,
                    "explained": explained,
                }
            )
    return pd.DataFrame(rows)

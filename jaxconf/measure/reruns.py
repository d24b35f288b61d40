"""Effects of neuron sets in any layer, for which the layers above are run again.

Letters: s window, t position, q position that is kept in some window, p unit that has kept positions in a group, c set
of neurons or null, n neuron.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.metrics import EFFECTS, UNABLATED, effects_of
from jaxconf.analysis.neuron_sets import one_by_one
from jaxconf.analysis.nulls import Nulls
from jaxconf.analysis.rerun import (
    Ablated,
    Frozen,
    NullRows,
    compiled_changes,
    compiled_mlp_output,
    compiled_predictions,
    compiled_router,
    unablated_sums,
)
from jaxconf.analysis.unembedding import Readout
from jaxconf.analysis.whole_logits import Prediction
from jaxconf.measure.set_runs import SetRuns
from jaxconf.measure.work import Part, Work
from jaxconf.models.mesh import fetched


def neuron_parts(
    work: Work, layer: int, readout: Readout, ablation: LayerAblation, nulls: Nulls, frozen: Frozen
) -> Iterator[Part]:
    """The effects of ablating each neuron and each null of a layer, EFFECTS [p c], the neurons first.

    `readout`: that of the layer, in the paper's convention.
    """
    masks, w_out = one_by_one(work.lm.config), fetched(readout.w_out)
    instead = np.concatenate([np.zeros_like(w_out), nulls.directions - w_out[nulls.neurons]])
    return rerun_parts(work, {layer: np.concatenate([masks, masks[nulls.neurons]])}, {layer: ablation}, frozen, instead)


def rerun_parts(
    work: Work,
    sets: Mapping[int, np.ndarray],
    ablations: Mapping[int, LayerAblation],
    frozen: Frozen,
    instead: np.ndarray | None = None,
) -> Iterator[Part]:
    """The effects of ablating each set, one group of windows after the other, EFFECTS [p c].

    `sets`: layer → which of its neurons each set has, bool [c n]. `ablations`: layer → what its neurons are set to.
    `instead`: for nulls of one layer, as in `NullRows`.
    """
    lm, config, (S, T) = work.lm, work.lm.config, work.tokens.shape
    runs = SetRuns(lm, sets, work.freq, work.memory, frozen, work.dictionary)
    layers, count = runs.layers, runs.count
    stage = f"effects in layer {', '.join(map(str, layers))}"
    counted = np.flatnonzero(work.kept.any(0))  # at other positions, nothing is unembedded

    def of_group(rows: np.ndarray, real: np.ndarray) -> Part:
        mask = work.kept[rows] & real[:, None]
        units = work.units_in(rows[real])
        member = ((work.units[rows] == units[:, None, None]) & mask)[..., counted]  # p s q
        mask = mask[:, counted]  # s q

        @functools.cache
        def entered() -> Any:
            """What all sets share. It is not computed if all parts of the group are already finished."""
            entry, before = runs.entry(work.tokens[rows], counted)
            base = unablated_sums(config, runs.readout, work.freq, entry)
            if instead is None:
                return entry, before, base, None
            batch, post, weight = lm.over_data(work.tokens[rows]), None, None
            if config.experts:
                weight = compiled_router(config, lm.params, batch, layers[0])
            if config.norm_place in ("post", "both"):
                rows_out = lm.params["blocks"]["mlp"]["w_out"][layers[0]].astype(jnp.float32)
                post = compiled_mlp_output(config, lm.params, batch, layers[0]), rows_out
            return entry, before, base, NullRows(jnp.asarray(instead), entry.h[layers[0]], weight, post)

        def compute(some: np.ndarray, real_sets: np.ndarray) -> dict[str, np.ndarray]:
            entry, before, base, nulls = entered()
            if nulls is not None:
                nulls = nulls._replace(instead=nulls.instead[some])
            change = compiled_changes(*runs.how, entry, before, base, runs.some(some, ablations, nulls))
            effects = {name: fetched(summed(x, mask, member)) for name, x in effects_of(change).items()}  # p c
            sums = {name: x[:, real_sets] for name, x in effects.items()}
            return sums | {name: fetched(getattr(before, name))[mask] for name in UNABLATED}

        found = []
        for some, real_sets in runs.chunks(len(rows), T):
            found.append(work.part(f"{rows[0]}-{some[0]}", functools.partial(compute, some, real_sets)))
            done = int(rows[0]) * count + (int(some[-1]) + 1) * int(real.sum())
            work.progress(stage, done * T // count, S * T)
        sums = {name: np.concatenate([part[name] for part in found], 1) for name in EFFECTS}
        return Part(units, sums, work.positions(rows[real], found[0]), {})

    work.progress(stage, 0, S * T)
    return itertools.starmap(of_group, runs.groups(S, T, len(counted)))


def summed(effect: jax.Array, mask: np.ndarray, member: np.ndarray) -> jax.Array:
    """An effect [c s q], summed over the kept positions of each unit, [p c]; it may be NaN at others."""
    return jnp.einsum("csq,psq->pc", jnp.where(mask, effect, 0), member.astype(np.float32), precision="highest")


def token_effects(
    work: Work, layer: int, neurons: Mapping[int, str], ablation: LayerAblation, frozen: Frozen
) -> pd.DataFrame:
    """What ablating each of these neurons of a layer does at every kept position: a row for each neuron and position.

    `neurons`: the index of each → its name; of directions, if `work` has a dictionary.

    Columns: `neuron` (its name), `window`, `position`, `token`, `target` (the next token) and `activation`; in
    nats, of the unablated model and with the neuron ablated, `loss`, `loss_ablated`, `loss_ablated_ln_frozen` (with the
    norm frozen too), `loss_ablated_freq_frozen` (with the frequency frozen instead), `entropy`, `entropy_ablated`,
    `kl_freq` and `kl_freq_ablated` (D_KL(P_freq ‖ P_model)); `reciprocal_rank`, `reciprocal_rank_ablated` and
    `reciprocal_rank_ablated_ln_frozen` of the target; and the most likely token, `top`, `top_ablated` and
    `top_ablated_ln_frozen`. Source: Stolfo et al. 2024 (arXiv 2406.16254), figure 4.
    """
    (S, T), indices = work.tokens.shape, np.array(list(neurons))
    count = work.lm.config.d_mlp if work.dictionary is None else len(work.dictionary.w)
    masks = {layer: np.arange(count) == indices[:, None]}
    runs = SetRuns(work.lm, masks, work.freq, work.memory, frozen, work.dictionary)
    rows = []
    work.progress(f"tokens of layer {layer}", 0, S * T)
    for window in np.flatnonzero(work.kept.any(1)):
        position = np.nonzero(work.kept[window])[0]
        batch = work.tokens[[window]]
        target = np.roll(batch, -1, 1)
        entry, before = runs.entry(batch, np.arange(T))
        unablated, own = jax.tree.map(lambda x, at=position: x[0, at], fetched((before, entry.h[layer])))
        for some, real in runs.chunks(1, T):
            found = fetched(compiled_predictions(*runs.how, entry, runs.some(some, {layer: ablation})))
            for index, neuron in enumerate(indices[some[real]]):
                ablated = jax.tree.map(lambda x, index=index, at=position: x[index, 0, at], found)
                place = {
                    "neuron": neurons[neuron],
                    "window": window,
                    "position": position,
                    "token": batch[0, position],
                    "target": target[0, position],
                    "activation": own[:, neuron],
                }
                rows.append(pd.DataFrame({**place, **_columns_of_tokens(unablated, ablated)}))
        work.progress(f"tokens of layer {layer}", (int(window) + 1) * T, S * T)
    return pd.concat(rows, ignore_index=True)


def _columns_of_tokens(unablated: Prediction, ablated: Ablated) -> dict[str, Any]:
    """The columns of `token_effects` that follow from the predictions at some positions."""
    total, norm_frozen = ablated.total, ablated.norm_frozen
    return {
        "loss": unablated.loss,
        "loss_ablated": total.loss,
        "loss_ablated_ln_frozen": norm_frozen.loss,
        "loss_ablated_freq_frozen": ablated.freq_frozen.loss,
        "entropy": unablated.entropy,
        "entropy_ablated": total.entropy,
        "kl_freq": unablated.kl_freq,
        "kl_freq_ablated": total.kl_freq,
        "reciprocal_rank": 1 / unablated.rank,
        "reciprocal_rank_ablated": 1 / total.rank,
        "reciprocal_rank_ablated_ln_frozen": 1 / norm_frozen.rank,
        "top": unablated.top,
        "top_ablated": total.top,
        "top_ablated_ln_frozen": norm_frozen.top,
    }

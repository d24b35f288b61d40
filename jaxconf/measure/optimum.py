"""A model's confidence beside the best possible one, in text whose best predictions are known.

Letters: s window, t position, p kept position, n neuron, v vocabulary, L level. Losses, entropies and divergences are
in nats.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import MEAN, Ablation
from jaxconf.analysis.calibration import expected_calibration_error
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.neuron_sets import Neurons, crowded, masks_of, random_sets, widths_of
from jaxconf.analysis.optimum import Distance, compiled_distances
from jaxconf.data.worlds import World
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.named_sets import NamedSet
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.results.optimum import ABLATED, ABLATED_FROZEN, DOUBLED, UNABLATED
from jaxconf.runtime.batching import joined
from jaxconf.runtime.memory import MEMORY
from jaxconf.runtime.progress import Progress

HOW: dict[str, tuple[Ablation, bool]] = {
    ABLATED: (MEAN, False),
    ABLATED_FROZEN: (MEAN, True),
    DOUBLED: (Ablation("scale", 2.0), False),
}
"""What is done to a set → the ablation, and whether the final norm keeps its scale."""


class Beside(NamedTuple):
    """The result of `beside_optimum`.

    sets: a row for each set, each thing that is done to it (UNABLATED, and HOW) and each level of noise, with `set`,
    `kind` ("none", "set" or "random"), `neurons`, `size`, `how`, `level` (0 to L-1, or -1 for all positions together),
    `noise` (the level's ε), `positions`, the means of `loss`, `best_loss`, `excess_loss` (their difference), `entropy`,
    `best_entropy`, `entropy_error` (the |difference| of the two), `kl` (D_KL(best || model)), and `ece` and `accuracy`
    (0 to 1). A position counts to the level that is nearest to the mean of ε given the window so far, and only to all
    together if a word is unlikely to be next.

    neurons: a row for each neuron of the layer, with `layer`, `neuron`, `temperature_r2` (the squared correlation of
    its activation with the best log-temperature) and `level_0` …: its mean activation at each level.
    """

    sets: pd.DataFrame
    neurons: pd.DataFrame


class _Positions(NamedTuple):
    """The best prediction at the kept positions."""

    level: np.ndarray  # int [p]: the level, or -1
    loss: np.ndarray  # float64 [p]
    entropy: np.ndarray  # float64 [p]
    temperature: np.ndarray  # float64 [p]: the best log-temperature, NaN where there is none


def beside_optimum(
    lm: LanguageModel,
    tokens: np.ndarray,
    kept: np.ndarray,
    world: World,
    sets: Mapping[str, Neurons],
    layer: int,
    *,
    controls: int = 100,
    seed: int = 0,
    memory: int = MEMORY,
    progress: Progress = lambda what, done, total: None,
) -> Beside:
    """How far a model is from the best possible predictions, unablated and with each neuron set ablated.

    `tokens`: windows of a text of the world, int [s t]. `kept`: the positions that count, bool [s t], never the last of
    a window. `sets`: name → its neurons; empty sets are left out. `layer`: the one whose neurons' activations are
    compared with the best temperature. `controls`: how many random sets each set is compared with, of as many neurons
    of the same layers. `memory`: bytes of a device that a group of windows may take.
    """
    drawn = [NamedSet("no set", "none", ()), *_drawn(lm, sets, controls, seed)]
    treatments = HOW if len(drawn) > 1 else {ABLATED: HOW[ABLATED]}  # of no neurons, every ablation is the same
    no_masks = {layer: np.zeros((len(drawn), lm.config.d_mlp), bool)}
    masks = masks_of(lm.config.d_mlp, [one.members for one in drawn]) or no_masks
    T, unused = tokens.shape[1], frequency(np.zeros(lm.config.vocab_size))
    counted = np.flatnonzero(kept.any(0))
    runs = SetRuns(lm, masks, unused, memory)
    activity = LayerActivations(lm, tokens, layer, memory)
    activities = ((of, activity if of == layer else LayerActivations(lm, tokens, of, memory)) for of in masks)
    statistics = {of: activation_statistics(of_layer, progress) for of, of_layer in activities}
    ablations = {name: {of: how.of_layer(statistics[of]) for of in masks} for name, (how, _) in treatments.items()}
    found: dict[str, list[Distance]] = {name: [] for name in treatments}
    positions = []
    progress("beside the optimum", 0, tokens.size)
    for rows, real in runs.groups(len(tokens), T, len(counted)):
        everywhere = kept[rows] & real[:, None]
        here = everywhere[:, counted]
        log_probs, of_optimum = _best(world, tokens[rows], everywhere, lm.config.vocab_size)
        positions.append(of_optimum)
        given = *runs.given(tokens[rows], counted), lm.over_data(log_probs[:, counted])
        for name, (_, frozen) in treatments.items():
            parts = [
                compiled_distances(*given, frozen, runs.some(some, ablations[name]))
                for some, _ in runs.chunks(len(rows), T)
            ]
            found[name].append(jax.tree.map(lambda x, here=here: x[..., here], joined(parts, len(drawn))))
        progress("beside the optimum", (int(rows[real][-1]) + 1) * tokens.shape[1], tokens.size)
    at = _Positions(*map(np.concatenate, zip(*positions, strict=True)))
    joint = {name: _joined(parts) for name, parts in found.items()}
    every = [(UNABLATED, ABLATED, 0), *((name, name, index) for name in joint for index in range(1, len(drawn)))]
    rows_of = []
    for how, name, index in every:
        of = Distance(*(x[index] for x in joint[name]))
        rows_of += _rows(world, at, drawn[index], how, of)
    h = [fetched(of.h)[kept[rows] & real[:, None]] for (rows, real), of in activity]
    return Beside(pd.DataFrame(rows_of), _neurons(world, at, layer, np.concatenate(h).astype(np.float64)))


def _drawn(lm: LanguageModel, sets: Mapping[str, Neurons], controls: int, seed: int) -> list[NamedSet]:
    """The sets that are not empty, each followed by its random sets."""
    drawn = []
    for number, (name, members) in enumerate(sets.items()):
        if not len(members):
            continue
        drawn.append(NamedSet(name, "set", members))
        if not crowded(widths_of(lm.config), members):
            random = random_sets(widths_of(lm.config), members, controls, np.random.default_rng([seed, number]))
            drawn += [NamedSet(name, "random", one) for one in random]
    return drawn


def _best(world: World, tokens: np.ndarray, kept: np.ndarray, vocab_size: int) -> tuple[np.ndarray, _Positions]:
    """The best log-probabilities in windows, float32 [s t v], and what `_Positions` has of the kept positions."""
    best = world.optimum(tokens)
    noise, words, lp = best.noise[kept], best.words[kept], best.log_probs[kept]
    target = np.roll(tokens, -1, 1)[kept]
    known = (words > 0.5) & np.isfinite(noise)
    level = np.where(known, abs(noise[:, None] - world.noise).argmin(1), -1)
    P = np.exp(lp)
    entropy = -np.sum(P * np.where(P > 0, lp, 0), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        temperature = np.where(known, world.log_temperature(noise), np.nan)
    loss = -lp[np.arange(len(lp)), target]
    unused = np.full((*tokens.shape, vocab_size - lp.shape[1]), -np.inf)
    every = np.concatenate([best.log_probs, unused], 2).astype(np.float32)
    return every, _Positions(level, loss, entropy, np.where(np.isfinite(temperature), temperature, np.nan))


def _joined(parts: Sequence[Distance]) -> Distance:
    return jax.tree.map(lambda *x: np.concatenate(x, -1), *parts)


def _rows(world: World, at: _Positions, one: NamedSet, how: str, of: Distance) -> list[dict[str, Any]]:
    """The rows of a set, of all positions together and of each level. `of`: [p]."""
    rows = []
    for level in (-1, *range(len(world.noise))):
        here = np.ones_like(at.level, bool) if level < 0 else at.level == level
        if not here.any():
            continue
        mean = {name: float(np.mean(x[here], dtype=np.float64)) for name, x in of._asdict().items()}
        best_loss = float(at.loss[here].mean())
        rows.append(
            {
                "set": one.name,
                "kind": one.kind,
                "neurons": one.listed,
                "size": len(one.members),
                "how": how,
                "level": level,
                "noise": np.nan if level < 0 else world.noise[level],
                "positions": int(here.sum()),
                "loss": mean["loss"],
                "best_loss": best_loss,
                "excess_loss": mean["loss"] - best_loss,
                "entropy": mean["entropy"],
                "best_entropy": float(at.entropy[here].mean()),
                "entropy_error": float(abs(np.asarray(of.entropy)[here] - at.entropy[here]).mean()),
                "kl": mean["kl"],
                "ece": expected_calibration_error(np.asarray(of.confidence)[here], np.asarray(of.correct)[here]),
                "accuracy": mean["correct"],
            }
        )
    return rows


def _neurons(world: World, at: _Positions, layer: int, h: np.ndarray) -> pd.DataFrame:
    """`Beside.neurons`, from the activations at the kept positions, float64 [p n]."""
    told = np.isfinite(at.temperature)
    temperature = at.temperature[told] - at.temperature[told].mean() if told.any() else np.zeros(0)
    centred = h[told] - h[told].mean(0) if told.any() else h[told]
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = (temperature @ centred) ** 2 / ((temperature**2).sum() * (centred**2).sum(0))
    n = h.shape[1]
    levels = {
        f"level_{level}": h[here].mean(0) if (here := at.level == level).any() else np.full(n, np.nan)
        for level in range(len(world.noise))
    }
    return pd.DataFrame({"layer": layer, "neuron": np.arange(n), "temperature_r2": r2, **levels})

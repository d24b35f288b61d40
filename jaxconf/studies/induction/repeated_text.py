"""Means over the repeated sequences at every position, and what follows from the means in the two copies.

Letters: b sequence, t position, n neuron.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.induction import halves
from jaxconf.analysis.mean_ablation import clipped_at
from jaxconf.analysis.observation import Totals, observed_totals
from jaxconf.measure.set_runs import groups_of_windows
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.progress import Progress


class Shown(NamedTuple):
    """A neuron whose activations are given."""

    name: str
    member: tuple[int, int]
    kind: str  # "chosen" or "random"


def observe(
    lm: LanguageModel,
    tokens: np.ndarray,
    layers: tuple[int, ...],
    dictionary: Dictionary | None,
    memory: int,
    progress: Progress,
) -> Totals:
    """Means over sequences, int32 [b t], at every position, in float64. The loss at the last position is NaN.

    `layers`: the layers whose activations are given. `dictionary`: if its coefficients are in the activations' place;
    the layer is then the last one.
    """
    totals: Any = None
    T = tokens.shape[1]
    progress("repeated text", 0, tokens.size)
    for rows, real in groups_of_windows(lm, memory, len(tokens), T, T):
        sums = observed_totals(
            lm.config, lm.params, lm.over_data(tokens[rows]), real.astype(np.float32), layers, dictionary
        )
        found = jax.tree.map(lambda x: x.astype(np.float64), fetched(sums))
        totals = found if totals is None else jax.tree.map(np.add, totals, found)
        progress("repeated text", (rows[-1] + 1) * T, tokens.size)
    means: Totals = jax.tree.map(lambda x: x / len(tokens), totals)
    means.loss[-1] = np.nan  # nothing follows the last token
    return means


def clips_of(means: Totals) -> dict[int, LayerAblation]:
    """Layer → how its neurons are clipped.

    A neuron is clipped at its mean over the first copy, on the side where its mean over the second copy lies.
    """
    first, second = halves(len(means.entropy) // 2)
    found = {}
    for layer, h in means.activations.items():
        at_first = h[first].mean(0)
        found[layer] = clipped_at(at_first, h[second].mean(0) > at_first)
    return found


def table_of_positions(means: Totals) -> pd.DataFrame:
    """The table `Induction.positions`."""
    T = len(means.entropy)
    first, second = halves(T // 2)
    place = {"position": np.arange(T), "copy": first + 2 * second}
    return pd.DataFrame({**place, "entropy": means.entropy, "loss": means.loss, "scale": means.scale})


def table_of_activations(means: Totals, shown: Sequence[Shown]) -> pd.DataFrame:
    """The table `Induction.activations`, of the neurons `shown`."""
    frames = []
    for one in shown:
        layer, n = one.member
        h = means.activations[layer][:, n]
        of_neuron = {"neuron": one.name, "kind": one.kind, "position": np.arange(len(h)), "activation": h}
        frames.append(pd.DataFrame(of_neuron))
    return pd.concat(frames, ignore_index=True)

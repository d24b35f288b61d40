"""What clipping a neuron's high activations does: the measurements that the rule `gates` asks for.

Letters: s window, t position, n neuron, g neuron that is measured. Source: Zahrivyi, *Causal but Not Carrier* (2026).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.metrics import GATES
from jaxconf.measure.activations import LayerActivations, activations_of_each
from jaxconf.measure.work import Work

PROXY = 0.98  # the quantile of the null proxy above which neurons are measured
HIGH = 0.9  # the quantile of a neuron's activation above which its activation is high


class Gates(NamedTuple):
    """The neurons that are measured, and how their high activations are clipped."""

    neurons: np.ndarray  # int [g]
    ablation: LayerAblation  # of the layer
    high: np.ndarray  # int [g]: at how many kept positions the activation is high


def gates_of(work: Work, activity: LayerActivations, null_proxy: np.ndarray, mean: np.ndarray) -> Gates:
    """The neurons of a layer whose `null_proxy` [n] is above its quantile. `mean`: of their `activity`, [n]."""
    known = null_proxy[~np.isnan(null_proxy)]
    neurons = np.flatnonzero(null_proxy > np.quantile(known, PROXY)) if len(known) else np.zeros(0, int)
    level, beyond = np.zeros((2, len(mean)), np.float32)
    level[:], high = np.nan_to_num(mean), []
    if len(neurons):
        every = activations_of_each(activity, neurons, work.progress)
        for neuron, h in zip(neurons, every, strict=True):
            beyond[neuron], where = where_high(h, work.kept & ~np.isnan(h))
            high.append(np.count_nonzero(where))
    return Gates(neurons, LayerAblation("high", jnp.asarray(level), jnp.asarray(beyond)), np.array(high, int))


def where_high(h: np.ndarray, kept: np.ndarray) -> tuple[float, np.ndarray]:
    """The quantile HIGH of a neuron's activations `h` [s t] at the kept positions, and where they are above it.

    `kept`: bool [s t], as is what is returned. 0 and nowhere if no position is kept.
    """
    beyond = float(np.quantile(h[kept], HIGH)) if kept.any() else 0.0
    return beyond, kept & (h > beyond)


def gate_columns(gates: Gates | None, sums: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The columns GATES of `count` neurons, float64 [n]; NaN for those that are not measured.

    `sums`: the effects GATES of the measured neurons, summed over the kept positions, [g]; entropies in nats. `gates`:
    None where nothing is measured.
    """
    columns = {name: np.full(count, np.nan) for name in GATES}
    if gates is None:
        return columns
    for name, effect in GATES.items():
        columns[name][gates.neurons] = sums[effect] / np.where(gates.high > 0, gates.high, np.nan)
    return columns

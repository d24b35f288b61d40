"""Ablations: the activations that they give to neurons. Letters: … leading axes, n neuron.

Source: Stolfo et al. 2024 (arXiv 2406.16254), sections 3.2 and 5.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxconf.analysis.activations import ActivationStatistics
from jaxconf.analysis.kinds import KINDS, VALUED, Kind
from jaxconf.models.errors import InputError, nearest

DEVIATIONS = 3
Form = Literal["linear", "clip", "high"]


@dataclasses.dataclass(frozen=True)
class Ablation:
    """What the activation of an ablated neuron becomes at every position.

    `kind`, in terms of the neuron's activations over all tokens of the data (in a mixture of experts, over those for
    which its expert is chosen):

    * "mean", "median", "mode", "min": that statistic (the mode is the middle of the fullest of 1000 equal bins);
    * "mean+3std", "mean-3std": three standard deviations above or below the mean, clipped to the observed range;
    * "zero": 0; "fixed": `value`;
    * "scale": `value` times the activation;
    * "clip": the mean where the activation exceeds it, or, with the value -1, where the activation is below it;
      elsewhere the activation itself.

    `value`: a number for "fixed" and "scale"; 1 (the default) or -1 for "clip"; None for the other kinds. Raises
    InputError for an unknown kind and for a value that the kind does not take.
    """

    kind: Kind = "mean"
    value: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"ablation {self.kind!r} is unknown; the nearest is {nearest(str(self.kind), KINDS)!r}")
        if self.kind not in VALUED and self.value is not None:
            raise InputError(f"ablation {self.kind} has the value {self.value}, but takes none; leave it out")
        if self.kind == "clip" and self.value is None:
            object.__setattr__(self, "value", 1.0)
        if self.kind == "clip" and self.value not in (1, -1):
            raise InputError(
                f"ablation clip has the value {self.value}; give 1 to clip from above or -1 to clip from below"
            )
        if self.kind in ("fixed", "scale") and (self.value is None or not np.isfinite(self.value)):
            raise InputError(
                f"ablation {self.kind} needs a finite number as its value, not {self.value}; give one, such as 0.5"
            )

    @property
    def ordered(self) -> bool:
        """Whether the statistics must include the median and the mode."""
        return self.kind in ("median", "mode")

    def level(self, of: ActivationStatistics) -> np.ndarray:
        """The level that each neuron is set to, or clipped at, float64 [n]; 0 for "scale", which has none."""
        match self.kind:
            case "mean" | "clip":
                return of.mean
            case "median" | "mode":
                level = of.median if self.kind == "median" else of.mode
                assert level is not None
                return level
            case "min":
                return of.low
            case "mean+3std" | "mean-3std":
                sign = 1 if self.kind == "mean+3std" else -1
                return np.clip(of.mean + sign * DEVIATIONS * of.std, of.low, of.high)
            case "fixed":
                return np.full_like(of.mean, self.value)
        return np.zeros_like(of.mean)

    def of_layer(self, of: ActivationStatistics) -> "LayerAblation":
        """The ablation of the layer whose statistics are `of`.

        A neuron whose expert is never chosen has no statistics. Its level is 0, and changes nothing.
        """
        level = jnp.asarray(np.nan_to_num(self.level(of)).astype(np.float32))
        value = self.value if self.kind in ("scale", "clip") else None
        return LayerAblation("clip" if self.kind == "clip" else "linear", level, float(value or 0))


MEAN = Ablation()


@struct.dataclass
class LayerAblation:
    """The ablation of one layer's neurons. `jax.jit` compiles once for a form; level and value are traced."""

    form: Form = struct.field(pytree_node=False)
    level: jax.Array  # float32 n
    # For "linear", a number, by which the activation is multiplied before the level is added; for "clip", positive from
    # above, negative from below, a number or [n]; for "high", float32 [n], the activation beyond which a neuron is
    # clipped from above.
    value: jax.Array | float

    def ablated(self, h: jax.Array) -> jax.Array:
        """The activations [… n] that replace `h` [… n]."""
        match self.form:
            case "linear":
                return self.level + self.value * h
            case "clip":
                return clipped(h, self.level, jnp.asarray(self.value) > 0)
            case "high":
                return jnp.where(h > self.value, jnp.minimum(h, self.level), h)


def clipped(h: jax.Array, level: jax.Array, from_above: jax.Array) -> jax.Array:
    """The activations `h` [… n], but not above the `level` [n]; where `from_above` is false, not below it.

    `from_above`: bool [n] or [].
    """
    return jnp.where(from_above, jnp.minimum(h, level), jnp.maximum(h, level))

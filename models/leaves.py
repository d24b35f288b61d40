"""Leaves: one row for each parameter, the single source of its shape, start value, sharding and place in a checkpoint."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxconf.models.config import DecoderConfig


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A parameter of ours and the tensor, or the tensors of all layers, that it is read from."""

    path: str  # where it stands in `params`, "blocks/attn/wq"
    axes: tuple[str, ...]  # logical axes; stacked leaves begin with "layers"
    source: str  # the tensor's name without the family's prefix; "{i}" is the layer
    view: str = ""  # einops pattern from the stored tensor to the leaf without "layers"; empty: as stored
    pick: int | None = None  # the view's first axis holds several leaves: which one is this
    init: Literal["normal", "residual", "zeros", "ones"] = "normal"

    @property
    def stacked(self) -> bool:
        return self.axes[0] == "layers"

    def shape(self, config: DecoderConfig) -> tuple[int, ...]:
        sizes = config.axis_sizes()
        return tuple(sizes[axis] for axis in self.axes)

    def start(self, config: DecoderConfig, key: jax.Array) -> jax.Array:
        """A float32 start value: zeros, ones, N(0, 0.02²), or that over √(2·layers) for what writes into the stream (GPT-2's recipe)."""
        shape = self.shape(config)
        if self.init == "zeros":
            return jnp.zeros(shape)
        if self.init == "ones":
            return jnp.ones(shape)
        std = 0.02 / (2 * config.n_layers) ** 0.5 if self.init == "residual" else 0.02
        return std * jax.random.normal(key, shape)


def nest(flat: Iterable[tuple[str, Any]]) -> dict:
    """A nested dict from (path, value) pairs, paths split at "/"."""
    tree: dict = {}
    for path, value in flat:
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = value
    return tree

"""What a direction in the last stream does to the logits. Letters: s window, q position, c direction, d width, v token.

With x the centred stream and σ the final norm's scale, a step along w changes the logits x·W/σ by w·W/σ while the norm
keeps its scale, and by (w − x⟨x, w⟩/(dσ²))·W/σ if it reacts. Soft caps are left out.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.streamed_sets import Unembedded
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig


class StreamMoments(NamedTuple):
    """Sums over positions."""

    positions: Any
    inverse: Any  # of 1/σ
    outer: Any  # of x·xᵀ/σ³, [d d]


class Extremes(NamedTuple):
    """The tokens whose logits rise most, and those whose logits fall most, by how much; [c k] each."""

    up: jax.Array  # int
    up_by: jax.Array
    down: jax.Array  # int
    down_by: jax.Array


@jax.jit
def stream_moments(before: Unembedded, kept: jax.Array) -> StreamMoments:
    """The moments over the positions that are `kept`, bool [s q]."""
    x = jnp.where(kept[..., None], before.x, 0)
    outer = jnp.einsum("sqd,sqe,sq->de", x, x, before.inv**3, precision="highest")
    return StreamMoments(kept.sum(), jnp.sum(before.inv * kept), outer)


def steps(config: DecoderConfig, w: np.ndarray, moments: StreamMoments) -> tuple[np.ndarray, np.ndarray]:
    """The directions whose products with W_U are the mean changes of the logits for each unit of w [c d], float64.

    The first have the final norm react, the second keep its scale. They are the same where that scale is a constant.
    """
    positions, inverse, outer = (np.asarray(x, np.float64) for x in moments)
    frozen = np.asarray(w, np.float64) * (inverse / positions)
    if not config.final_norm or config.frozen_scale is not None:
        return frozen, frozen
    return frozen - w @ outer / (positions * config.d_model), frozen


@functools.partial(jax.jit, static_argnames="k")
def extremes(readout: Readout, step: jax.Array, k: int) -> Extremes:
    """The k tokens whose logits a `step` [c d] raises most, and the k that it lowers most."""
    with jax.default_matmul_precision("highest"):
        change = step @ readout.W_U
    up_by, up = jax.lax.top_k(change, k)
    down_by, down = jax.lax.top_k(-change, k)
    return Extremes(up, up_by, down, -down_by)

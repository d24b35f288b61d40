"""Pearson correlations between the activations of two models' neurons over the same tokens, in batches of windows.

Letters: b window, t position, l layer, n neuron; i and n layers and neurons of a block of the first model, j and m
those of a block of the other, L and M all their layers; D devices that windows are split over, x positions that a
device holds, p a second axis of neurons of a layer; k best matches.

The correlations of one block with another follow from sums of products, which stay on the devices; only the best
matches of each neuron leave them. The baseline uses layers of the other model whose activations are multiplied by a
random rotation R. Their covariances with the first model's neurons are cov·R, and their variances are the diagonal of
RᵀCR, where C are the layer's own covariances. So the baseline follows from sums as well, and needs no second pass.

Source: Gurnee et al. 2024 (arXiv 2401.12181), section 4.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxconf.analysis.moments import CONSTANT, activations
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.mesh import sharding


class Sums(NamedTuple):
    """Sums of products of two blocks' activations less their means, over the counted tokens of a device; float32."""

    cross: jax.Array  # D i n j m
    own: jax.Array  # D j m p: within a layer of the other model
    squares: jax.Array  # D i n


class Best(NamedTuple):
    """The best matches of each neuron of the first block in each layer of the other block."""

    correlation: jax.Array  # j i n k: the largest correlations; NaN for a constant neuron
    neuron: jax.Array  # j i n k: int, the neurons of these
    baseline: jax.Array  # j i n: the largest correlation with a neuron of the rotated layer


def no_sums(mesh: Mesh, i: int, n: int, j: int, m: int) -> Sums:
    """Sums of 0 for `add` to begin with; the first block's neurons are split over the mesh's `model`."""
    D = mesh.shape["data"]
    shapes = {
        "cross": (("batch", "layers", "mlp", "layers", "mlp"), (D, i, n, j, m)),
        "own": (("batch", "layers", "mlp", "mlp"), (D, j, m, m)),
        "squares": (("batch", "layers", "mlp"), (D, i, n)),
    }
    return Sums(
        **{name: jnp.zeros(shape, device=sharding(mesh, axes, shape)) for name, (axes, shape) in shapes.items()}
    )


@functools.partial(jax.jit, static_argnames=("config", "other_config"), donate_argnames="sums")
def add(
    config: DecoderConfig,
    params: Params,
    layers: jax.Array,
    means: jax.Array,
    other_config: DecoderConfig,
    other_params: Params,
    other_layers: jax.Array,
    other_means: jax.Array,
    tokens: jax.Array,
    counted: jax.Array,
    sums: Sums,
) -> Sums:
    """`sums` plus those of more windows, `tokens` [b t], over the positions at which `counted`, bool [b t], is true.

    `layers` int [i] and `other_layers` int [j]: those of the two blocks. `means` [l n] and `other_means` [l m]: the
    means of the activations over the counted tokens of all windows.
    """
    D = len(sums.cross)

    def block(config: DecoderConfig, params: Params, layers: jax.Array, means: jax.Array) -> jax.Array:
        h = (activations(config, params, tokens) - means[:, None, None])[layers]
        h = jnp.moveaxis(jnp.where(counted[..., None], h, 0), 0, 2)  # b t i n
        return h.reshape(D, -1, *h.shape[2:])

    a, b = block(config, params, layers, means), block(other_config, other_params, other_layers, other_means)
    with jax.default_matmul_precision("highest"):
        cross, own = jnp.einsum("Dxin,Dxjm->Dinjm", a, b), jnp.einsum("Dxjm,Dxjp->Djmp", b, b)
    return Sums(*map(jnp.add, sums, (cross, own, jnp.square(a).sum(1))))


@functools.partial(jax.jit, static_argnames="k")
def best(sums: Sums, count: jax.Array, means: jax.Array, other_means: jax.Array, keys: jax.Array, k: int) -> Best:
    """The best `k` matches of each neuron of a block in each layer of the other block, and the baseline.

    `count`: the number of counted tokens. `means` [i n] and `other_means` [j m]: of the activations, to tell constant
    ones. `keys` [j]: those of the rotations. A constant neuron of the other model has the correlation −1 with all.
    """
    total = Sums(*(x.sum(0) for x in sums))
    variance = _variance(total.squares, count, means)  # i n, times `count`

    def layer(of: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        cross, own, other_means, key = of  # i n m, m p, m
        with jax.default_matmul_precision("highest"):
            R = jax.random.orthogonal(key, len(own))
            rotated, rotated_variance = cross @ R, jnp.sum(R * (own @ R), 0)
        correlation = _correlation(cross, variance, _variance(jnp.diagonal(own), count, other_means))
        largest, neuron = jax.lax.top_k(correlation, k)
        baseline = _correlation(rotated, variance, jnp.where(rotated_variance > 0, rotated_variance, jnp.nan)).max(-1)
        return largest, neuron, baseline

    found = jax.lax.map(layer, (jnp.moveaxis(total.cross, 2, 0), total.own, other_means, keys))
    constant = jnp.isnan(variance)
    return Best(jnp.where(constant[..., None], jnp.nan, found[0]), found[1], jnp.where(constant, jnp.nan, found[2]))


class Matches(NamedTuple):
    """The best matches of each neuron among the neurons of all layers of the other model, best first."""

    correlation: np.ndarray  # l n k; NaN for a constant neuron
    layer: np.ndarray  # l n k: int
    neuron: np.ndarray  # l n k: int
    baseline: np.ndarray  # l n: the largest correlation with a neuron of any rotated layer


def matches(found: Best) -> Matches:
    """The best k matches over all layers, from the best k of each; of equal ones, the earlier layer's come first."""
    correlation, neuron = (np.moveaxis(np.asarray(x), 0, 2) for x in (found.correlation, found.neuron))  # l n M k
    *neurons, M, k = correlation.shape
    correlation, neuron = correlation.reshape(*neurons, M * k), neuron.reshape(*neurons, M * k)
    order = np.argsort(-correlation, -1, kind="stable")[..., :k]
    return Matches(
        np.take_along_axis(correlation, order, -1),
        order // k,
        np.take_along_axis(neuron, order, -1),
        np.asarray(found.baseline).max(0),
    )


def block_layers(L: int, n: int, M: int, m: int, memory: int) -> tuple[int, int]:
    """The sizes of two blocks: how many of L layers of n neurons, and how many of M layers of m neurons.

    The blocks' sums, and as many numbers that are added to them, fit into `memory` bytes, unless those of a single pair
    of layers do not.
    """
    pair, own = 8 * n * m, 8 * m * m
    i = int(np.clip((memory - own) // pair, 1, L))
    return i, int(np.clip(memory // (i * pair + own), 1, M))


def _variance(squares: jax.Array, count: jax.Array, means: jax.Array) -> jax.Array:
    """The sums of squares, but NaN where they are so small that the activation is constant up to rounding."""
    return jnp.where(squares > count * (CONSTANT * means) ** 2, squares, jnp.nan)


def _correlation(covariance: jax.Array, variance: jax.Array, other_variance: jax.Array) -> jax.Array:
    """Correlations from sums [i n m], [i n] and [m]; −1, the smallest possible, where a variance is NaN."""
    correlation = covariance * jax.lax.rsqrt(variance)[..., None] * jax.lax.rsqrt(other_variance)
    return jnp.clip(jnp.where(jnp.isnan(correlation), -1, correlation), -1, 1)

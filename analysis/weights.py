"""Statistics of neurons that need only the weights.

Letters: d model width, n neuron, v vocabulary, D singular directions.

Sources: Stolfo et al. 2024 (arXiv 2406.16254), section 3.1; Gurnee et al. 2024 (arXiv 2401.12181) for the moments.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.sharding import Mesh, PartitionSpec

from jaxconf.analysis.metrics import PUBLISHED, RHO_AT, TIGHIDET
from jaxconf.analysis.selection import Shape, published_k, scaled_k
from jaxconf.analysis.unembedding import Readout, Spectrum
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.errors import InputError

BLOCK = 64  # neurons whose products with the unembedding are held at once


@functools.partial(jax.jit, static_argnames="mesh")
def vocabulary_statistics(mesh: Mesh, readout: Readout, u: jax.Array) -> dict[str, jax.Array]:
    """Statistics of each write direction w and of its product with the unembedding, w·W_U [v]; float32 [n] each.

    `w_norm`: ‖w‖. `logit_var` (LogitVar): the variance, with V − 1 in the denominator, of the cosines of w with W_U's
    columns. `vocab_skew` and `vocab_kurtosis`: third and fourth standardised moment of the same cosines (3 is a
    Gaussian's kurtosis). `cos_freq`: cosine of w·W_U with the token-frequency direction `u` [v]. `null_proxy`:
    1/(1 + ‖w·W_U without its mean‖/‖w‖), of Zahrivyi 2026. The neurons are split over all devices of the mesh.
    """

    def some(W_U: jax.Array, u: jax.Array, w_out: jax.Array) -> dict[str, jax.Array]:
        lengths = jnp.linalg.norm(W_U, axis=0)

        def one(w: jax.Array) -> dict[str, jax.Array]:
            w_norm = jnp.linalg.norm(w)
            M = w @ W_U
            cosines = jnp.where(lengths > 0, M / lengths, 0) / w_norm
            centred = cosines - cosines.mean()
            second = jnp.mean(centred**2)
            return {
                "w_norm": w_norm,
                "logit_var": second * (len(M) / (len(M) - 1)),
                "vocab_skew": jnp.mean(centred**3) / second**1.5,
                "vocab_kurtosis": jnp.mean(centred**4) / second**2,
                "cos_freq": M @ u / jnp.linalg.norm(M),
                "null_proxy": 1 / (1 + jnp.linalg.norm(M - M.mean()) / w_norm),
            }

        return jax.lax.all_gather(jax.lax.map(one, w_out, batch_size=BLOCK), ("data", "model"), tiled=True)

    neurons, whole = len(readout.w_out), PartitionSpec()
    w_out = jnp.pad(readout.w_out, ((0, -neurons % mesh.size), (0, 0)))
    places = (whole, whole, PartitionSpec(("data", "model")))
    with jax.default_matmul_precision("highest"):
        found = jax.shard_map(some, mesh=mesh, in_specs=places, out_specs=whole, check_vma=False)(readout.W_U, u, w_out)
    return {name: value[:neurons] for name, value in found.items()}


def null_space_size(config: DecoderConfig | Shape, k: int | None = None) -> int:
    """The size of the effective null space: `k`, or by default that of Stolfo et al., or else 1% of the width.

    Raises InputError for a bad `k`.
    """
    if k is None:
        return published_k(config, "stolfo") or share_of_width(config.d_model, 0.01)
    if not 1 <= k < config.d_model:
        raise InputError(f"k is {k}; give a null-space size from 1 to {config.d_model - 1}")
    return k


def share_of_width(d_model: int, share: float) -> int:
    """The size of a null space that is a share of the width, at least 1."""
    return max(1, round(share * d_model))


def null_spaces(config: DecoderConfig) -> dict[str, int]:
    """Column of rho at another size of the null space → its k.

    A model that Stolfo et al. do not have has no `rho_at_published`.
    """
    sizes = {name: share_of_width(config.d_model, share) for name, share in RHO_AT.items()}
    sizes[TIGHIDET] = published_k(config, "tighidet") or scaled_k(config.d_model)
    published = published_k(config, "stolfo")
    return sizes if published is None else {**sizes, PUBLISHED: published}


def knee(values: np.ndarray) -> tuple[int, float]:
    """Where a spectrum falls most steeply towards its smallest values: how many lie below, and by what factor it falls.

    `values`: singular values, float64 [D], largest first. The knee is the largest ratio of two neighbours among the
    smaller half of them. Values below 1e-7 of the largest count as that, which is all that `spectrum` can tell.
    """
    small = np.maximum(values, 1e-7 * values[0])[len(values) // 2 :]
    ratios = small[:-1] / small[1:]
    if not len(ratios):
        return 0, 1.0
    at = int(ratios.argmax())
    return len(ratios) - at, float(ratios[at])


def rho(w_out: np.ndarray, spectrum: Spectrum, k: int) -> np.ndarray:
    """ρ_k = ‖U_kᵀw‖/‖w‖ of write directions [n d], float64 [n]; NaN for a neuron that writes nothing.

    U_k: the k left singular vectors with the smallest singular values.
    """
    return np.linalg.norm(cosines(w_out, Spectrum(spectrum.values[-k:], spectrum.vectors[:, -k:])), axis=1)


def cosines(w_out: np.ndarray, spectrum: Spectrum) -> np.ndarray:
    """Cosines of write directions [n d] with every left singular vector, float64 [n D]; NaN for a direction of 0."""
    w = np.asarray(w_out, np.float64)
    length = np.linalg.norm(w, axis=1, keepdims=True)
    return w @ spectrum.vectors / np.where(length > 0, length, np.nan)


def chance_rho(k: int, dimensions: int, n: int, quantile: float = 0.99) -> tuple[float, float]:
    """The `quantile` of ρ_k by chance: of the largest ρ_k of n random directions, and of that of a single direction.

    For a direction uniform on the sphere in D dimensions, ρ² is Beta(k/2, (D − k)/2), so both are exact and need no
    sampling. LayerNorm models have D = d − 1, since every write direction is centred.
    """
    if k >= dimensions:
        return 1.0, 1.0
    largest, single = scipy.special.betaincinv(k / 2, (dimensions - k) / 2, [quantile ** (1 / n), quantile])
    return float(np.sqrt(largest)), float(np.sqrt(single))


@functools.partial(jax.jit, static_argnames="config")
def weight_cost(config: DecoderConfig, params: Params, layer: int = -1) -> jax.Array:
    """Each neuron's part of the penalty of weight decay: the sum of its squared weights without biases, float32 [n]."""
    mlp = params["blocks"]["mlp"]
    reading = [mlp["w_in"][layer], mlp["w_gate"][layer]] if config.gated else [mlp["w_in"][layer]]
    out = jnp.square(mlp["w_out"][layer].astype(jnp.float32)).sum(1)
    return out + sum(jnp.square(w.astype(jnp.float32)).sum(0) for w in reading)

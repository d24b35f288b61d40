"""Directions that are written into the last stream, and how their coefficients are read from a site of the last layer.

Letters: … leading axes, i width of the site that is read, d model width, n direction.

    h = f(s·W_enc + b_enc)    the coefficients, from the site's value s
    x + Σ_n δ_n·w_n           the stream that enters the final norm, if the coefficients change by δ

A direction is to its coefficient what a neuron's write direction is to its activation, so all effects of neurons of the
last layer (`jaxconf.analysis.effects`) are defined for it. An ablation changes h_n alone: the other coefficients, and
what the directions do not reconstruct, stay. Sparse autoencoders, transcoders, probes, principal components and single
biases all have this form.
"""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxconf.analysis.unembedding import Spectrum
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params

Form = Literal["linear", "relu", "jump", "top"]


@struct.dataclass
class Dictionary:
    """Some directions whose coefficients are read from one site.

    The form is f, of the values v: "linear" v itself; "relu" max(v, 0); "jump" v where it exceeds both 0 and the
    `threshold`, else 0; "top" max(v, 0) of the `top` largest values, else 0.
    """

    reads: str = struct.field(pytree_node=False)  # the site, such as blocks.11.hook_resid_post
    form: Form = struct.field(pytree_node=False)
    top: int = struct.field(pytree_node=False)
    W_enc: jax.Array  # i n
    b_enc: jax.Array  # n
    threshold: jax.Array  # n
    w: jax.Array  # n d: what is added to the stream for each unit of the coefficient

    def coefficients(self, site: jax.Array) -> jax.Array:
        """h, float32 [… n], from the site's value [… i]."""
        with jax.default_matmul_precision("highest"):
            value = site.astype(jnp.float32) @ self.W_enc + self.b_enc
        match self.form:
            case "linear":
                return value
            case "relu":
                return jax.nn.relu(value)
            case "jump":
                return jnp.where(value > self.threshold, jax.nn.relu(value), 0)
            case "top":
                kept, at = jax.lax.top_k(value, self.top)
                return jnp.put_along_axis(jnp.zeros_like(value), at, jax.nn.relu(kept), -1, inplace=False)

    def read(self, captured: Mapping[str, jax.Array]) -> jax.Array:
        """h, float32 [… n], from captured sites."""
        return self.coefficients(captured[self.reads])


@struct.dataclass
class Scaled:
    """What is added to the stream if coefficients are multiplied by `factor`: Σ_n (factor_n − 1)·h_n·w_n."""

    dictionary: Dictionary
    factor: jax.Array  # n

    def __call__(self, site: jax.Array) -> jax.Array:
        """From the value of the site that the dictionary reads, [… i]: float32 [… d]."""
        with jax.default_matmul_precision("highest"):
            return ((self.factor - 1) * self.dictionary.coefficients(site)) @ self.dictionary.w


def linear(reads: str, W_enc: np.ndarray, b_enc: np.ndarray, w: np.ndarray) -> Dictionary:
    """A dictionary whose coefficients are s·W_enc + b_enc; arrays [i n], [n] and [n d]."""
    arrays = (jnp.asarray(x, jnp.float32) for x in (W_enc, b_enc, np.zeros(len(w)), w))
    return Dictionary(reads, "linear", 0, *arrays)


def along(config: DecoderConfig, directions: np.ndarray) -> Dictionary:
    """Each direction of the last stream, [n d], by itself: its coefficient is the stream's component along it.

    So an ablation that sets the coefficient to its mean leaves the stream's mean and takes its variation along the
    direction. Directions need not be orthogonal, nor of length 1.
    """
    w = np.asarray(directions, np.float64)
    return linear(last_stream(config), (w / np.square(w).sum(1, keepdims=True)).T, np.zeros(len(w)), w)


def null_directions(config: DecoderConfig, spectrum: Spectrum, k: int) -> Dictionary:
    """The k singular directions of the unembedding with the smallest singular values, one by one, smallest first."""
    return along(config, spectrum.vectors[:, ::-1][:, :k].T)


def constant(config: DecoderConfig, directions: np.ndarray) -> Dictionary:
    """Directions of the last stream, [n d], whose coefficients are always 1: scaling one by 1 + a adds a·w."""
    count = len(directions)
    return linear(last_stream(config), np.zeros((config.d_model, count)), np.ones(count), directions)


def output_bias(config: DecoderConfig, params: Params) -> Dictionary:
    """The bias of the last MLP's output, as one direction whose coefficient is always 1."""
    return constant(config, np.asarray(params["blocks"]["mlp"]["b_out"][-1:], np.float64) * config.residual_scale)


def last_stream(config: DecoderConfig) -> str:
    """The site of the stream that enters the final norm."""
    return f"blocks.{config.n_layers - 1}.hook_resid_post"

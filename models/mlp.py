"""The MLP, plain or gated. Letters: b batch, t position, d model width, m neuron."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconf.models.config import DecoderConfig
from jaxconf.models.products import product
from jaxconf.models.sites import Sites

ACTIVATION: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "silu": jax.nn.silu,
}


def mlp(config: DecoderConfig, params: dict[str, Any], x: jax.Array, sites: Sites) -> jax.Array:
    """What the MLP adds to the stream, [b t d], from the normed stream x [b t d]."""

    def project(name: str) -> jax.Array:
        y = product(x, params[f"w_{name}"])
        return y + params[f"b_{name}"] if config.mlp_bias else y

    act = ACTIVATION[config.activation]
    if config.gated:
        pre, linear = sites("mlp.hook_pre", project("gate")), sites("mlp.hook_pre_linear", project("in"))
        post = act(pre) * linear
    else:
        post = act(sites("mlp.hook_pre", project("in")))
    post = sites("mlp.hook_post", post)
    out = product(post, params["w_out"])
    return out + params["b_out"] if config.mlp_bias else out

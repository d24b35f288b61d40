"""The MLP, plain or gated, or a mixture of experts. Letters: b batch, t position, d model width, m neuron, e expert.

In a mixture of experts (Shazeer et al. 2017, arXiv 1701.06538), the neurons of all experts stand one after the other on
the axis m. All are computed for every token. What the neurons of an expert write is multiplied by the router's weight
of the expert, which is 0 for experts that were not chosen.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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

    def act(pre: jax.Array) -> jax.Array:
        return ACTIVATION[config.activation](pre * config.silu_beta) / config.silu_beta

    if config.gated:
        pre, linear = sites("mlp.hook_pre", project("gate")), sites("mlp.hook_pre_linear", project("in"))
        if config.mlp_clip is not None:
            pre, linear = jnp.minimum(pre, config.mlp_clip), jnp.clip(linear, -config.mlp_clip, config.mlp_clip)
        post = act(pre) * (linear + config.linear_offset)
    else:
        post = act(sites("mlp.hook_pre", project("in")))
    post = sites("mlp.hook_post", post)
    if config.experts:
        weights = sites("mlp.hook_router", router_weights(config, params, x))
        post = post * of_neurons(config, weights).astype(post.dtype)
    out = product(post, params["w_out"])
    if not config.mlp_bias:
        return out
    if config.experts:  # those of the chosen experts, weighted
        return out + product(weights, params["b_out"].astype(weights.dtype)).astype(out.dtype)
    return out + params["b_out"]


def router_weights(config: DecoderConfig, params: dict[str, Any], x: jax.Array) -> jax.Array:
    """The router's weight of each expert, float32 [b t e], from the normed stream x [b t d].

    It is 0 for experts that were not chosen. That of a shared expert is the sigmoid of its gate.
    """
    scores = product(x, params["router"])
    scores = (scores + params["router_bias"] if config.router_bias else scores).astype(jnp.float32)
    chosen, index = jax.lax.top_k(scores, config.experts_per_token)
    weight = jax.nn.softmax(chosen, -1)
    if not config.router_normalized:
        weight = jnp.exp(chosen - jax.nn.logsumexp(scores, -1, keepdims=True))
    weights = jnp.sum(jax.nn.one_hot(index, config.routed_experts) * weight[..., None], -2)
    if config.shared_expert:
        gate = product(x, params["shared_gate"][:, None]).astype(jnp.float32)
        weights = jnp.concatenate([weights, jax.nn.sigmoid(gate)], -1)
    return weights


def of_neurons(config: DecoderConfig, of_experts: jax.Array) -> jax.Array:
    """What an array [… e] has for the expert of each neuron, [… m]."""
    return of_experts[..., expert_of_each(config)]


def expert_of_each(config: DecoderConfig) -> np.ndarray:
    """The expert of each neuron of a layer, int [m]."""
    return np.repeat(np.arange(len(config.experts)), config.experts)

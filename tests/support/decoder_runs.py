"""Cases of the decoder on two prompts, one the other backwards, and what they give at every site."""

import functools
from typing import Any

import cases
import jax
import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Output, Params, forward, site_shapes
from jaxconf.models.families import leaves
from jaxconf.models.leaves import nest

ONE_EACH = ("gpt2-unscaled", "neox-linear", "llama-mqa", "stablelm-gqa")  # a case of each family
TOKENS = np.concatenate([cases.prompt(67), cases.prompt(67)[:, ::-1]])


compiled_run = jax.jit(forward, static_argnames=("config", "capture", "start_at_layer", "stop_at_layer"))


def run(*args: Any, **kwargs: Any) -> Output:
    return jax.tree.map(np.asarray, compiled_run(*args, **kwargs))


def run_all(config: DecoderConfig, params: Params, tokens: np.ndarray) -> Output:
    """The logits and every site; one compilation for each config."""
    return run(config, params, tokens, capture=tuple(site_shapes(config)))


@functools.cache
def whole(name: str) -> Output:
    return run_all(*cases.decoder(name), TOKENS)


def read(params: Params, path: str) -> Any:
    return functools.reduce(lambda node, key: node[key], path.split("/"), params)


def write(config: DecoderConfig, params: Params, path: str, array: np.ndarray) -> Params:
    return nest((leaf.path, array if leaf.path == path else read(params, leaf.path)) for leaf in leaves(config))

"""How many bytes work may take beside the weights, and what happens where a device has fewer."""

import re
from collections.abc import Callable
from typing import TypeVar

import jax

from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.runtime.progress import Progress

MEMORY = 4 * 10**9
LEAST = 2**24
CACHED = 2**26  # bytes, measured: on a CPU a layer takes half as long again with 4 GB

Result = TypeVar("Result")


def fitting(run: Callable[[int], Result], memory: int, progress: Progress) -> Result:
    """`run(memory)`, with half the bytes again and again while a device has too few. Raises what XLA raises at last."""
    while True:
        try:
            return run(memory)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or memory < LEAST:
                raise
            if jax.process_count() > 1:  # the others may have had enough, and are at work
                raise InputError(
                    f"a device has too little memory to work with {memory / 1e9:.2g} GB at once; "
                    "give a smaller --memory"
                ) from error
            memory //= 2
            progress(f"out of memory, again with {memory / 1e9:.2g} GB", 0, 0)


def read_size(text: str, option: str) -> int:
    """The bytes that a text such as "4GB" or "500MB" means. `option`: what an InputError for any other text names."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])B", text.strip(), re.IGNORECASE)
    if not found:
        raise InputError(f"{option} is {text!r}; give a size such as 4GB or 500MB")
    return int(float(found[1]) * 1000 ** (1 + "KMGT".index(found[2].upper())))


def usable(memory: int) -> int:
    """How many of these bytes make work on many neuron sets faster: on a CPU only as many as its caches hold."""
    return min(memory, CACHED) if jax.default_backend() == "cpu" else memory


def bytes_of_a_window(config: DecoderConfig, length: int) -> int:
    """Bytes for running a window of `length` tokens up to its logits: the widest activations, a block of scores."""
    return 4 * length * (12 * config.d_model + 4 * config.d_mlp + 2 * config.n_heads * length)


def bytes_of_a_set(config: DecoderConfig, length: int) -> int:
    """Bytes for a window with a neuron set ablated: about six arrays of logits, and what running it takes."""
    return bytes_of_a_window(config, length) + 4 * length * 6 * config.vocab_size

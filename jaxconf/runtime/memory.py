"""How many bytes a job may take beside the weights, and what happens where a device has too few."""

import re
from collections.abc import Callable
from typing import TypeVar

import jax

from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.runtime.progress import Progress

MEMORY = 4 * 10**9  # bytes of a device that a job may take by default
LEAST = 2**24  # bytes; a job for which even fewer are too many fails
CACHED = 2**26  # bytes; measured on a CPU, on which a layer takes 1.5 times as long with 4 GB

Result = TypeVar("Result")


def fitting(run: Callable[[int], Result], memory: int, progress: Progress) -> Result:
    """The result of `run(memory)`; whenever a device runs out of memory, `run` is called again with half the bytes.

    Raises XLA's error if even fewer bytes than LEAST are too many, and InputError if there are several hosts.
    """
    while True:
        try:
            return run(memory)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or memory < LEAST:
                raise
            if jax.process_count() > 1:  # other hosts may have had enough memory, and go on with the larger batches
                raise InputError(
                    f"a device has too little memory to work with {memory / 1e9:.2g} GB at once; "
                    "give a smaller --memory"
                ) from error
            memory //= 2
            progress(f"out of memory, trying again with {memory / 1e9:.2g} GB", 0, 0)


def read_size(text: str, option: str) -> int:
    """The bytes that a text such as "4GB" or "500MB" means. Raises InputError, which names `option`, for other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])B", text.strip(), re.IGNORECASE)
    if not found:
        raise InputError(f"{option} is {text!r}; give a size such as 4GB or 500MB")
    return int(float(found[1]) * 1000 ** (1 + "KMGT".index(found[2].upper())))


def usable(memory: int) -> int:
    """How many of these bytes to use for many neuron sets together: on a CPU at most CACHED, since more is slower."""
    return min(memory, CACHED) if jax.default_backend() == "cpu" else memory


def bytes_of_a_window(config: DecoderConfig, length: int) -> int:
    """Bytes for running a window of `length` tokens, without its logits.

    Counted are the widest activations and the attention scores of one block.
    """
    return 4 * length * (12 * config.d_model + 4 * config.d_mlp + 2 * config.n_heads * length)


def bytes_of_a_set(config: DecoderConfig, length: int) -> int:
    """Bytes for running a window with one neuron set ablated: as `bytes_of_a_window`, and about six logit arrays."""
    return bytes_of_a_window(config, length) + 4 * length * 6 * config.vocab_size

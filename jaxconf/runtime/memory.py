"""How many bytes work may take beside the weights, and what happens where there are fewer."""

from collections.abc import Callable
from typing import TypeVar

import jax

from jaxconf.models.errors import InputError
from jaxconf.runtime.progress import Progress

MEMORY = 4 * 10**9
LEAST = 2**24

Result = TypeVar("Result")


def fitting(run: Callable[[int], Result], memory: int, progress: Progress) -> Result:
    """`run(memory)`, with half the bytes each time the device turns out to have too few; raises what XLA raises when there is no use."""
    while True:
        try:
            return run(memory)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or memory < LEAST:
                raise
            if jax.process_count() > 1:  # the others may have had enough, and are at work
                raise InputError(
                    f"a device has too little memory to work with {memory / 1e9:.2g} GB at once; give a smaller --memory"
                ) from error
            memory //= 2
            progress(f"out of memory, again with {memory / 1e9:.2g} GB", 0, 0)

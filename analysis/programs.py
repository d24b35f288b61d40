"""Programs of the engines: `jax.jit` with the compiler options for their loops over the vocabulary."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Program:
    """A function that is compiled when it is called, as by `jax.jit`.

    It must not be called within another `jax.jit`, which refuses compiler options there.
    """

    function: Callable[..., Any]
    static_argnames: tuple[str, ...] = ("config",)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._jitted(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """As `lower` of what `jax.jit` returns."""
        return self._jitted.lower(*args, **kwargs)

    @functools.cached_property
    def _jitted(self) -> Any:
        # Made at the first call: the options depend on the backend, and importing starts none.
        return jax.jit(self.function, static_argnames=self.static_argnames, compiler_options=compiler_options())


def compiler_options() -> dict[str, int]:
    """Compiler options of the outermost `jax.jit`; by default, XLA uses only half of the width of AVX-512 vectors."""
    return {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else {}

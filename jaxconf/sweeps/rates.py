"""The rates at which a device of this process computes. Letters: T rows, N neurons, d width, V vocabulary."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconf.analysis.ablated_softmax import ablated_softmax
from jaxconf.analysis.programs import Program
from jaxconf.analysis.softmax_sums import Cells, Rows, Vocabulary
from jaxconf.sweeps.estimate import EFFECTS


def measured_rates(clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """The operations of float32 matrix products, and the exponentials in the exact engine, that a device does in a
    second. `clock`: gives the time in seconds.
    """
    size, T, N, V, d = 2048, 256, 64, 4096, 64
    square, product = jnp.ones((size, size)), jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    of_vocabulary, of_rows, of_cells = jnp.zeros(V), jnp.zeros(T, jnp.int32), jnp.ones((T, N))
    rows = Rows(jnp.zeros((T, V)), None, jnp.ones(T), of_rows, of_rows)
    arguments = (
        rows,
        Cells(of_cells, None, of_cells, of_cells),
        jnp.ones((N, d)),
        Vocabulary(jnp.ones((d, V)), of_vocabulary, of_vocabulary, of_vocabulary),
    )
    engine = Program(ablated_softmax, ())
    flops = 2 * size**3 / _seconds(lambda: product(square), clock)
    exponentials = EFFECTS * T * N * V / _seconds(lambda: engine(*arguments), clock)
    return flops, exponentials


def _seconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """The seconds of the fastest of three runs, after one that compiles."""
    took = []
    for _ in range(4):
        begun = clock()
        jax.block_until_ready(run())
        took.append(clock() - begun)
    return min(took[1:])

"""Times the sizes of the engines' blocks, and prints this backend's row of jaxconf/analysis/blocks.py.

    python scripts/tune_blocks.py                  # all sizes, on two cores about ten minutes
    python scripts/tune_blocks.py exact_n exact_t  # only these

One size after the other is doubled, or else halved, as long as its engine becomes faster by more than GAIN. The inputs
are those of scripts/bench_effects.py at a small shape of GPT-2 Small's width and vocabulary; an accelerator needs more
neurons and positions to be busy. Letters: r position, d width, n neuron, v vocabulary, c neuron set.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import bench_effects
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxconf.analysis import streamed_sets
from jaxconf.analysis.blocks import ACCELERATOR, ROWS, Blocks
from jaxconf.analysis.effects import Adaptive, effects
from jaxconf.analysis.programs import compiler_options
from jaxconf.analysis.set_effects import effect_lines, frequency_reading, sums_of_sets
from jaxconf.analysis.whole_logits import prediction
from jaxconf.models.config import DecoderConfig

GAIN = 1.05  # smaller differences are not told from the machine's
HOPELESS = 1.3  # a size that takes so many times as long in its first run is not run again
RUNS = 3  # of each size, in turn
SETS, MEMBERS = 16, 10  # neuron sets, and neurons of a set
Run = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Tune:
    """Find the sizes of blocks that are fastest on this backend."""

    sizes: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """the sizes to tune, by the names in jaxconf/analysis/blocks.py; by default all"""
    positions: int = 512
    neurons: int = 768
    """of which a sixth are used for the exact engine"""
    width: int = 768
    vocabulary: int = 50257


@dataclasses.dataclass(frozen=True)
class Problem:
    """The inputs of all engines, as those of `effects`."""

    config: DecoderConfig
    given: tuple[Any, ...]  # readout, frequencies, x, delta, target

    @classmethod
    def of(cls, tune: Tune) -> "Problem":
        config = bench_effects.last_layer("gpt_neox", tune.width, tune.neurons, tune.vocabulary)
        return cls(config, jax.block_until_ready(bench_effects.inputs(config, tune.positions, "realistic")))


def compiled(function: Callable[..., Any], *arguments: Any) -> Run:
    program = jax.jit(function, compiler_options=compiler_options()).lower(*arguments).compile()
    return lambda: program(*arguments)


def exact(problem: Problem) -> Run:
    readout, freq, x, delta, target = problem.given
    N = max(1, delta.shape[1] // 6)
    some = dataclasses.replace(readout, w_out=readout.w_out[:N], w_mlp=readout.w_mlp[:N])
    arguments = some, freq, x, delta[:, :N], target, jnp.ones((1, len(x)))
    return compiled(functools.partial(effects, problem.config), *arguments)


def adaptive(problem: Problem) -> Run:
    one = np.zeros(1, int)
    arguments = *problem.given, jnp.ones((1, len(problem.given[2]))), None, Adaptive(1e-4, (one, one))
    return compiled(functools.partial(effects, problem.config), *arguments)


def _unembedded(problem: Problem) -> streamed_sets.Unembedded:
    readout, freq, x, _, target = problem.given
    return jax.jit(functools.partial(streamed_sets.unembedded, problem.config))(readout, freq, x[None], target[None])[0]


def _members(problem: Problem) -> np.ndarray:
    """The neurons of each set, int [c MEMBERS]."""
    rng, N = np.random.default_rng(0), problem.config.d_mlp
    return np.stack([rng.choice(N, MEMBERS, replace=False) for _ in range(SETS)])


def by_algebra(problem: Problem) -> Run:
    """Sets of the last layer."""
    config, (readout, freq, _, delta, _) = problem.config, problem.given

    def sums(readout: Any, before: Any, delta: jax.Array) -> Any:
        parts, reading = streamed_sets.shared(readout, before, None), frequency_reading(readout, freq)

        def one(members: jax.Array) -> Any:
            change, w = delta[None, :, members], readout.w_out[members]
            moved = streamed_sets.Moved(before.x + change @ w, None, streamed_sets.Written(None, change, w))
            return effect_lines(config, reading, before, moved)

        return sums_of_sets(config, readout, freq, before, parts, jax.lax.map(one, _members(problem)))

    return compiled(sums, readout, _unembedded(problem), delta)


def rerun(problem: Problem) -> Run:
    """The streams of sets whose layers above were run again, as many together as the row says."""
    config, (readout, freq, _, delta, _) = problem.config, problem.given
    before, together = _unembedded(problem), min(SETS, max(1, row().set_cells // len(delta)))
    moved = [before.x + delta[None, :, members] @ readout.w_out[members] for members in _members(problem)]

    def sums(readout: Any, before: Any, x: jax.Array) -> Any:
        lines = effect_lines(config, frequency_reading(readout, freq), before, streamed_sets.Moved(x, None, None))
        return sums_of_sets(config, readout, freq, before, None, lines)

    groups = [jnp.stack(moved[i : i + together]) for i in range(0, SETS, together)]
    runs = [compiled(sums, readout, before, group) for group in groups]
    return lambda: [run() for run in runs]


def unablated(problem: Problem) -> Run:
    """The predictions from whole logits."""
    readout, freq, x, _, target = problem.given
    return compiled(prediction, x @ readout.W_U, freq, target)


ENGINES: dict[str, Callable[[Problem], Run]] = {
    **dict.fromkeys(("exact_t", "exact_n", "exact_v", "exact_unroll"), exact),
    **dict.fromkeys(
        ("adaptive_t", "adaptive_v", "adaptive_unroll", "matrix", "lanes", "cells", "pairs", "abreast"), adaptive
    ),
    "set_v": by_algebra,
    "set_cells": rerun,
    "predicted": unablated,
}


def row() -> Blocks:
    return ROWS.get(jax.default_backend(), ACCELERATOR)


def ratio(before: Run, after: Run) -> float:
    """How many times faster `after` is, by the medians of runs in turn."""
    times: tuple[list[float], list[float]] = [], []
    for _ in range(RUNS):
        for run, took in zip((before, after), times, strict=True):
            took.append(bench_effects.seconds(run))
        if times[1][0] > HOPELESS * times[0][0]:
            break
    return statistics.median(times[0]) / statistics.median(times[1])


def tuned(problem: Problem, name: str) -> None:
    """Set this size of the backend's row to the fastest one."""
    start, here = row(), row()
    best = ENGINES[name](problem)
    jax.block_until_ready(best())
    for numerator, denominator in ((2, 1), (1, 2)):
        if here != start:
            break  # doubling it was faster
        while True:
            size = getattr(here, name) * numerator // denominator
            if not size:
                break
            ROWS[jax.default_backend()] = dataclasses.replace(here, **{name: size})
            run = ENGINES[name](problem)
            jax.block_until_ready(run())
            gain = ratio(best, run)
            print(f"{name:12s}{size:10d} is {gain:.2f} times as fast as {getattr(here, name)}", flush=True)
            if gain <= GAIN:
                break
            here, best = row(), run
    ROWS[jax.default_backend()] = here


def main(tune: Tune) -> Blocks:
    problem, begun = Problem.of(tune), time.perf_counter()
    for name in tune.sizes or [field.name for field in dataclasses.fields(Blocks)]:
        tuned(problem, name)
    print(f"{bench_effects.device()}, {time.perf_counter() - begun:.0f} s\n{row()}")
    return row()


if __name__ == "__main__":
    main(tyro.cli(Tune))

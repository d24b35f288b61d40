"""The script that tunes the sizes of blocks: which size it ends with, and that it has an engine for every size."""

import dataclasses
from collections.abc import Callable
from typing import Any

import bench_effects
import jax
import numpy as np
import pytest
import tune_blocks

from jaxconf.analysis.blocks import ROWS, Blocks


@pytest.fixture(autouse=True)
def own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, jax.default_backend(), dataclasses.replace(tune_blocks.row(), cells=64))


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        (lambda cells: abs(cells - 500), 512),
        (lambda cells: abs(cells - 9), 8),
        (lambda cells: 1 + abs(cells - 64), 64),
        (lambda cells: 1 - 1e-4 * cells, 64),  # a gain that is too small
    ],
)
def test_a_size_is_doubled_or_halved_as_long_as_that_gains_much(
    seconds: Callable[[int], float], found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine(problem: Any) -> Callable[[], float]:
        took = seconds(tune_blocks.row().cells)
        return lambda: took

    monkeypatch.setattr(bench_effects, "seconds", lambda run: run())
    monkeypatch.setitem(tune_blocks.ENGINES, "cells", engine)
    before = tune_blocks.row()
    tune_blocks.tuned(None, "cells")  # type: ignore[arg-type]
    assert tune_blocks.row() == dataclasses.replace(before, cells=found)


def test_every_size_has_an_engine() -> None:
    assert set(tune_blocks.ENGINES) == {field.name for field in dataclasses.fields(Blocks)}


@pytest.mark.command
def test_the_engines_have_the_sums_of_each_other() -> None:
    problem = tune_blocks.Problem.of(tune_blocks.Tune(positions=8, neurons=12, width=16, vocabulary=1300))
    of_sets, _ = tune_blocks.by_algebra(problem)()
    of_groups = [sums for sums, _ in tune_blocks.rerun(problem)()]
    for name, value in of_sets._asdict().items():
        again = np.concatenate([getattr(sums, name) for sums in of_groups])
        np.testing.assert_allclose(np.float64(value), np.float64(again), atol=2e-5, err_msg=name)
    sums, *_ = tune_blocks.exact(problem)()
    again, *_ = tune_blocks.adaptive(problem)()
    for name, value in sums.items():
        np.testing.assert_allclose(value, again[name][:, : value.shape[1]], atol=2e-3, err_msg=name)

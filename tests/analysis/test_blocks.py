"""The sizes of blocks are those of the backend, and change the results of no engine by more than its error.

Letters: t position, n neuron, v vocabulary.
"""

import dataclasses

import jax
import numpy as np
import pytest
from test_adaptive import ROUNDING, by_every_token, figures, problem

from jaxconf.analysis import ablated_softmax, adaptive_softmax, blocks
from jaxconf.analysis.blocks import ROWS, Size
from jaxconf.models.softcap import capped

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("backend", ROWS)
def test_a_size_is_that_of_the_backend(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setitem(ROWS, backend, dataclasses.replace(ROWS[backend], exact_n=7))
    assert int(ablated_softmax.BLOCK_N) == 7


def test_an_unknown_backend_is_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "METAL")
    assert int(Size("cells")) == blocks.ACCELERATOR.cells


@pytest.mark.parametrize("backend", ROWS)
def test_the_sizes_divide_each_other_where_the_engines_rely_on_it(backend: str) -> None:
    row = ROWS[backend]
    for name in ("adaptive_t", "adaptive_unroll", "abreast"):
        assert getattr(row, name).bit_count() == 1, name
    assert adaptive_softmax.HEAD % row.adaptive_unroll == 0
    assert row.set_v <= 2**11  # so that two counts up to it fit into the 24 bits of one float32
    assert row.lanes % 4 == 0


@pytest.mark.parametrize("case", ["", "soft caps"])
def test_the_engines_are_right_with_the_sizes_of_an_accelerator(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, jax.default_backend(), blocks.ACCELERATOR)
    monkeypatch.setattr(ablated_softmax, "UNROLL", Size("exact_unroll"))
    monkeypatch.setattr(adaptive_softmax, "UNROLL", Size("adaptive_unroll"))
    rows, cells, w, vocabulary = problem(case)
    expected, size = by_every_token(rows, cells, w, vocabulary)
    logits = rows.A * rows.inv[:, None] + vocabulary.b
    lse = jax.nn.logsumexp(capped(logits, vocabulary.cap), axis=1)
    exact = jax.jit(lambda *x: ablated_softmax.ablated_softmax(*x))(rows, cells, w, vocabulary)
    quick, certainty = jax.jit(lambda *x: adaptive_softmax.adaptive_softmax(*x, 1e-4))(rows, cells, w, vocabulary, lse)
    for name, value in figures(exact).items():
        assert np.abs(value - expected[name]).max() <= ROUNDING * size, name
    for name, value in figures(quick).items():
        assert (np.abs(value - expected[name]) <= np.asarray(certainty.bound) + ROUNDING * size).all(), name

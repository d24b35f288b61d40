"""Correlations of blocks of layers: the ranking of matches and the sizes of blocks.

tests/studies/test_universal.py compares the correlations themselves.

Letters: l layer, n neuron, k best matches.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxconf.analysis.correlation import Best, block_layers, matches


@given(*[st.integers(1, 40)] * 2, *[st.integers(1, 5000)] * 2, st.integers(1, 10**10))
def test_blocks_fit_where_one_layer_does(L: int, M: int, n: int, m: int, memory: int) -> None:
    i, j = block_layers(L, n, M, m, memory)
    assert 1 <= i <= L
    assert 1 <= j <= M
    needed = 8 * j * m * (i * n + m)
    assert needed <= memory or i == j == 1
    assert i == L or j == 1


def test_the_best_of_all_layers_are_those_of_all_neurons() -> None:
    rng = np.random.default_rng(0)
    every = rng.random((3, 2, 4, 6)).round(1)  # M l n m, with equal ones
    best = np.argsort(-every, -1, kind="stable")[..., :5]
    found = matches(Best(np.take_along_axis(every, best, -1), best, rng.random((3, 2, 4))))  # type: ignore[arg-type]
    for layer in range(2):
        for neuron in range(4):
            named = [(-every[M, layer, neuron, m], M, m) for M in range(3) for m in range(6)]
            expected = sorted(named)[:5]
            assert found.correlation[layer, neuron].tolist() == [-correlation for correlation, *_ in expected]
            assert found.layer[layer, neuron].tolist() == [M for _, M, _ in expected]
            assert found.neuron[layer, neuron].tolist() == [m for *_, m in expected]


def test_the_baseline_is_the_largest_of_any_layer_and_constant_neurons_have_none() -> None:
    baseline = np.random.default_rng(1).random((3, 2, 4))
    baseline[:, 1, 2] = np.nan
    correlation = np.where(np.isnan(baseline)[..., None], np.nan, 0.5)
    found = matches(Best(correlation, np.zeros((3, 2, 4, 1), int), baseline))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.baseline, baseline.max(0))
    assert np.isnan(found.correlation).sum() == 1
    assert np.isnan(found.correlation[1, 2, 0])

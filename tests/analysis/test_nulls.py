"""Null directions, and the p- and q-values that they give, against scipy and plain loops.

Letters: n neuron, m null, d width.
"""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from random_models import random_model

from jaxconf.analysis.nulls import (
    COUNTED,
    LEAST_P,
    draw_nulls,
    p_values,
    q_values,
    rho_p_values,
    robust_z,
    tail_p_values,
    with_nulls,
)
from jaxconf.analysis.unembedding import readout

shares = npst.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1, 1).map(lambda x: round(x, 1)))


@pytest.mark.parametrize("kind", ["layer", "rms", "no norm"])
def test_nulls_are_uniform_directions_of_the_neurons_lengths(kind: str) -> None:
    config = random_model(kind).config
    config, rng = dataclasses.replace(config, d_model=8), np.random.default_rng(0)
    w_out = rng.standard_normal((20, 8)) * rng.uniform(0.1, 9, (20, 1))
    w_out[3] = 0
    nulls = draw_nulls(config, w_out, 19_000, seed=1)
    assert set(np.bincount(nulls.neurons, minlength=20)) == {0, 1000}  # all in turn, but not the one that is 0
    assert 3 not in nulls.neurons
    lengths = np.linalg.norm(nulls.directions, axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(w_out, axis=1)[nulls.neurons], rtol=1e-5)
    unit = nulls.directions / lengths[:, None]
    D = 8 - (kind == "layer")
    spread = np.eye(8) - (1 / 8 if kind == "layer" else 0)  # the projection onto the sphere's space
    np.testing.assert_allclose(unit.T @ unit / len(unit), spread / D, atol=0.01)
    first = np.abs(unit @ np.array([1, -1, *np.zeros(6)])) / 2**0.5
    assert scipy.stats.kstest(first**2, scipy.stats.beta(1 / 2, (D - 1) / 2).cdf).pvalue > 0.01


def test_a_null_stands_behind_the_neurons_with_its_direction() -> None:
    lm = random_model("layer")
    seen = readout(lm.config, lm.params)
    nulls = draw_nulls(lm.config, np.asarray(seen.w_out), 200, seed=0)
    both, N = with_nulls(seen, nulls), lm.config.d_mlp
    np.testing.assert_array_equal(both.w_out[:N], seen.w_out)
    np.testing.assert_array_equal(both.w_out[N:], nulls.directions)
    np.testing.assert_array_equal(both.w_mlp[N:], seen.w_mlp[nulls.neurons])


def test_a_layer_that_writes_nothing_has_no_nulls() -> None:
    assert len(draw_nulls(random_model("rms").config, np.zeros((5, 32)), 200, seed=0).neurons) == 0


@given(shares, shares)
def test_p_counts_the_nulls_that_reach_a_value(values: np.ndarray, nulls: np.ndarray) -> None:
    expected = [(1 + sum(null >= value for null in nulls)) / (1 + len(nulls)) for value in values]
    np.testing.assert_allclose(p_values(values, nulls), expected)


def test_what_is_not_known_has_no_p() -> None:
    assert np.isnan(p_values(np.array([0.5]), np.array([]))).all()
    found = p_values(np.array([0.5, np.nan]), np.array([0.4, np.nan, 0.6]))
    np.testing.assert_allclose(found, [2 / 3, np.nan])


@given(npst.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)))
def test_q_is_that_of_benjamini_and_hochberg(p: np.ndarray) -> None:
    np.testing.assert_allclose(q_values(p), scipy.stats.false_discovery_control(p, method="bh"))
    with_gaps = np.insert(p, [0, len(p)], np.nan)
    np.testing.assert_allclose(q_values(with_gaps), [np.nan, *q_values(p), np.nan])


@pytest.mark.parametrize("tail", [scipy.stats.norm(), scipy.stats.expon(), scipy.stats.t(8)], ids=lambda x: x.dist.name)
def test_the_tail_gives_about_the_right_p_far_beyond_the_nulls(tail: scipy.stats.rv_continuous) -> None:
    """At the value that one in 10,000 nulls reaches, of which 200 tell nothing by counting."""
    rng = np.random.default_rng(2)
    at = tail.isf([1e-4])
    found = np.array([tail_p_values(at, tail.rvs(200, random_state=rng))[0] for _ in range(300)])
    assert p_values(at, tail.rvs(200, random_state=rng))[0] > 40e-4
    assert 0.3e-4 < np.exp(np.log(found).mean()) < 30e-4  # light tails are taken to be heavier than they are
    assert np.quantile(found, 0.05) > 0.02e-4


def test_where_nulls_abound_they_are_counted() -> None:
    rng = np.random.default_rng(3)
    nulls = rng.standard_normal(400)
    reached = np.sort(nulls)[-COUNTED - 200 : -COUNTED + 1]
    np.testing.assert_array_equal(tail_p_values(reached, nulls), p_values(reached, nulls))
    beyond = np.linspace(nulls.max(), nulls.max() + 5, 20)
    assert (np.diff(tail_p_values(beyond, nulls)) < 0).all()
    assert tail_p_values(beyond[-1:], nulls)[0] < 1e-5
    assert tail_p_values(np.array([1e9]), nulls)[0] == LEAST_P
    equal = np.full(400, 0.3)
    np.testing.assert_array_equal(tail_p_values(np.array([0.2, 0.3, 0.4]), equal), [1, 1, 1 / 401])


def test_p_of_rho_is_the_share_of_random_directions_with_a_rho_as_large() -> None:
    rng = np.random.default_rng(4)
    drawn = rng.standard_normal((200_000, 12))
    found = np.linalg.norm(drawn[:, :3], axis=1) / np.linalg.norm(drawn, axis=1)
    for rho in (0.1, 0.5, 0.8):
        assert rho_p_values(np.array([rho]), 3, 12)[0] == pytest.approx((found >= rho).mean(), abs=0.005)
    np.testing.assert_array_equal(rho_p_values(np.array([0.0, 1.0, np.nan]), 3, 12), [1, 0, np.nan])
    np.testing.assert_array_equal(rho_p_values(np.array([1.0, np.nan]), 12, 12), [1, np.nan])


def test_robust_z_is_that_of_a_gaussian_whatever_a_few_values_are() -> None:
    values = np.random.default_rng(5).normal(3, 2, 5000)
    values[:50] = 1000
    z = robust_z(values)
    np.testing.assert_allclose(z[50:], (values[50:] - 3) / 2, atol=0.25)
    assert z[0] > 400
    assert np.isnan(robust_z(np.array([1.0, 1, 1, 2]))).all()
    assert np.isnan(robust_z(np.full(3, np.nan))).all()

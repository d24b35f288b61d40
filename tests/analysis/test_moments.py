"""Moments of activations from sums, against numpy and scipy. Letters: s window, t position, l layer, n neuron."""

import numpy as np
import pytest
import scipy.stats

from jaxconf.analysis.moments import Moments, activation_statistics


@pytest.mark.parametrize("away", [0.0, 0.3])
def test_statistics_are_those_of_numpy(away: float) -> None:
    """Whatever shift the sums are taken from; positions count in some windows, and one in none."""
    rng = np.random.default_rng(0)
    h = rng.gamma(2, size=(2, 30, 6, 5)) + rng.standard_normal((6, 5)) + 3  # l s t n
    h[1, ..., 4] = 2.5  # a constant neuron
    counted = rng.random((30, 6)) < 0.7
    counted[:, 2] = False
    shift = h[:, counted].mean(1) + away
    distance = np.where(counted[..., None], h - shift[:, None, None], 0)
    powers = np.stack([(distance**power).sum((1, 2)) for power in (2, 3, 4)])
    found = activation_statistics(Moments(distance.sum(1), powers), shift, counted.sum(0))  # type: ignore[arg-type]
    seen = h[:, counted]  # l p n
    assert np.isnan([found[name][1, 4] for name in ("activation_skew", "activation_kurtosis", "position_r2")]).all()
    assert found["activation_std"][1, 4] == pytest.approx(0, abs=1e-6)
    at = np.broadcast_to(np.arange(6), counted.shape)[counted]
    between = np.stack([seen[:, at == t].mean(1) for t in at], 1).var(1)
    varies = np.ones((2, 5), bool)
    varies[1, 4] = False
    expected = {
        "activation_mean": seen.mean(1),
        "activation_std": seen.std(1),
        "activation_skew": scipy.stats.skew(seen[..., varies.all(0)], axis=1),
        "activation_kurtosis": scipy.stats.kurtosis(seen[..., varies.all(0)], axis=1, fisher=False),
        "position_r2": (between / np.where(varies, seen.var(1), 1)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name][:, :4], values[:, :4], rtol=1e-7, atol=1e-9, err_msg=name)

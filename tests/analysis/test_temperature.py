"""The temperature that mimics a change: planted ones are found, and the share explained is that of the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconf.analysis.temperature import best_temperature, change, unchanged


def log_probabilities(seed: int = 0) -> np.ndarray:
    return np.asarray(jax.nn.log_softmax(3 * np.random.default_rng(seed).standard_normal((30, 200)).astype(np.float32)))


@pytest.mark.parametrize("temperature", [0.2, 0.7, 0.99, 1.001, 1.5, 6.0])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    lp = log_probabilities()
    found, explained = best_temperature(unchanged(lp), change(lp, jax.nn.log_softmax(lp / temperature)))
    assert found == pytest.approx(temperature, rel=1e-3 * abs(temperature - 1) + 1e-5)
    assert explained == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("temperature", [0.6, 1.3])
def test_the_share_is_that_of_the_definition(temperature: float) -> None:
    """A temperature and a change of another kind together: against the sums of the definition at many temperatures."""
    lp = log_probabilities(1)
    other = 0.3 * np.random.default_rng(2).standard_normal(lp.shape)
    after = np.asarray(jax.nn.log_softmax(lp / temperature + other))
    P, delta = np.exp(lp.astype(np.float64)), after.astype(np.float64) - lp

    def left(T: float) -> float:
        mimicked = lp / T
        mimicked = mimicked - np.log(np.exp(mimicked).sum(1, keepdims=True)) - lp
        return (P * (delta - mimicked) ** 2).sum(1).mean()

    grid = np.linspace(temperature - 0.2, temperature + 0.2, 4001)
    lefts = [left(T) for T in grid]
    found, explained = best_temperature(unchanged(lp), change(lp, jnp.asarray(after)))
    assert found == pytest.approx(grid[np.argmin(lefts)], abs=1e-3)
    assert explained == pytest.approx(1 - min(lefts) / left(1.0), abs=1e-3)
    assert 0.2 < explained < 0.99


def test_what_is_no_temperature_explains_nothing_and_no_change_has_no_share() -> None:
    lp = log_probabilities(3)
    temperature, explained = best_temperature(unchanged(lp), change(lp, lp))
    assert temperature == 1
    assert np.isnan(explained)
    P, c = np.exp(lp), lp - (np.exp(lp) * lp).sum(1, keepdims=True)
    noise = 0.01 * np.random.default_rng(4).standard_normal(lp.shape)
    noise -= c * ((P * noise * c).sum(1) / (P * c * c).sum(1))[:, None]  # across the direction of temperature
    after = np.asarray(jax.nn.log_softmax(lp + noise))
    assert best_temperature(unchanged(lp), change(lp, after))[1] < 0.02

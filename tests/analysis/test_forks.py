"""Activations at forks beside all shifts of the forks. Letters: t position, n neuron, r draw."""

import numpy as np
import pytest

from jaxconf.analysis.forks import _shifted_sums, at_forks, drawn_differences, forks_of


def smooth(rng: np.random.Generator, *shape: int, width: int = 15) -> np.ndarray:
    """Noise whose neighbours along the first axis are alike."""
    white = rng.standard_normal((shape[0] + width - 1, *shape[1:]))
    return np.lib.stride_tricks.sliding_window_view(white, width, axis=0).mean(-1)


def test_forks_are_above_the_quantile() -> None:
    entropy = np.random.default_rng(0).permutation(200).astype(float)
    assert forks_of(entropy).sum() == 20
    assert entropy[forks_of(entropy)].min() > entropy[~forks_of(entropy)].max()


def test_sums_at_every_shift() -> None:
    rng = np.random.default_rng(1)
    for length in (1, 6, 7):
        h, forks = rng.standard_normal((length, 3)), rng.random(length) < 0.5
        expected = [h[np.roll(forks, shift)].sum(0) for shift in range(length)]
        np.testing.assert_allclose(_shifted_sums(h, forks), expected, atol=1e-12)


def test_the_null_is_of_shifts_within_documents() -> None:
    rng = np.random.default_rng(2)
    documents = np.repeat([5, 2], [4, 3])
    h, forks = rng.standard_normal((7, 2)), np.array([1, 0, 0, 1, 0, 1, 0], bool)
    found = at_forks(h, forks, documents, 40_000, 0)
    np.testing.assert_allclose(found.at, h[forks].mean(0))
    np.testing.assert_allclose(found.elsewhere, h[~forks].mean(0))
    np.testing.assert_allclose(found.difference, found.at - found.elsewhere)
    every = []
    for one in range(4):
        for other in range(3):
            moved = np.concatenate([np.roll(forks[:4], one), np.roll(forks[4:], other)])
            every.append(h[moved].mean(0) - h[~moved].mean(0))
    every = np.array(every)
    np.testing.assert_allclose(found.null_mean, every.mean(0), atol=0.02)
    for n in range(2):
        tails = [(sign * every[:, n] >= sign * found.difference[n] - 1e-9).mean() for sign in (1, -1)]
        assert found.p[n] == pytest.approx(min(1, 2 * min(tails)), abs=0.02)
        assert found.null_lo[n] == pytest.approx(every[:, n].min())  # each of 12 shifts has more than 2.5%
        assert found.null_hi[n] == pytest.approx(every[:, n].max())


def test_neurons_that_follow_the_entropy_are_told_from_those_that_are_merely_smooth() -> None:
    rng = np.random.default_rng(3)
    entropy, h = smooth(rng, 1200), smooth(rng, 1200, 200)
    documents, forks = np.repeat(np.arange(6), 200), forks_of(entropy)
    p = at_forks(h, forks, documents, 999, 0).p
    assert (p <= 0.05).mean() < 0.1  # about 5%
    # Shuffled positions, which ignore that neighbours are alike, would name several times as many.
    shuffled = np.array([rng.permutation(forks) for _ in range(300)])
    null = shuffled @ h / forks.sum() - ~shuffled @ h / (~forks).sum()
    difference = h[forks].mean(0) - h[~forks].mean(0)
    assert (np.abs(difference) > np.quantile(np.abs(null), 0.95, axis=0)).mean() > 0.2
    planted = at_forks(np.stack([entropy, -entropy], 1) + 0.1 * h[:, :2], forks, documents, 999, 0)
    assert (planted.p <= 0.002).all()
    assert planted.difference[0] > 0 > planted.difference[1]


def test_without_forks_or_draws() -> None:
    h, documents = np.ones((4, 2)), np.zeros(4, int)
    assert np.isnan(at_forks(h, np.zeros(4, bool), documents, 10, 0).p).all()
    constant = at_forks(h, np.arange(4) < 1, documents, 10, 0)
    assert (constant.p == 1).all()  # every shift gives the same


def test_intervals_draw_units_again() -> None:
    rng = np.random.default_rng(4)
    h, forks, units = rng.standard_normal((60, 2)), rng.random(60) < 0.3, np.repeat(np.arange(6), 10)
    weights = rng.multinomial(6, np.full(6, 1 / 6), 200)
    low, high = drawn_differences(h, forks, units, weights)
    drawn = []
    for times in weights:
        at = np.concatenate([np.flatnonzero(units == u) for u in np.repeat(np.arange(6), times)])
        drawn.append(h[at][forks[at]].mean(0) - h[at][~forks[at]].mean(0))
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.025, 0.975], axis=0))
    assert np.isnan(drawn_differences(h, forks, units, weights[:0])).all()

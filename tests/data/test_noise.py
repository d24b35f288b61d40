"""The noise world: its table, and its best prediction where it can be written down."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from world_text import ids_of, world

CHAINS = pytest.mark.parametrize("chain", ["permutation", "bigram"])


def entropy(p: np.ndarray) -> np.ndarray:
    """The entropy of distributions [... v], in nats."""
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def stationary(rows: np.ndarray) -> np.ndarray:
    """How often each word occurs in a chain with these rows of probabilities [w w]."""
    system = np.vstack([rows.T - np.eye(len(rows)), np.ones(len(rows))])
    return np.linalg.lstsq(system, np.append(np.zeros(len(rows)), 1), rcond=None)[0]


@CHAINS
def test_the_seed_of_the_world_chooses_the_table(chain: str) -> None:
    table, other = (world(f"noise:words=16,chain={chain},world={seed}").table for seed in (0, 1))
    np.testing.assert_allclose(table.sum(1), 1)
    assert (table != other).any()
    np.testing.assert_array_equal(world(f"noise:words=16,chain={chain},seed=1").table, table)
    if chain == "permutation":
        assert sorted(table.argmax(1)) == list(range(16))
        assert set(table.ravel()) == {0, 1}
    else:
        flat = world("noise:words=16,chain=bigram,sharpness=0").table
        np.testing.assert_allclose(flat, 1 / 16)


def test_in_a_cycle_each_word_is_followed_by_the_next() -> None:
    np.testing.assert_array_equal(world("noise:words=5,levels=2,chain=cycle").table.argmax(1), [1, 2, 3, 4, 0])


@CHAINS
def test_one_level_without_restart_has_the_entropy_of_its_chain(chain: str, tmp_path: Path) -> None:
    e = 0.3
    of = world(f"noise:words=12,levels=1,least={e},most={e},restart=false,signal=inferred,chain={chain},size=40000")
    rows = (1 - e) * of.table + e * of.background
    often = stationary(rows)
    best = of.optimum(np.arange(12)[:, None])
    np.testing.assert_allclose(np.exp(best.log_probs[:, 0]), rows, rtol=1e-13)
    assert often @ entropy(np.exp(best.log_probs[:, 0])) == pytest.approx(often @ entropy(rows), abs=1e-12)
    windows = ids_of(of, tmp_path)[:40000].reshape(400, 100)
    found = of.optimum(windows)
    losses = -np.take_along_axis(found.log_probs[:, :-1], windows[:, 1:, None], 2)[..., 0].mean(1)
    assert abs(losses.mean() - often @ entropy(rows)) < 3 * losses.std(ddof=1) / len(losses) ** 0.5
    np.testing.assert_allclose(found.noise, e)
    np.testing.assert_allclose(found.words, 1)


def test_a_permutation_with_a_uniform_background_has_one_entropy_everywhere() -> None:
    of = world("noise:words=8,levels=1,least=0.4,most=0.4,restart=false,signal=inferred,zipf=0")
    right, wrong = 0.6 + 0.4 / 8, 0.4 / 8
    p = np.exp(of.optimum(np.arange(8)[:, None]).log_probs)
    np.testing.assert_allclose(entropy(p), -right * np.log(right) - 7 * wrong * np.log(wrong), rtol=1e-13)


@CHAINS
def test_behind_a_marker_the_best_prediction_is_the_row_with_its_noise(chain: str) -> None:
    of = world(f"noise:words=10,levels=3,stretch=4,document=5,lengths=fixed,chain={chain}")
    end, table, b = len(of.tokens) - 1, of.table, of.background
    for level, e in enumerate(of.noise):
        likely = [int(table[0].argmax())]
        for _ in range(3):
            likely.append(int(table[likely[-1]].argmax()))
        window = np.array([[end, 10 + level, *likely, end]])
        best = of.optimum(window)
        p = np.exp(best.log_probs[0])
        for t in (2, 3, 4):
            np.testing.assert_allclose(p[t, :10], (1 - e) * table[window[0, t]] + e * b, rtol=1e-14)
            assert (p[t, 10:] == 0).all()
        np.testing.assert_allclose(best.noise[0, 1:5], e)
        np.testing.assert_allclose(p[5], [0] * 10 + [0.8 / 3] * 3 + [0.2])
        np.testing.assert_allclose(p[6], [0] * 10 + [1 / 3] * 3 + [0])
        assert np.isnan(best.noise[0, 5:]).all()
        # A document that is known to begin has no word before it: its first word is from the background.
        begun = of.optimum(np.array([[end, end, 10 + level]])).log_probs[0, 2, :10]
        np.testing.assert_allclose(np.exp(begun), b, rtol=1e-14)


def test_marker_and_last_word_together_tell_which_of_two_backgrounds_is_behind_it() -> None:
    of = world("noise:words=10,levels=3,stretch=4,zipf=1.5,backgrounds=two")
    end, zipf = len(of.tokens) - 1, np.arange(1, 11) ** -1.5
    assert set(of.kinds) == {0, 1}
    for level, word in itertools.product(range(3), range(10)):
        e = of.noise[level]
        background = zipf / zipf.sum() if (level + of.kinds[word]) % 2 else np.full(10, 0.1)
        p = np.exp(of.optimum(np.array([[end, 10 + level, word]])).log_probs[0, 2, :10])
        np.testing.assert_allclose(p, 0.75 * ((1 - e) * of.table[word] + e * background), rtol=1e-14)
    # A document that is known to begin has no word before it: its first word is from Zipf's background.
    begun = of.optimum(np.array([[end, end, 10]])).log_probs[0, 2, :10]
    np.testing.assert_allclose(np.exp(begun), zipf / zipf.sum(), rtol=1e-14)


def test_an_inferred_level_follows_bayes() -> None:
    of = world("noise:words=6,levels=3,stretch=5,lengths=fixed,signal=inferred,zipf=0")
    last, end = 0, len(of.tokens) - 1
    right = int(of.table[last].argmax())
    wrong = (right + 1) % 6
    for word, likely in ((right, 1 - of.noise + of.noise / 6), (wrong, of.noise / 6)):
        # The word before the separator is known, so the first word behind it tells of the level.
        best = of.optimum(np.array([[end, 6, 1, 2, 3, 4, last, 6, word]]))
        assert best.noise[0, 7] == pytest.approx(of.noise.mean())
        assert best.noise[0, 8] == pytest.approx((likely * of.noise).sum() / likely.sum())


def test_a_stretch_of_random_length_may_end_behind_each_word() -> None:
    of = world("noise:words=10,levels=3,stretch=4,document=5")
    end, table, b = len(of.tokens) - 1, of.table, of.background
    last = int(table[0].argmax())
    p = np.exp(of.optimum(np.array([[end, 11, 0, last]])).log_probs[0])
    for t, word in ((2, 0), (3, last)):
        e = of.noise[1]
        np.testing.assert_allclose(p[t, :10], 0.75 * ((1 - e) * table[word] + e * b), rtol=1e-14)
        np.testing.assert_allclose(p[t, 10:], [0.25 * 0.8 / 3] * 3 + [0.25 * 0.2], rtol=1e-14)
    assert (p[1, 10:] == 0).all()  # no stretch is empty

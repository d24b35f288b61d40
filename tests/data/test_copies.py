"""The copies world: its text, and its best prediction where it can be written down."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from world_text import ids_of, world


def test_a_document_is_pairs_of_a_stretch_and_its_copy(tmp_path: Path) -> None:
    of = world("copies:words=20,levels=2,least=0.1,most=0.6,stretch=5,document=4,size=40000,zipf=0")
    pairs = []
    for document in of.documents():
        found = np.array(document.split()).reshape(-1, 12)
        assert (found[:, 0] == "n").all()
        pairs.append(found)
    counts, pairs = np.array([len(found) for found in pairs]), np.concatenate(pairs)
    assert abs(counts.mean() - 4) < 4 * counts.std() / len(counts) ** 0.5
    assert set(pairs[:, 6]) == {"e0", "e1"}
    for level, e in (("e0", 0.1), ("e1", 0.6)):
        right = (pairs[:, 1:6] == pairs[:, 7:])[pairs[:, 6] == level]
        assert stats.binomtest(int(right.sum()), right.size, 1 - e + e / 20).pvalue > 1e-3
    words = np.unique(pairs[:, 1:6], return_counts=True)[1]
    assert stats.chisquare(words).pvalue > 1e-3


def test_behind_a_marker_a_copied_word_is_hedged_by_its_noise() -> None:
    of = world("copies:words=6,levels=3,stretch=3,document=5")
    end, b = len(of.tokens) - 1, of.background
    for level, e in enumerate(of.noise):
        window = np.array([[end, 6, 2, 0, 5, 7 + level, 2, 1, 5, end]])
        best = of.optimum(window)
        p = np.exp(best.log_probs[0])
        for t in (1, 2, 3):
            np.testing.assert_allclose(p[t], [*b, *[0] * 5], rtol=1e-14)
        np.testing.assert_allclose(p[4], [0] * 7 + [1 / 3] * 3 + [0])
        for t, original in ((5, 2), (6, 0), (7, 5)):
            np.testing.assert_allclose(p[t, :6], (1 - e) * np.eye(6)[original] + e * b, rtol=1e-14)
        np.testing.assert_allclose(p[8], [0] * 6 + [0.8, 0, 0, 0, 0.2])
        np.testing.assert_array_equal(p[9], np.eye(11)[6])
        np.testing.assert_allclose(best.noise[0], [1, 1, 1, 1, np.nan, e, e, e, np.nan, np.nan])
        np.testing.assert_allclose(best.words[0, 1:], [1, 1, 1, 0, 1, 1, 1, 0, 0])


def test_a_copy_of_words_before_the_window_is_unknown() -> None:
    """Two of the three words are in the window: the first word of the copy is as good as drawn from the background."""
    of = world("copies:words=6,levels=3,stretch=3")
    window = np.array([[len(of.tokens) - 1, 0, 5, 7, 4, 0, 5]])
    best, e = of.optimum(window), of.noise[0]
    np.testing.assert_allclose(best.noise[0], [1, 1, 1, 1, e, e, np.nan])
    np.testing.assert_allclose(np.exp(best.log_probs[0, 3, :6]), of.background, rtol=1e-14)
    for t, original in ((4, 0), (5, 5)):
        copied = (1 - e) * np.eye(6)[original] + e * of.background
        np.testing.assert_allclose(np.exp(best.log_probs[0, t, :6]), copied, rtol=1e-14)


def test_before_the_first_separator_only_the_number_of_words_tells() -> None:
    """Of the places in both stretches, those are equally likely that have had so many words; half a document ends."""
    of = world("copies:words=2,levels=1,stretch=2,document=2,signal=inferred")
    p = np.exp(of.optimum(np.array([[4, 0, 1]])).log_probs[0])
    n, e, end = p[:, 2], p[:, 3], p[:, 4]
    np.testing.assert_allclose(p[:, :2].sum(1), [4 / 6.5, 2 / 4, 0])
    np.testing.assert_allclose(e, [1 / 6.5, 1 / 4, 1 / 2])
    np.testing.assert_allclose(n, [1 / 6.5, 0.5 / 4, 0.5 / 2])
    np.testing.assert_allclose(end, [0.5 / 6.5, 0.5 / 4, 0.5 / 2])


def test_an_inferred_level_follows_bayes() -> None:
    of = world("copies:words=6,levels=3,stretch=3,signal=inferred,zipf=0")
    right, wrong = 1 - of.noise + of.noise / 6, of.noise / 6
    best = of.optimum(np.array([[8, 6, 2, 0, 5, 7, 2, 1, 5, 6, 0, 1, 2, 7]]))
    for t, likely in ((5, 1), (6, right), (7, right * wrong), (13, 1)):
        expected = np.broadcast_to(likely, 3)
        assert best.noise[0, t] == pytest.approx((expected * of.noise).sum() / expected.sum())


def test_the_loss_of_the_text_is_the_entropy_of_the_best_prediction(tmp_path: Path) -> None:
    of = world("copies:words=16,levels=4,stretch=5,size=40000,signal=inferred")
    ids = ids_of(of, tmp_path)
    windows = ids[: len(ids) // 120 * 120].reshape(-1, 120)
    log_probs = of.optimum(windows).log_probs[:, :-1]
    excess = -np.take_along_axis(log_probs, windows[:, 1:, None], 2)[..., 0]
    excess += (np.exp(log_probs) * np.where(np.isfinite(log_probs), log_probs, 0)).sum(2)
    assert abs(excess.mean()) < 3 * excess.mean(1).std(ddof=1) / len(excess) ** 0.5

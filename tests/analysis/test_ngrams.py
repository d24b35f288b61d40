"""N-grams that occur exactly twice, against counting them one by one, on windows with few tokens or planted n-grams."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxconf.analysis.ngrams import repeated_once


def one_by_one(window: list[int], n: int, excluded: set[int]) -> tuple[int, int] | None:
    grams = [tuple(window[i : i + n]) for i in range(len(window) - n + 1)]
    counts = Counter(grams)
    for last, gram in enumerate(grams):
        first = grams.index(gram)
        if (
            counts[gram] == 2
            and first < last
            and len(set(gram)) == n
            and not excluded & set(gram)
            and last + n < len(window)
        ):
            return first + n - 1, last + n - 1
    return None


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(3, 9), st.integers(4, 40))
def test_as_counted_one_by_one(seed: int, n: int, vocabulary: int, length: int) -> None:
    windows = np.random.default_rng(seed).integers(0, vocabulary, (8, length))
    expected = [(s, *pair) for s, window in enumerate(windows.tolist()) if (pair := one_by_one(window, n, {0}))]
    np.testing.assert_array_equal(repeated_once(windows, n, {0}), np.reshape(expected, (-1, 3)))


def test_planted_repeats_are_found_among_a_million_tokens() -> None:
    rng = np.random.default_rng(0)
    windows = rng.integers(1, 50_000, (4096, 256))
    planted = np.sort(rng.choice(4096, 300, replace=False))
    for s in planted:
        windows[s, 150:156] = windows[s, 20:26]
    found = repeated_once(windows, 6, {0})
    np.testing.assert_array_equal(found, np.stack([planted, np.full(300, 25), np.full(300, 155)], 1))


def test_three_occurrences_overlaps_and_the_end_of_a_window_do_not_count() -> None:
    gram = [1, 2, 3]
    assert len(repeated_once(np.array([[*gram, 9, *gram, 8, *gram, 7]]), 3, set())) == 0
    assert len(repeated_once(np.array([[*gram, 9, *gram]]), 3, set())) == 0
    assert repeated_once(np.array([[*gram, 9, *gram, 8]]), 3, set()).tolist() == [[0, 2, 6]]
    assert len(repeated_once(np.array([[5, 5, 5, 5, 5, 5, 5]]), 3, set())) == 0
    assert len(repeated_once(np.array([[*gram, 9, *gram, 8]]), 3, {2})) == 0
    assert len(repeated_once(np.array([gram]), 3, set())) == 0

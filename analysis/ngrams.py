"""Repetition that occurs naturally in text. Letters: s window, t position in it, m pair of occurrences."""

from collections.abc import Collection

import numpy as np


def repeated_once(windows: np.ndarray, n: int, excluded: Collection[int]) -> np.ndarray:
    """The windows, of `windows` [s t], in which an n-gram occurs exactly twice, with the places where it does.

    int [m 3]: the window, and the position of the n-gram's last token in its first and in its second occurrence. An
    n-gram counts if its tokens all differ and none is in `excluded`, and if a token follows its second occurrence in
    the window. If a window has several pairs, the one whose second occurrence ends first is taken: at the last n-gram
    of a longer repeat, the repeat would always break off.
    """
    S, T = windows.shape
    if 2 * n + 1 > T:
        return np.zeros((0, 3), np.int64)
    grams = np.lib.stride_tricks.sliding_window_view(windows, n, axis=1)  # s starts n
    good = ~np.isin(windows, list(excluded))
    counted = np.lib.stride_tricks.sliding_window_view(good, n, axis=1).all(-1)
    for gap in range(1, n):
        same = windows[:, gap:] == windows[:, :-gap]
        counted &= ~np.lib.stride_tricks.sliding_window_view(same, n - gap, axis=1).any(-1)
    code = np.zeros(counted.shape, np.uint64)
    for i in range(n):  # wraps around; equal codes are compared token by token below
        code = code * np.uint64(0x9E3779B97F4A7C15) + grams[:, :, i].astype(np.uint64) + np.uint64(1)
    order = np.argsort(code, axis=1, kind="stable")
    ranked, at_rank = np.take_along_axis(code, order, 1), np.take_along_axis(counted, order, 1)
    edge = np.ones((S, 1), bool)
    as_before = np.hstack([~edge, ranked[:, 1:] == ranked[:, :-1]])
    as_after = np.hstack([as_before[:, 1:], ~edge])
    second = as_before & ~as_after & at_rank
    second[:, 1:] &= ~as_before[:, :-1]  # no third occurrence
    window, rank = np.nonzero(second)
    first, last = order[window, rank - 1], order[window, rank]  # where they start
    truly = (grams[window, first] == grams[window, last]).all(-1) & (last + n < T)
    found = np.stack([window, first + n - 1, last + n - 1], 1)[truly]
    found = found[np.lexsort((found[:, 2], found[:, 0]))]
    return found[np.unique(found[:, 0], return_index=True)[1]]

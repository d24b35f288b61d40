"""Changes are summed over real windows and counted positions. Letters: b window, t position, c neuron set."""

import numpy as np

from jaxconf.analysis.clip_ablation import summed


def test_sums_leave_out_what_is_not_real_or_not_counted() -> None:
    rng = np.random.default_rng(0)
    change = rng.standard_normal((3, 4, 5)).astype(np.float32)
    real, counted = np.array([True, True, False, True]), rng.random((4, 5)) < 0.5
    by_position, by_window = summed(change, real, counted)
    assert by_position.dtype == by_window.dtype == np.float64
    for c in range(3):
        for t in range(5):
            np.testing.assert_allclose(by_position[c, t], sum(float(change[c, b, t]) for b in (0, 1, 3)))
        for row, b in enumerate((0, 1, 3)):
            expected = sum(float(change[c, b, t]) for t in range(5) if counted[b, t])
            np.testing.assert_allclose(by_window[row, c], expected)

"""Activations are set to means, and changes are summed over real windows and counted positions.

Letters: b window, t position, n neuron, c neuron set.
"""

import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.mean_ablation import clipped_at, set_to, summed


def test_activations_are_set_to_means_everywhere_or_beyond_them() -> None:
    rng = np.random.default_rng(0)
    h, mean, rises = rng.standard_normal((4, 5, 3)).astype(np.float32), rng.standard_normal(3), [True, False, True]
    full = set_to(mean).ablated(jnp.asarray(h))
    clip = clipped_at(mean, np.array(rises)).ablated(jnp.asarray(h))
    assert full.shape == clip.shape == h.shape
    assert full.dtype == clip.dtype == jnp.float32
    for n in range(3):
        np.testing.assert_array_equal(full[..., n], np.float32(mean[n]))
        beyond = h[..., n] > mean[n] if rises[n] else h[..., n] < mean[n]
        np.testing.assert_array_equal(clip[..., n], np.where(beyond, np.float32(mean[n]), h[..., n]))
        assert beyond.any()
        assert not beyond.all()


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

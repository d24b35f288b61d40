"""The adaptive engine on SmolLM2's last layer at 64 positions (scripts/record_real_logits.py), as in test_adaptive.

Letters: t position, n neuron, d width, v vocabulary.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import test_adaptive
from test_adaptive import ROUNDING, by_every_token, figures, float32, run, small_blocks

from jaxconf.analysis.ablated_softmax import ablated_softmax
from jaxconf.analysis.softmax_sums import Cells, Rows, Vocabulary

__all__ = ["small_blocks"]

EPS = 1e-5


def recorded() -> tuple[Rows, Cells, np.ndarray, Vocabulary]:
    with np.load(Path(__file__).with_name("real_logits.npz")) as file:
        x, delta, w, W_U, log_f = (file[name].astype(np.float64) for name in ("x", "delta", "w", "W_U", "log_f"))
        target = file["target"]
    W_U -= W_U.mean(1, keepdims=True)
    f = np.exp(log_f) / np.exp(log_f).sum()
    u = (log_f - log_f.mean()) / np.linalg.norm(log_f - log_f.mean())
    moved = (x * x).sum(1)[:, None] + 2 * delta * (x @ w.T) + delta**2 * (w * w).sum(1)
    inv, inv_te = (1 / np.sqrt(y / x.shape[1] + EPS) for y in ((x * x).sum(1), moved))
    A, b = x @ W_U, np.zeros(W_U.shape[1])
    kappa = (A @ u)[:, None] * (inv[:, None] - inv_te) - delta * (w @ W_U @ u) * inv_te
    A, inv, inv_te, write, kappa, W_U, b, u, f, w = map(float32, (A, inv, inv_te, delta, kappa, W_U, b, u, f, w))
    rows = Rows(A, None, inv, jnp.asarray(target), jnp.argmax(A * inv[:, None], 1))
    return rows, Cells(inv_te, None, write, kappa), w, Vocabulary(W_U, b, u, f)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-2])
def test_real_logits_are_within_the_tolerance_and_their_bounds(
    tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recorded()
    monkeypatch.setattr(test_adaptive, "T", len(given[0].A))
    expected, size = by_every_token(*given)
    exact = ablated_softmax(*given)
    sums, certainty = run(*given, tolerance)
    bound, redone = np.asarray(certainty.bound), np.asarray(certainty.redone)
    assert (bound <= tolerance).all()
    assert 0 < redone.mean() < 0.5
    assert np.array_equal(sums.top_changed, exact.top_changed)
    for name, value in figures(sums).items():
        error = np.abs(value - expected[name])
        assert (error <= bound + ROUNDING * size).all(), (name, error.max())

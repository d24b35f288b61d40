"""Scaled activations of neuron sets give what running the edited model gives.

Letters: b window, t position, n neuron, v vocabulary, c neuron set. In nats.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_model, windows_for

from jaxconf.analysis.scaling import scaled, unscaled
from jaxconf.models.sites import Ablate

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("factor", [0.0, 2.5])
def test_scaled_sets_equal_edited_runs(factor: float) -> None:
    lm = random_model("layer")
    tokens, rng = windows_for(lm), np.random.default_rng(0)
    target, sites = np.roll(tokens, -1, 1), {layer: f"blocks.{layer}.mlp.hook_post" for layer in (0, 1)}
    sets = {layer: rng.random((2, lm.config.d_mlp)) < 0.2 for layer in sites}
    before, _ = unscaled(lm.config, lm.params, tokens, tuple(sites))
    predicted, change = scaled(lm.config, lm.params, before, target, sets, jnp.float32(factor))
    plain = lm.apply(tokens, capture=list(sites.values()))
    lp = np.asarray(jax.nn.log_softmax(plain.logits), np.float64)
    np.testing.assert_allclose(before.log_p, lp, atol=1e-5)
    for c in range(2):
        edits = {
            site: Ablate(jnp.asarray(sets[layer][c]), factor * plain.captured[site]) for layer, site in sites.items()
        }
        after = np.asarray(jax.nn.log_softmax(lm.apply(tokens, edits=edits).logits), np.float64)
        P, own = np.exp(after), np.take_along_axis(after, target[..., None], -1)[..., 0]
        right = np.arange(lm.config.vocab_size) == target[..., None]
        np.testing.assert_allclose(predicted.loss[c], -own, atol=1e-4)
        np.testing.assert_allclose(predicted.entropy[c], -(P * after).sum(-1), atol=1e-4)
        np.testing.assert_allclose(predicted.brier[c], ((P - right) ** 2).sum(-1), atol=1e-5)
        np.testing.assert_allclose(predicted.confidence[c], P.max(-1), atol=1e-5)
        np.testing.assert_array_equal(predicted.correct[c], after.argmax(-1) == target)
        delta = after - lp
        np.testing.assert_allclose(change.mean[c], (np.exp(lp) * delta).sum(-1), atol=1e-4)
        np.testing.assert_allclose(change.square[c], (np.exp(lp) * delta**2).sum(-1), atol=1e-3)
    assert np.asarray(change.square).max() > 1e-2

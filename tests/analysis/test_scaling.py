"""Scaled activations of neuron sets give what running the edited model gives.

Letters: b window, t position, n neuron, v vocabulary, c neuron set. In nats.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_model, windows_for

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.rerun import compiled_besides, compiled_reference
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.sites import Ablate

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("layers", [(0, 1), (1,)])  # layers are run again, and the algebra of the last one
@pytest.mark.parametrize("factor", [0.0, 2.5])
@pytest.mark.parametrize("kind", ["layer", "capped"])
def test_scaled_sets_equal_edited_runs(kind: str, factor: float, layers: tuple[int, ...]) -> None:
    lm = random_model(kind)
    tokens, rng = windows_for(lm), np.random.default_rng(0)
    layers = tuple(lm.config.n_layers - 2 + layer for layer in layers)
    target, sites = np.roll(tokens, -1, 1), {layer: f"blocks.{layer}.mlp.hook_post" for layer in layers}
    sets = {layer: rng.random((2, lm.config.d_mlp)) < 0.2 for layer in sites}
    runs = SetRuns(lm, sets, frequency(np.zeros(lm.config.vocab_size)), 2**28)
    entry, _ = runs.entry(tokens, np.arange(tokens.shape[1]))
    scale = {layer: LayerAblation("linear", np.zeros(lm.config.d_mlp, np.float32), factor) for layer in layers}
    reference, _, _ = compiled_reference(lm.config, runs.readout, entry)
    some = runs.some(np.arange(2), scale)
    predicted, change = compiled_besides(lm.config, lm.params, runs.readout, entry, reference, some)
    plain = lm.apply(tokens, capture=list(sites.values()))
    lp = np.asarray(jax.nn.log_softmax(plain.logits), np.float64)
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
        c_lp = lp - (np.exp(lp) * lp).sum(-1, keepdims=True)
        np.testing.assert_allclose(change.along[c], (np.exp(lp) * delta * c_lp).sum(-1), atol=1e-3)
    assert np.asarray(change.square).max() > 1e-2

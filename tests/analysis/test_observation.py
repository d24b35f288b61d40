"""What is observed of a model, and of one whose heads attend to BOS, equals whole runs worked out with numpy.

Letters: b window, t position, l layer, h head, n neuron, c set of heads. Losses and entropies in nats.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_model, windows_for

from jaxconf.analysis.observation import activation_sites, at_bos, entered, observed, observed_totals
from jaxconf.analysis.unembedding import readout
from jaxconf.models.decoder import final_norm_name
from jaxconf.models.sites import Ablate

pytestmark = pytest.mark.usefixtures("compiled_quickly")

LAYERS = (0, 1)


def predictions(logits: Any, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropy and loss [b t]; the last position predicts the first token."""
    lp = np.asarray(logits, np.float64)
    lp = lp - np.logaddexp.reduce(lp, axis=-1, keepdims=True)
    target = np.roll(tokens, -1, 1)
    return -(np.exp(lp) * lp).sum(-1), -np.take_along_axis(lp, target[..., None], -1)[..., 0]


def test_predictions_and_sites_are_those_of_a_run() -> None:
    lm = random_model("layer")
    tokens, sites = windows_for(lm), tuple(activation_sites(LAYERS).values())
    found, captured = observed(lm.config, lm.params, tokens, sites)
    output = lm.apply(tokens, capture=sites)
    entropy, loss = predictions(output.logits, tokens)
    np.testing.assert_allclose(found.entropy, entropy, atol=1e-5)
    np.testing.assert_allclose(found.loss, loss, atol=1e-5)
    np.testing.assert_array_equal(found.top, np.asarray(output.logits).argmax(-1))
    for site in sites:
        np.testing.assert_allclose(captured[site], output.captured[site], atol=1e-6)


def test_totals_are_sums_over_the_real_windows() -> None:
    lm = random_model("layer")
    tokens, scale = windows_for(lm), f"{final_norm_name(lm.config)}.hook_scale"
    sites = activation_sites(LAYERS)
    real = np.float32([1, 0, 1])
    found = observed_totals(lm.config, lm.params, tokens, real, LAYERS)
    output = lm.apply(tokens[[0, 2]], capture=[scale, *sites.values()])
    entropy, loss = predictions(output.logits, tokens[[0, 2]])
    np.testing.assert_allclose(found.entropy, entropy.sum(0), atol=1e-5)
    np.testing.assert_allclose(found.loss, loss.sum(0), atol=1e-5)
    np.testing.assert_allclose(found.scale, np.asarray(output.captured[scale])[..., 0].sum(0), rtol=1e-5)
    for layer, site in sites.items():
        np.testing.assert_allclose(found.activations[layer], np.asarray(output.captured[site]).sum(0), atol=1e-5)


@pytest.mark.parametrize("edited", [(0, 1), (1,)])
def test_sets_of_heads_that_attend_to_bos_are_edited_patterns(edited: tuple[int, ...]) -> None:
    lm = random_model("layer")
    tokens, sites = windows_for(lm), activation_sites(LAYERS)
    T, n_heads = tokens.shape[1], lm.config.n_heads
    sets = np.zeros((3, lm.config.n_layers, n_heads), bool)
    sets[1, edited[0], 1] = sets[2, 0, 0] = sets[2, 1] = True
    sets[:, np.isin(np.arange(lm.config.n_layers), edited, invert=True)] = False
    positions, neurons = np.arange(1, T, 2), {0: np.array([3]), 1: np.array([0, 7])}
    how = lm.config, lm.params, readout(lm.config, lm.params)
    seen, before = entered(*how, tokens, positions, neurons, edited)
    found, activations = at_bos(*how, seen, positions, neurons, edited, sets)
    for c, heads in enumerate(sets):
        of_bos = jnp.asarray(np.arange(T) == 0, jnp.float32)
        patterns = {
            f"blocks.{layer}.attn.hook_pattern": Ablate(jnp.asarray(heads[layer][:, None, None]), of_bos)
            for layer in range(lm.config.n_layers)
        }
        output = lm.apply(tokens, edits=patterns, capture=list(sites.values()))
        entropy, loss = predictions(output.logits, tokens)
        np.testing.assert_allclose(found.entropy[c], entropy[:, positions], atol=1e-5)
        np.testing.assert_allclose(found.loss[c], loss[:, positions], atol=1e-5)
        for layer, site in sites.items():
            expected = np.asarray(output.captured[site])[:, positions][..., neurons[layer]]
            np.testing.assert_allclose(activations[layer][c], expected, atol=1e-5)
        if not heads.any():
            np.testing.assert_allclose(before.entropy, found.entropy[c], atol=1e-5)
            np.testing.assert_allclose(before.loss, found.loss[c], atol=1e-5)
    assert np.abs(found.loss[1:] - found.loss[0]).max() > 1e-3

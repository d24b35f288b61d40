"""Directions that make heads attend to BOS: against adding vectors to the stream. Ablations: against the edited model.

Letters: l layer, n neuron, h head, d width.
"""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import marked
from random_models import random_model

from jaxconf.analysis.bos_attention import ablated_attention, attention_change, bos_directions, most_moved_head
from jaxconf.models.sites import Ablate, Add

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("kind", marked(["gemma2", "layer", "gpt2"], quick=["gemma2"]))
def test_attention_to_bos_changes_as_its_direction_says(kind: str) -> None:
    """Against adding a vector to the stream; gemma2 has windows, soft caps and norms on both sides."""
    lm = random_model(kind)
    tokens = np.random.default_rng(1).integers(1, lm.config.vocab_size, (3, 24))
    tokens[:, 0] = 0
    directions = bos_directions(lm.config, lm.params, tokens)
    chex.assert_shape(directions, (lm.config.n_layers, lm.config.n_heads, lm.config.d_model))
    L, d = lm.config.n_layers, lm.config.d_model
    patterns = [f"blocks.{layer}.attn.hook_pattern" for layer in range(L)]

    def attention(vectors: np.ndarray) -> np.ndarray:
        """Every head's, [l h], where the vectors [l d] are added before their layers."""
        later = (np.arange(24) > 0)[:, None]
        edits = {
            f"blocks.{layer}.hook_resid_pre": Add(jnp.asarray(later * v, jnp.float32))
            for layer, v in enumerate(vectors)
        }
        captured = lm.apply(tokens, edits=edits, capture=patterns).captured
        return np.stack([np.asarray(captured[site], np.float64)[:, :, 1:, 0].mean((0, 2)) for site in patterns])

    for layer in range(L):
        for vector in np.random.default_rng(layer).standard_normal((3, d)):
            step = 0.002 * vector * (np.arange(L) == layer)[:, None]
            slope = (attention(step) - attention(-step))[layer] / 0.004
            np.testing.assert_allclose(slope, np.asarray(directions[layer]) @ vector, atol=1e-3, rtol=1e-2)
        assert np.linalg.norm(directions[layer], axis=-1).max() > 1e-2


def test_the_head_that_is_moved_most_is_that_of_trying_each() -> None:
    rng = np.random.default_rng(0)
    writes, directions = rng.standard_normal((7, 5)), rng.standard_normal((6, 5)).astype(np.float32)
    writes[3] = 0
    found = most_moved_head(writes, directions)
    for n, w in enumerate(writes):
        moved = [float(w @ g) for g in directions]
        head = max(range(6), key=lambda h, moved=moved: abs(moved[h]))  # type: ignore[misc]
        assert found.head[n] == head
        assert found.change[n] == pytest.approx(moved[head])
        if n != 3:
            cosine = moved[head] / np.linalg.norm(w) / np.linalg.norm(directions[head])
            assert found.cosine[n] == pytest.approx(cosine)
    assert np.isnan(found.cosine[3])


def test_ablated_attention_is_that_of_the_edited_model() -> None:
    lm = random_model("gemma2")
    L, N = lm.config.n_layers, lm.config.d_mlp
    tokens = np.random.default_rng(2).integers(1, lm.config.vocab_size, (2, 24))
    neurons = np.array([3, 7])
    found = ablated_attention(lm.config, lm.params, tokens, neurons, 0)
    site, patterns = "blocks.0.mlp.hook_post", [f"blocks.{j}.attn.hook_pattern" for j in range(1, L)]
    chex.assert_shape(found.after, (2, 2, 23, L - 1, lm.config.n_heads))

    def attention(edits: dict[str, Ablate]) -> np.ndarray:
        captured = lm.apply(tokens, edits=edits, capture=patterns).captured
        return np.stack([np.asarray(captured[pattern])[:, :, 1:, 0] for pattern in patterns], 1).transpose(0, 3, 1, 2)

    h = np.asarray(lm.apply(tokens, capture=[site]).captured[site])
    np.testing.assert_allclose(found.activation, np.moveaxis(h[:, 1:, neurons], -1, 0), atol=1e-6)
    np.testing.assert_allclose(found.before, attention({}), atol=1e-6)
    for k, neuron in enumerate(neurons):
        mask = (np.arange(N) == neuron) & (np.arange(24) > 0)[:, None]
        after = attention({site: Ablate(jnp.asarray(mask), jnp.float32(0))})
        np.testing.assert_allclose(found.after[k], after, atol=1e-6)
        assert np.abs(after - np.asarray(found.before)).max() > 1e-4


def test_the_change_of_attention_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(3)
    h, before, after = rng.standard_normal(50), rng.random((50, 2, 3)), rng.random((50, 2, 3))
    found = attention_change(h, before, after)
    for j, head in np.ndindex(2, 3):
        lost = before[:, j, head] - after[:, j, head]
        assert found.attention[j, head] == pytest.approx(before[:, j, head].mean())
        assert found.change[j, head] == pytest.approx(-lost.mean())
        assert found.size[j, head] == pytest.approx(np.abs(lost).mean())
        assert found.slope[j, head] == pytest.approx(np.linalg.lstsq(h[:, None], lost)[0][0])
    assert (attention_change(np.zeros(50), before, before).slope == 0).all()

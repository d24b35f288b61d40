"""Explained variance: against numpy by definition, and activations that a feature alone determines.

Letters: s window, t position, n neuron, c cell.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_model

from jaxconf.analysis import explained_variance
from jaxconf.analysis.explained_variance import (
    SHRINK,
    Cells,
    Sums,
    add,
    cells_of,
    features,
    held_out_r2,
    letter_classes,
)

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RNG = np.random.default_rng(0)
TOKENS = RNG.choice(12, (40, 30), p=np.arange(1, 13) / 78)
DOCUMENTS = np.repeat(np.arange(10), 120).reshape(40, 30)
COUNTED = (RNG.random(TOKENS.shape) < 0.9) & (np.arange(30) > 1)
WORDS = [" the", "The", "THE", "a", "7", "+", "\n", "b", "B", "x1", "é", "_y"]


def sums_of(h: np.ndarray, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """By numpy: the sums of h [s t n] over each cell, [c n], and of its squares over each half, [f 2 n]."""
    by_cell = np.zeros((cells.bounds[-1], h.shape[-1]))
    squares = np.zeros((len(cells.bounds) - 1, 2, h.shape[-1]))
    for (s, t), counts in np.ndenumerate(COUNTED):
        for feature, cell in enumerate(cells.cell[s, t] if counts else ()):
            by_cell[cell] += h[s, t]
            squares[feature, cell % 2] += h[s, t] ** 2
    return by_cell, squares


def r2_of(h: np.ndarray, cells: Cells) -> np.ndarray:
    """Held-out R² of every feature, [f n], of activations [s t n]."""
    means = h[COUNTED].mean(0)
    by_cell, squares = sums_of(h - means, cells)
    spans = zip(cells.bounds, cells.bounds[1:], strict=False)
    return np.stack([held_out_r2(by_cell[a:b], squares[f], cells.counts[a:b], means) for f, (a, b) in enumerate(spans)])


def by_definition(h: np.ndarray, category: np.ndarray, half: np.ndarray) -> float:
    """Held-out R² of an activation [p]: each category's shrunk mean in a half predicts the other half."""
    h, errors, without = h - h.mean(), 0.0, 0.0
    for train in (0, 1):
        known, mean = half == train, h[half == train].mean()
        for value, of in zip(h[~known], category[~known], strict=True):
            same = h[known & (category == of)]
            predicted = (same.sum() + SHRINK * mean) / (len(same) + SHRINK)
            errors += (value - predicted) ** 2
            without += (value - mean) ** 2
    return 1 - errors / without


def test_explained_variance_is_that_of_its_definition() -> None:
    found = features(TOKENS, DOCUMENTS, letter_classes(WORDS), COUNTED)
    h = RNG.standard_normal((*TOKENS.shape, 3)) + np.sqrt(TOKENS)[..., None] * [0, 0.3, 1] + 5
    r2 = r2_of(h, cells_of(found, COUNTED))
    for row, (category, half) in zip(r2, found.values(), strict=True):
        expected = [by_definition(h[..., n][COUNTED], category[COUNTED], half[COUNTED]) for n in range(3)]
        np.testing.assert_allclose(row, expected, atol=1e-9)


def test_a_feature_explains_what_it_determines_and_nothing_else() -> None:
    classes = letter_classes(WORDS)
    found = features(TOKENS, DOCUMENTS, classes, COUNTED)
    before = np.roll(TOKENS, 1, 1)
    signs = RNG.choice([-1.0, 1.0], 10)
    planted = [TOKENS == 5, classes[TOKENS] == classes[5], np.arange(30) > 15, before == 3, signs[DOCUMENTS]]
    columns = [np.broadcast_to(x, TOKENS.shape) for x in planted]
    h = np.stack([*columns, RNG.standard_normal(TOKENS.shape)], -1).astype(float)
    h += 0.1 * h.std((0, 1)) * RNG.standard_normal(h.shape)
    r2 = dict(zip(found, r2_of(h, cells_of(found, COUNTED)), strict=True))
    for n, name in enumerate(found):
        assert r2[name][n] > 0.7, name
        assert all(r2[other][n] < 0.1 for other in found if {name, other} != {"unigram", "alphabet"} and name != other)
    assert r2["alphabet"][0] < 0.7 * r2["unigram"][0]  # another token has the same class
    assert all(-0.2 < r2[name][5] < 0.05 for name in found)


def test_what_only_the_fitted_half_has_is_not_explained() -> None:
    """Each token of a document of its own has an activation of its own, which no other half can confirm."""
    documents = np.broadcast_to(np.arange(40)[:, None], TOKENS.shape)
    tokens = 12 * documents + TOKENS
    found = features(tokens, documents, None, COUNTED)
    h = RNG.standard_normal(tokens.max() + 1)[tokens][..., None]
    assert "alphabet" not in found
    assert r2_of(h, cells_of(found, COUNTED))[0] == pytest.approx(0, abs=0.02)


def test_halves_hold_whole_documents_and_for_topic_half_of_each() -> None:
    found = features(TOKENS, np.repeat(np.arange(40), 30).reshape(40, 30), None, COUNTED)
    units = found["unigram"][1]
    assert all(len(np.unique(row)) == 1 for row in units)
    assert units[:, 0].mean() == 0.5
    half = features(TOKENS, DOCUMENTS, None, COUNTED)["topic"][1]
    for document in range(10):
        own = half[np.isin(DOCUMENTS, document) & COUNTED]
        assert (np.diff(own) >= 0).all()
        assert abs(2 * own.sum() - len(own)) <= 1


def test_letters_have_classes() -> None:
    the, capital, capitals, a, digit, symbol, space, b, big_b, x, accented, underscore = letter_classes(WORDS)
    assert len({the, capital, capitals, a, digit, symbol, space, b, big_b, x, accented}) == 11
    assert symbol == underscore
    assert letter_classes(["the", " to", "To"]).tolist() == [1, 1, 0]


def test_rare_categories_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explained_variance, "CATEGORIES", 3)
    cells = cells_of({"unigram": (TOKENS, np.zeros_like(TOKENS))}, COUNTED)
    common = np.argsort(-np.bincount(TOKENS[COUNTED]), kind="stable")
    rank = {int(token): 2 * place for place, token in enumerate(common[:3])}
    expected = [rank.get(int(token), 6) for token in TOKENS[COUNTED]]
    assert cells.cell[..., 0][COUNTED].tolist() == expected
    np.testing.assert_array_equal(cells.counts, np.bincount(expected, minlength=8))


def test_constant_activations_and_empty_halves_have_none() -> None:
    h = np.stack([np.full(TOKENS.shape, 7.0), RNG.standard_normal(TOKENS.shape)], -1)
    cells = cells_of(features(TOKENS, DOCUMENTS, None, COUNTED), COUNTED)
    assert np.isnan(r2_of(h, cells)).tolist() == [[True, False]] * 4
    one_half = cells_of({"unigram": (TOKENS, np.zeros_like(TOKENS))}, COUNTED)
    assert np.isnan(r2_of(h, one_half)).all()


def test_sums_over_batches_are_those_of_numpy() -> None:
    lm = random_model("layer")
    cells = cells_of(features(TOKENS, DOCUMENTS, None, COUNTED), COUNTED)
    sites = [f"blocks.{layer}.mlp.hook_post" for layer in range(2)]
    captured = lm.apply(TOKENS, capture=sites).captured
    h = np.stack([np.asarray(captured[site]) for site in sites])  # L s t n
    means = h[:, COUNTED].mean(1)
    sums = Sums(jnp.zeros((cells.bounds[-1], 2, 48)), jnp.zeros((4, 2, 2, 48)))
    layers = np.array([1, 0])
    for rows in (slice(0, 20), slice(20, 40)):
        sums = add(lm.config, lm.params, layers, means, TOKENS[rows], COUNTED[rows], cells.cell[rows], sums)
    for i, layer in enumerate(layers):
        by_cell, squares = sums_of(h[layer] - means[layer], cells)
        np.testing.assert_allclose(sums.by_cell[:, i], by_cell, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(sums.squares[:, :, i], squares, rtol=1e-4, atol=1e-3)

"""Sets of neurons: masks and random sets, against plain numpy. Letters: c set, n neuron."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from random_models import random_model

from jaxconf.analysis.neuron_sets import masks_of, one_by_one, random_sets, widths_of

CONFIG = random_model("layer").config
neurons = st.tuples(st.integers(0, CONFIG.n_layers - 1), st.integers(0, CONFIG.d_mlp - 1))


@given(st.lists(st.lists(neurons, min_size=1, unique=True), min_size=1, max_size=5))
def test_masks_hold_the_members_and_no_others(sets: list[list[tuple[int, int]]]) -> None:
    masks = masks_of(CONFIG.d_mlp, sets)
    assert list(masks) == sorted({layer for members in sets for layer, _ in members})
    for row, members in enumerate(sets):
        found = {(layer, int(n)) for layer, mask in masks.items() for n in np.flatnonzero(mask[row])}
        assert found == set(members)


@given(st.lists(neurons, min_size=1, max_size=CONFIG.d_mlp // 2, unique=True), st.integers(0, 2**32 - 1))
def test_random_sets_have_as_many_other_neurons_of_each_layer(own: list[tuple[int, int]], seed: int) -> None:
    drawn = random_sets(widths_of(CONFIG), own, 3, np.random.default_rng(seed))
    assert len(drawn) == 3
    for members in drawn:
        assert set(own).isdisjoint(members)
        assert len(set(members)) == len(members)
        assert sorted(layer for layer, _ in members) == sorted(layer for layer, _ in own)
    assert drawn == random_sets(widths_of(CONFIG), own, 3, np.random.default_rng(seed))


def test_every_other_neuron_is_drawn_equally_often() -> None:
    drawn = random_sets(widths_of(CONFIG), [(0, 3), (0, 7)], 4000, np.random.default_rng(0))
    counts = np.bincount([n for members in drawn for _, n in members], minlength=CONFIG.d_mlp)
    assert (counts[[3, 7]] == 0).all()
    expected = 2 * 4000 / (CONFIG.d_mlp - 2)
    assert np.abs(np.delete(counts, [3, 7]) - expected).max() < 5 * expected**0.5


def test_one_by_one_has_each_neuron_alone() -> None:
    np.testing.assert_array_equal(one_by_one(CONFIG), np.eye(CONFIG.d_mlp))

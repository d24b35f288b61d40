"""Random sets of heads are different sets of other heads, of the same layers where these have enough."""

import dataclasses
from collections import Counter

import hypothesis.strategies as st
import numpy as np
from hypothesis import given
from random_models import random_model

from jaxconf.analysis.induction import random_heads


@given(data=st.data(), n_layers=st.integers(1, 4), n_heads=st.integers(1, 5), count=st.integers(0, 6))
def test_random_heads_are_others_of_the_same_layers(
    data: st.DataObject, n_layers: int, n_heads: int, count: int
) -> None:
    config = dataclasses.replace(random_model("layer").config, n_layers=n_layers, n_heads=n_heads)
    every = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    heads = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    found = random_heads(config, heads, count, np.random.default_rng(0))
    assert len({frozenset(members) for members in found}) == len(found) <= count
    wanted, others = Counter(layer for layer, _ in heads), Counter(layer for layer, head in set(every) - set(heads))
    for members in found:
        assert len(set(members)) == len(heads)
        assert not set(members) & set(heads)
        assert set(members) <= set(every)
        if all(others[layer] >= n for layer, n in wanted.items()):
            assert Counter(layer for layer, _ in members) == wanted
    if count and len(every) >= 2 * len(heads):
        assert found
    if len(every) < 2 * len(heads):
        assert not found

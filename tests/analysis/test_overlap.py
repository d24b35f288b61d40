"""Candidates, what chance gives, and the matching of neurons: against trying everything, and against numpy.

Letters: n neuron.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxconf.analysis import overlap
from jaxconf.analysis.overlap import (
    candidates,
    chance_cosine,
    chance_iou,
    change_of_candidates,
    cosine_matrix,
    iou,
    large,
    norm_ratio,
    one_to_one,
    overlaps,
    sets_from,
)


@given(st.data(), st.integers(1, 30), st.sampled_from([0.05, 0.1, 0.25, 0.5, 1.0]), st.integers(1, 12))
@settings(max_examples=60)
def test_candidates_are_the_lowest_of_the_largest(data: st.DataObject, n: int, share: float, lowest: int) -> None:
    few = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0])  # so that some are equal
    w_norm = np.array(data.draw(st.lists(few, min_size=n, max_size=n)))
    logit_var = np.where(w_norm > 0, data.draw(st.lists(few, min_size=n, max_size=n)), np.nan)
    heavy = sorted(range(n), key=lambda i: (-w_norm[i], i))[: max(1, round(share * n))]
    expected = sorted((i for i in heavy if w_norm[i] > 0), key=lambda i: (logit_var[i], i))[:lowest]
    assert set(np.flatnonzero(candidates(w_norm, logit_var, share, lowest))) == set(expected)


@pytest.mark.parametrize(
    ("n", "heavy", "sizes"),
    [(6, None, (2, 3)), (7, None, (3, 3)), (7, ((0, 1, 2, 3), (2, 3, 4, 5)), (2, 3)), (5, None, (5, 1))],
)
def test_chance_is_that_of_all_pairs_of_sets(n: int, heavy: Any, sizes: tuple[int, int]) -> None:
    members = heavy or (range(n), range(n))
    values = [
        len(set(a) & set(b)) / len(set(a) | set(b))
        for a in itertools.combinations(members[0], sizes[0])
        for b in itertools.combinations(members[1], sizes[1])
    ]
    pools = tuple(np.isin(np.arange(n), list(pool)) for pool in members)
    mean, low, high = chance_iou(pools, sizes, 0.8)  # type: ignore[arg-type]
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    assert [low, high] == pytest.approx(np.quantile(values, [0.1, 0.9], method="inverted_cdf"), abs=1e-12)


def test_permuting_the_neurons_gives_the_interval_that_is_said() -> None:
    rng = np.random.default_rng(0)
    chosen, other = (np.isin(np.arange(60), rng.choice(60, size, replace=False)) for size in (15, 20))
    drawn = [iou(chosen, rng.permutation(other)) for _ in range(4000)]
    mean, low, high = chance_iou((np.ones(60, bool), np.ones(60, bool)), (15, 20))
    assert np.mean(drawn) == pytest.approx(mean, abs=0.004)
    assert np.quantile(drawn, [0.025, 0.975], method="inverted_cdf").tolist() == pytest.approx([low, high])
    assert np.isnan(iou(np.zeros(3, bool), np.zeros(3, bool)))
    assert np.isnan(chance_iou((np.ones(3, bool),) * 2, (0, 0))).all()


def test_neurons_are_matched_as_trying_every_permutation_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "BLOCK", 4)
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 6, 5)).astype(np.float32)
    first[3] = 0
    found = cosine_matrix(first, second)
    lengths = [np.maximum(np.linalg.norm(w, axis=1), 1e-30) for w in (first, second)]
    np.testing.assert_allclose(found, first.astype(np.float64) @ second.T / np.outer(*lengths), atol=1e-6)
    best = max(itertools.permutations(range(6)), key=lambda order: found[np.arange(6), list(order)].sum())
    np.testing.assert_array_equal(one_to_one(found), best)


def test_chance_of_a_cosine() -> None:
    """In three dimensions a cosine with a random direction is uniform from -1 to 1."""
    assert chance_cosine(3, 10, 0.9) == pytest.approx(2 * 0.9**0.1 - 1)
    rng = np.random.default_rng(2)
    directions = rng.standard_normal((2000, 50, 20))
    largest = (directions[..., 0] / np.linalg.norm(directions, axis=-1)).max(1)
    assert np.mean(largest < chance_cosine(20, 50, 0.9)) == pytest.approx(0.9, abs=0.02)


def test_a_zero_neuron_is_no_candidate_and_has_no_ratio() -> None:
    w_norm, logit_var = np.array([2.0, 0, 1]), np.array([0.01, np.nan, 0.5])
    np.testing.assert_allclose(norm_ratio(w_norm, logit_var), [2 / np.log(0.01), np.nan, 1 / np.log(0.5)])
    assert candidates(w_norm, logit_var, 1.0, 5).tolist() == [True, False, True]


def test_overlaps_are_those_of_sets() -> None:
    rng = np.random.default_rng(5)
    base, tuned = (tuple(rng.random((2, 40))) for _ in range(2))
    order = rng.permutation(40)  # the tuned model's neuron for each of the base model's
    found = list(overlaps(base, tuned, order, (0.25, 0.5), (3, 12)))
    assert [(row.share, row.lowest) for row in found] == [(0.25, 3), (0.25, 12), (0.5, 3), (0.5, 12)]
    for row in found:
        heavy = [set(np.argsort(-w_norm)[: round(40 * row.share)].tolist()) for w_norm, _ in (base, tuned)]
        chosen = [
            set(sorted(pool, key=lambda n, logit_var=logit_var: logit_var[n])[: row.lowest])
            for pool, (_, logit_var) in zip(heavy, (base, tuned), strict=True)
        ]
        renamed = [chosen[0], {i for i in range(40) if order[i] in chosen[1]}]
        common, union = renamed[0] & renamed[1], renamed[0] | renamed[1]
        assert (row.base, row.tuned, row.common) == (len(chosen[0]), len(chosen[1]), len(common))
        assert row.iou == len(common) / len(union)
        pools = heavy[0], {i for i in range(40) if order[i] in heavy[1]}
        first, second = (np.isin(np.arange(40), list(pool)) for pool in pools)
        expected = chance_iou((first, second), (row.base, row.tuned))
        assert (row.norm_chance, row.norm_chance_lo, row.norm_chance_hi) == expected
        everyone = np.ones(40, bool), np.ones(40, bool)
        assert (row.chance, row.chance_lo, row.chance_hi) == chance_iou(everyone, (row.base, row.tuned))


def test_changes_of_candidates_are_those_of_numpy() -> None:
    rng = np.random.default_rng(6)
    base, tuned = rng.standard_normal((2, 50))
    base[[3, 9]], tuned[7] = np.nan, np.nan  # without a measure in one of the models
    chosen, random = np.array([1, 3, 4, 8]), rng.permuted(np.tile(np.arange(50), (200, 1)), axis=1)[:, :4]
    random[0] = 3, 7, 9, 3  # a set of which nothing is known
    found = change_of_candidates(base, tuned, chosen, random)
    left = np.array([1, 4, 8])
    assert found[:3] == pytest.approx((base[left].mean(), tuned[left].mean(), (tuned - base)[left].mean()))
    of_random = [np.mean([tuned[n] - base[n] for n in row if n not in (3, 7, 9)]) for row in random[1:].tolist()]
    assert found[3:5] == pytest.approx(np.quantile(of_random, [0.025, 0.975]))
    known = np.isfinite(base + tuned)
    assert found.correlation == pytest.approx(scipy.stats.spearmanr(base[known], tuned[known]).statistic)


def test_without_a_choice_no_random_set_is_drawn() -> None:
    pool = np.isin(np.arange(9), [1, 4, 7])
    assert sets_from(pool, 3, 5, np.random.default_rng(0)).shape == (0, 3)
    drawn = sets_from(pool, 2, 300, np.random.default_rng(0))
    assert {tuple(sorted(row)) for row in drawn.tolist()} == {(1, 4), (1, 7), (4, 7)}
    values = np.arange(9.0)
    found = change_of_candidates(
        values, values + 1, np.array([1, 4, 7]), sets_from(pool, 3, 5, np.random.default_rng(0))
    )
    assert found.change == 1
    assert np.isnan([found.random_lo, found.random_hi]).all()
    assert np.isnan(change_of_candidates(values, np.ones(9), np.array([1]), drawn).correlation)
    assert large(values, 0.2).sum() == 2

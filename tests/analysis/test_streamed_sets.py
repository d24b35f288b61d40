"""Sums over blocks of the vocabulary equal edited runs, and no program holds the logits of several sets.

Letters: c set, s window, t position, n neuron, v vocabulary.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edited_runs import rerun as by_definition
from hypothesis import given
from hypothesis import strategies as st
from parameters import marked
from random_models import random_model, windows_for

from jaxconf.analysis import ablated_answers, rerun
from jaxconf.analysis.ablated_sets import Ablations
from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.mean_ablation import set_to
from jaxconf.analysis.metrics import EFFECTS
from jaxconf.analysis.neuron_sets import masks_of
from jaxconf.analysis.observation import at_bos, entered
from jaxconf.analysis.optimum import compiled_distances
from jaxconf.analysis.streamed_sets import BLOCK, Blocks
from jaxconf.analysis.unembedding import readout
from jaxconf.data.windows import kept_positions
from jaxconf.measure.answers import token_by_token
from jaxconf.measure.neuron_sets import ablate_sets
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.sites import Ablate, Replace
from jaxconf.runtime.batching import joined

pytestmark = pytest.mark.usefixtures("compiled_quickly")
C = 16


def largest(compiled: jax.stages.Compiled) -> int:
    """Entries of the largest array in a program."""
    shapes = re.findall(r"[a-z]\d+\[([\d,]+)\]", compiled.as_text())
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


@pytest.mark.parametrize("by_algebra", [True, False])
def test_no_program_holds_the_logits_of_several_sets(by_algebra: bool) -> None:
    lm = random_model("large")
    tokens, config = windows_for(lm, count=2), lm.config
    layer = config.n_layers - 1 if by_algebra else 0
    masks = np.random.default_rng(0).permuted(np.arange(config.d_mlp) < 5 * np.ones((C, 1)), axis=1)
    runs = SetRuns(lm, {layer: masks}, frequency(np.arange(config.vocab_size)), 2**28)
    entry, before = runs.entry(tokens, np.arange(tokens.shape[1]))
    assert runs.by_algebra == by_algebra
    base = rerun.unablated_sums(config, runs.readout, runs.frequency, entry)
    to, _, _ = rerun.compiled_reference(config, runs.readout, entry)
    some: Any = runs.some(np.arange(C), {layer: set_to(np.zeros(config.d_mlp))})
    changes = rerun.compiled_changes.lower(*runs.how, entry, before, base, some).compile()
    how = config, lm.params, runs.readout, entry
    besides = rerun.compiled_besides.lower(*how, to, some).compile()
    losses = rerun.compiled_losses.lower(*how, some).compile()
    predictions = rerun.compiled_predictions.lower(*runs.how, entry, some).compile()
    positions, best = np.arange(tokens.shape[1]), np.zeros((*tokens.shape, config.vocab_size), np.float32)
    distances = compiled_distances.lower(config, runs.layers, *runs.how[1:], tokens, positions, best, False, some)
    for compiled in (changes, besides, losses, predictions, distances.compile()):
        assert largest(compiled) < C * tokens.size * config.vocab_size


def test_no_program_holds_the_logits_of_several_sets_of_heads_or_several_answers() -> None:
    lm = random_model("large")
    tokens, config, rng = windows_for(lm, count=2), lm.config, np.random.default_rng(0)
    positions, read = np.arange(tokens.shape[1]), readout(lm.config, lm.params)
    how = config, lm.params, read
    heads = rng.random((C, config.n_layers, config.n_heads)) < 0.5
    rest = positions, {1: np.array([2])}, (0, 1)
    seen, _ = entered(*how, tokens, *rest)
    assert largest(at_bos.lower(*how, seen, *rest, heads).compile()) < C * 2 * 6 * config.vocab_size
    sets = Ablations(np.arange(5 * C).reshape(C, 5) % 20, np.zeros((C, 5), np.float32), np.ones((C, 5), bool))
    reading = ablated_answers.reading(config, read, np.arange(20))
    given = ablated_answers.Given(*token_by_token(list(tokens[:, None, :6]), 6))
    _, ends, along = ablated_answers.begin(config, 40, lm.params, reading, tokens[:, :12], np.zeros(2, int), given)
    text = np.broadcast_to(np.arange(2), (C, 2))
    judged = ablated_answers.judged.lower(config, reading, along, sets, given).compile()
    assert largest(judged) < C * len(along.A) * config.vocab_size
    assert (
        largest(ablated_answers.likeliest.lower(config, reading, ends, text, sets).compile())
        < C * 2 * config.vocab_size
    )


def at_mean(h: np.ndarray) -> np.ndarray:
    return np.broadcast_to(h.mean((0, 1)), h.shape)


@pytest.mark.parametrize(
    "kind",
    marked(
        ["layer", "rms", "capped", "summed", "no norm", "large, capped"], quick=["layer", "no norm", "large, capped"]
    ),
)
def test_sets_of_the_last_layer_equal_edited_runs(kind: str) -> None:
    lm = random_model(kind)
    tokens, counts, layer = windows_for(lm), np.arange(lm.config.vocab_size), lm.config.n_layers - 1
    kept = kept_positions(tokens, lm.special_ids)
    sets = [[(layer, n) for n in members] for members in ([3, 40, 7, 11], [5], [1, 2])]
    found = ablate_sets(lm, tokens, sets, controls=0, counts=counts, bootstrap_draws=0)
    masks = masks_of(lm.config.d_mlp, sets)
    expected = by_definition(lm, tokens, kept, counts, at_mean, layer, sets=masks[layer])
    assert expected["loss_abs_delta"].median() > 1e-3
    for column in EFFECTS:
        tie = column in ("rr_abs_delta", "top1_change")  # between tokens that are equally likely but for rounding
        np.testing.assert_allclose(found[column], expected[column], atol=1e-3 if tie else 2e-5, err_msg=column)


def test_sets_that_exceed_the_memory_are_run_in_chunks() -> None:
    """A set of the last layer has arrays that are as long as it has neurons."""
    lm = random_model("layer")
    tokens, layer, N = windows_for(lm), lm.config.n_layers - 1, lm.config.d_mlp
    masks = np.random.default_rng(0).random((6, N)) < 0.5
    zeroed = {layer: set_to(np.zeros(N))}
    found = []
    for memory in (2**30, 2**16):
        runs = SetRuns(lm, {layer: masks}, frequency(np.arange(lm.config.vocab_size)), memory)
        entry, before = runs.entry(tokens, np.arange(tokens.shape[1]))
        chunks = [some for some, _ in runs.chunks(*tokens.shape)]
        assert (len(chunks) > 1) == (memory < 2**30)
        parts = [rerun.compiled_changes(*runs.how, entry, before, None, runs.some(some, zeroed)) for some in chunks]
        found.append(joined([part.loss for part in parts], len(masks)))
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_another_token_may_become_hundreds_of_nats_more_likely(layer: int) -> None:
    """The sums are then beyond float32 at the first shift, and are computed again."""
    lm = random_model("layer")
    wild = jax.tree.map(lambda w: 60 * w, lm.params["unembed"])
    lm = dataclasses.replace(lm, params=lm.params | {"unembed": wild})
    config, tokens, site = lm.config, windows_for(lm), f"blocks.{layer}.mlp.hook_post"
    target, masks = np.roll(tokens, -1, 1), np.arange(config.d_mlp) < np.array([[3], [8]])
    runs = SetRuns(lm, {layer: masks}, frequency(np.arange(config.vocab_size)), 2**28)
    entry, before = runs.entry(tokens, np.arange(tokens.shape[1]))
    assert runs.by_algebra == (layer == 1)
    some = runs.some(np.arange(2), {layer: set_to(np.full(config.d_mlp, 5.0))})
    how = config, lm.params, runs.readout, entry
    total, frozen = rerun.compiled_losses(*how, some)
    to, _, _ = rerun.compiled_reference(config, runs.readout, entry)
    predicted, change = rerun.compiled_besides(*how, to, some)
    base = rerun.unablated_sums(config, runs.readout, runs.frequency, entry)
    effects = rerun.compiled_changes(*runs.how, entry, before, base, some)
    plain = lm.apply(tokens, capture=["ln_final.hook_scale"])
    lp = np.asarray(jax.nn.log_softmax(plain.logits), np.float64)
    risen = 0.0
    for c, mask in enumerate(masks):
        edits = {site: Ablate(jnp.asarray(mask), jnp.full(config.d_mlp, 5.0))}
        freeze = {"ln_final.hook_scale": Replace(plain.captured["ln_final.hook_scale"])}
        for of, found in ((edits, total), (edits | freeze, frozen)):
            z = np.asarray(lm.apply(tokens, edits=of).logits, np.float64)
            after = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
            own = np.take_along_axis(after, target[..., None], -1)[..., 0]
            np.testing.assert_allclose(found.loss[c], -own, atol=1e-2)
            np.testing.assert_allclose(found.entropy[c], -(np.exp(after) * after).sum(-1), atol=1e-3)
            by = effects.loss if of is edits else effects.loss_ln_frozen
            np.testing.assert_allclose(by[c], -own - before.loss, atol=1e-2)
            if of is edits:
                above = (z > np.take_along_axis(z, target[..., None], -1)).sum(-1)
                np.testing.assert_allclose(effects.reciprocal_rank[c], 1 / (1 + above) - 1 / before.rank, atol=1e-6)
                np.testing.assert_array_equal(effects.top[c], z.argmax(-1) != before.top)
                u = np.asarray(runs.frequency.u, float)
                back = z + ((np.asarray(plain.logits, float) - z) @ u)[..., None] * u
                of_back = np.logaddexp.reduce(back, axis=-1) - np.take_along_axis(back, target[..., None], -1)[..., 0]
                np.testing.assert_allclose(effects.loss_freq_frozen[c], of_back - before.loss, atol=1e-2)
                kl = (np.exp(lp) * (after - lp)).sum(-1)
                np.testing.assert_allclose(predicted.loss[c], -own, atol=1e-2)
                np.testing.assert_allclose(predicted.confidence[c], np.exp(after).max(-1), atol=1e-3)
                np.testing.assert_array_equal(predicted.correct[c], after.argmax(-1) == target)
                np.testing.assert_allclose(change.mean[c], kl, atol=1e-2)
                shift = np.maximum(np.take_along_axis(z, np.asarray(before.top)[..., None], -1)[..., 0], own)
                risen = max(risen, float((z.max(-1) - shift).max()))
    assert risen > 100


@pytest.mark.parametrize("layer", [0, 1])
def test_a_set_that_changes_nothing_has_no_effect(layer: int) -> None:
    lm = random_model("capped")
    tokens = windows_for(lm)
    masks = {layer: np.eye(lm.config.d_mlp, dtype=bool)[:2]}
    runs = SetRuns(lm, masks, frequency(np.arange(lm.config.vocab_size)), 1)
    entry, before = runs.entry(tokens, np.arange(tokens.shape[1]))
    base = rerun.unablated_sums(lm.config, runs.readout, runs.frequency, entry)
    same = {layer: LayerAblation("linear", jnp.zeros(lm.config.d_mlp), 1.0)}
    found = rerun.compiled_changes(*runs.how, entry, before, base, runs.some(np.arange(2), same))
    for name, change in found._asdict().items():
        np.testing.assert_allclose(np.asarray(change, float), 0, atol=1e-5, err_msg=name)


@given(st.integers(1, 3 * 256 + 100))
def test_every_token_counts_once_in_the_blocks_of_a_vocabulary(V: int) -> None:
    blocks = Blocks.of(V)
    assert blocks.size <= min(V, int(BLOCK))
    ids = np.asarray(blocks.begins)[:, None] + np.arange(blocks.size)
    np.testing.assert_array_equal(np.sort(ids[np.asarray(blocks.counts)]), np.arange(V))
    assert blocks.counts.any(1).all()  # no block is for nothing

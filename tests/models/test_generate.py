"""Generation with a cache against the model without one. (tests/test_parity.py compares with transformers' greedy
output.)
"""

import cases
import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
from parameters import marked
from refusals import check_error

from jaxconf.models.decoder import forward
from jaxconf.models.families import leaves
from jaxconf.models.generate import _generate, generate
from jaxconf.models.leaves import nest
from jaxconf.models.mesh import make_mesh, sharding
from jaxconf.models.sites import Ablate, Replace

pytestmark = pytest.mark.usefixtures("compiled_quickly")

NEW = 24
PROMPTS = [[5], [9, 4, 31, 31, 7, 60, 2, 18, 44, 3, 12], [1, 2, 3, 4, 5]]  # two of them are padded


run = jax.jit(forward, static_argnames="config")


def greedy_without_cache(name, row, new, edits=None):
    """What the whole pass finds most likely after each token but the last of prompt and new tokens."""
    config, params = cases.decoder(name)
    tokens = np.zeros((1, max(map(len, PROMPTS)) + NEW), int)  # what comes after a token does not matter to it
    tokens[0, : len(row) + len(new)] = [*row, *new]
    return np.asarray(run(config, params, tokens, edits).logits)[0].argmax(-1)[len(row) - 1 : len(row) + len(new) - 1]


@pytest.mark.parametrize(
    "name",
    marked(
        ["gpt2", "qwen2-window", "gemma3", "falcon-alibi", "opt-summed", "gptj"],
        devices=["gpt2"],
        quick=["gpt2", "gemma3", "falcon-alibi"],
    ),
)
def test_greedy_equals_the_pass_without_cache(name):
    new = generate(*cases.decoder(name), PROMPTS, NEW)
    assert len({row.tobytes() for row in new}) == len(PROMPTS)
    for prompt, row in zip(PROMPTS, new, strict=True):
        assert row.shape == (NEW,)
        assert row.dtype == np.int32
        np.testing.assert_array_equal(row, greedy_without_cache(name, prompt, row))


def test_edits_are_made_in_every_pass():
    config, params = cases.decoder("gpt2")
    edits = {
        "blocks.0.mlp.hook_post": Ablate(np.arange(config.d_mlp) % 3 == 0, np.float32(0.7)),
        "ln_final.hook_scale": Replace(np.full((1, 1, 1), 1.5, np.float32)),
    }
    plain, edited = generate(config, params, PROMPTS, NEW), generate(config, params, PROMPTS, NEW, edits=edits)
    for prompt, row, other in zip(PROMPTS, edited, plain, strict=True):
        np.testing.assert_array_equal(row, greedy_without_cache("gpt2", prompt, row, edits))
        assert (row != other).any()


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_sharded_parameters_give_the_same_tokens():
    config, params = cases.decoder("gpt2")
    mesh = make_mesh(data=1, model=8)
    placed = {leaf.path: sharding(mesh, leaf.axes, leaf.shape(config)) for leaf in leaves(config)}
    sharded = jax.device_put(params, nest(placed.items()))
    for one, other in zip(generate(config, sharded, PROMPTS, NEW), generate(config, params, PROMPTS, NEW), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_row_ends_with_its_end_token_and_the_others_go_on():
    config, params = cases.decoder("gpt2")
    whole = generate(config, params, PROMPTS, NEW)
    end = int(whole[1][6])
    cut = generate(config, params, PROMPTS, NEW, end_ids=[end])
    for row, other in zip(cut, whole, strict=True):
        places = np.flatnonzero(other == end)
        np.testing.assert_array_equal(row, other[: places[0] + 1] if len(places) else other)
    assert len(cut[1]) <= 7


def test_samples_have_the_models_probabilities():
    config, params = cases.decoder("gpt2")
    draws, temperature = 4000, 1.7
    new = np.concatenate(generate(config, params, np.tile(PROMPTS[2], (draws, 1)), 1, temperature=temperature, seed=3))
    logits = np.asarray(run(config, params, np.array([PROMPTS[2]])).logits, np.float64)[0, -1]
    expected = draws * scipy.special.softmax(logits / temperature)
    assert expected.min() >= 5
    observed = np.bincount(new, minlength=config.vocab_size)
    assert scipy.stats.chisquare(observed, expected * draws / expected.sum()).pvalue > 1e-4


def test_the_seed_decides_what_is_drawn():
    config, params = cases.decoder("gpt2")

    def draw(seed):
        return np.stack(generate(config, params, PROMPTS, NEW, temperature=1.0, seed=seed))

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


def test_one_program_serves_prompts_of_the_same_size():
    config, params = cases.decoder("gpt2")
    before = _generate._cache_size()
    for seed in range(3):
        generate(config, params, [[1, 2, seed], [seed]], 5, temperature=float(seed), seed=seed)
    assert _generate._cache_size() == before + 1


@pytest.mark.parametrize(
    ("case", "changes", "words"),
    [
        ("gpt2", {"prompts": []}, ["empty"]),
        ("gpt2", {"prompts": [[1], []]}, ["empty"]),
        ("gpt2", {"prompts": [[1, 67]]}, ["67", "vocabulary"]),
        ("gpt2", {"prompts": [[-1]]}, ["-1", "vocabulary"]),
        ("gpt2", {"max_new_tokens": 0}, ["max_new_tokens"]),
        ("gpt2", {"max_new_tokens": 70}, ["81", "80 positions"]),
        ("gpt2", {"temperature": -0.5}, ["temperature", "-0.5"]),
        ("gpt2", {"edits": {"blocks.9.hook_resid_pre": Replace(1.0)}}, ["blocks.9", "nearest"]),
        ("gpt2", {"edits": {"blocks.0.mlp.hook_post": Replace(np.zeros((11, 128)))}}, ["position", "mlp.hook_post"]),
        ("gpt2", {"edits": {"blocks.0.attn.hook_pattern": Replace(np.zeros(11))}}, ["position", "hook_pattern"]),
        ("phi3-long", {"max_new_tokens": 60}, ["48", "one side"]),
    ],
)
def test_refusals(case, changes, words):
    config, params = cases.decoder(case)
    call = {"prompts": PROMPTS, "max_new_tokens": NEW} | changes
    check_error(lambda: generate(config, params, call.pop("prompts"), call.pop("max_new_tokens"), **call), *words)

"""Predictions beside the best possible ones, against running the edited model and against the world's own optimum.

Letters: s window, t position, n neuron, v vocabulary.
"""

from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from random_models import HF, random_model

from jaxconf.analysis.calibration import expected_calibration_error
from jaxconf.data.windows import kept_positions, windows
from jaxconf.data.worlds import World, world_of
from jaxconf.measure import optimum, set_runs
from jaxconf.measure.optimum import Beside, beside_optimum
from jaxconf.models.decoder import final_norm_name
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Ablate, Replace
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.results.optimum import ABLATED, ABLATED_FROZEN, DOUBLED, UNABLATED, moved_away

SOURCE = "noise:words=20,levels=3,stretch=6,size=4000"


def text_of(world: World, folder: Any, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a world's text, and their kept positions."""
    for name, content in world.tokenizer_files.items():
        (folder / name).write_text(content)
    tokenizer = Tokenizer.from_folder(folder)
    tokens = windows(world.documents(), tokenizer, count * 32, 32).tokens
    kept = kept_positions(tokens, [world.tokens.index("<|endoftext|>")])
    return tokens, kept


def a_model(world: World, kind: str = "layer", padding: int = 0) -> LanguageModel:
    return random_model(kind, hf={**HF[kind], "vocab_size": len(world.tokens) + padding})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, World, np.ndarray, np.ndarray, Beside]:
    world = world_of(SOURCE)
    assert world
    tokens, kept = text_of(world, tmp_path_factory.mktemp("world"))
    lm = a_model(world, padding=3)
    return lm, world, tokens, kept, beside_optimum(lm, tokens, kept, world, {"own": [(1, 3), (1, 40)]}, 1, controls=4)


def test_a_perfect_predictor_is_no_worse_than_the_optimum(tmp_path):
    world = world_of("noise:words=20,levels=3,stretch=6,size=4000,signal=inferred")
    assert world
    tokens, kept = text_of(world, tmp_path)
    lp, target = world.optimum(tokens).log_probs[kept], np.roll(tokens, -1, 1)[kept]
    positions = optimum._best(world, tokens, kept, len(world.tokens))[1]
    loss = -np.take_along_axis(lp, target[:, None], 1)[:, 0]
    np.testing.assert_allclose(positions.loss, loss, atol=1e-9)
    np.testing.assert_allclose(positions.entropy, -(np.exp(lp) * np.where(lp > -np.inf, lp, 0)).sum(1), atol=1e-9)


@pytest.mark.parametrize("how", [UNABLATED, ABLATED, ABLATED_FROZEN, DOUBLED])
@pytest.mark.parametrize("layer", [0, 1])  # of the neurons: layers are run again, or the last one by its algebra
def test_distances_are_those_of_the_edited_model(found, how, layer):
    lm, world, tokens, kept, beside = found
    members = [(layer, 3), (layer, 40)]
    if layer == 0:
        beside = beside_optimum(lm, tokens, kept, world, {"own": members}, 1, controls=0)
    sites, scale = {of: f"blocks.{of}.mlp.hook_post" for of in (0, 1)}, f"{final_norm_name(lm.config)}.hook_scale"
    before = lm.apply(tokens, capture=[*sites.values(), scale])
    edits = {scale: Replace(before.captured[scale])} if how == ABLATED_FROZEN else {}
    for of, site in sites.items():
        h, own = np.array(before.captured[site]), [n for at, n in members if at == of and how != UNABLATED]
        to = 2 * h if how == DOUBLED else np.broadcast_to(h.mean((0, 1)), h.shape)
        edits[site] = Ablate(np.isin(np.arange(h.shape[-1]), own), to)
    lp = np.asarray(jax.nn.log_softmax(lm.apply(tokens, edits=edits).logits), np.float64)[kept]
    best = world.optimum(tokens)
    p, q = np.exp(lp), np.exp(best.log_probs[kept])
    n, target = np.arange(len(lp)), np.roll(tokens, -1, 1)[kept]
    entropy, best_entropy = -(p * lp).sum(1), -(q * np.log(np.where(q > 0, q, 1))).sum(1)
    kl = (q * (np.log(np.where(q > 0, q, 1)) - lp[:, : q.shape[1]])).sum(1)
    level = np.where(best.words[kept] > 0.5, abs(best.noise[kept][:, None] - world.noise).argmin(1), -1)
    rows = beside.sets[(beside.sets["how"] == how) & (beside.sets["kind"] != "random")]
    assert rows["level"].tolist() == [-1, 0, 1, 2]
    for row in rows.to_dict("records"):
        here = level == row["level"] if row["level"] >= 0 else np.ones_like(level, bool)
        assert row["positions"] == here.sum()
        expected = {
            "loss": -lp[n, target][here].mean(),
            "best_loss": -best.log_probs[kept][n, target][here].mean(),
            "entropy": entropy[here].mean(),
            "best_entropy": best_entropy[here].mean(),
            "entropy_error": abs(entropy - best_entropy)[here].mean(),
            "kl": kl[here].mean(),
            "ece": expected_calibration_error(p.max(1)[here], (lp.argmax(1) == target)[here]),
            "accuracy": (lp.argmax(1) == target)[here].mean(),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=2e-5)
        assert row["excess_loss"] == pytest.approx(expected["loss"] - expected["best_loss"], abs=2e-5)


def test_levels_are_those_that_the_markers_name(found):
    _, world, tokens, kept, _ = found
    markers = np.where((tokens >= 20) & (tokens < 23), tokens - 20, -1)
    seen = np.full(len(tokens), -1)
    named = np.full(tokens.shape, -1)
    for t in range(tokens.shape[1]):
        seen = np.where(markers[:, t] >= 0, markers[:, t], seen)
        named[:, t] = seen
    best = world.optimum(tokens)
    told = kept & (named >= 0) & (best.words > 0.5)
    _, of = optimum._best(world, tokens, told, len(world.tokens))
    np.testing.assert_array_equal(of.level, named[told])
    assert len(np.unique(of.level)) == 3


def test_random_sets_are_as_large_as_their_set_and_share_no_neuron_with_it(found):
    random = found[4].sets[found[4].sets["kind"] == "random"]
    assert (random["size"] == 2).all()
    assert len(random) == 4 * 3 * 4  # random sets, things done, levels
    assert not set("1.3,1.40".split(",")) & {name for names in random["neurons"] for name in names.split(",")}


def test_a_neuron_that_follows_the_best_temperature_is_found(found):
    lm, world, tokens, kept, beside = found
    best = world.optimum(tokens)
    of = optimum._best(world, tokens, kept, lm.config.vocab_size)[1]
    told = of.level >= 0
    noise = best.noise[kept][told]
    temperature = -np.log(np.log((1 - noise) * 20 / noise + 1))
    h = np.zeros((int(kept.sum()), 3))
    h[told, 0], h[told, 1] = 5 - 2 * temperature, np.random.default_rng(0).standard_normal(told.sum())
    frame = optimum._neurons(world, of, 1, h)
    assert frame["temperature_r2"][0] == pytest.approx(1)
    assert frame["temperature_r2"][1] == pytest.approx(np.corrcoef(h[told, 1], temperature)[0, 1] ** 2)
    assert np.isnan(frame["temperature_r2"][2])
    for level in range(3):
        assert frame[f"level_{level}"][1] == pytest.approx(h[of.level == level, 1].mean())
    captured = np.asarray(lm.apply(tokens, capture=["blocks.1.mlp.hook_post"]).captured["blocks.1.mlp.hook_post"])
    expected = np.corrcoef(captured[kept][told].T, temperature)[-1, :-1] ** 2
    np.testing.assert_allclose(beside.neurons["temperature_r2"], expected, atol=1e-5)


def test_how_far_a_set_moves_the_entropy_is_judged_by_random_sets():
    errors = {"no set": [0.1], "set": [0.5], "random": [0.2, 0.3, 0.7, 0.1]}
    rows = [
        {"set": "own", "kind": "none" if kind == "no set" else kind, "how": UNABLATED if kind == "no set" else ABLATED,
         "level": 0, "noise": 0.5, "entropy_error": error}
        for kind, some in errors.items() for error in some
    ]  # fmt: skip
    assert moved_away(pd.DataFrame(rows)).to_dict("records") == [
        {"set": "own", "how": ABLATED, "level": 0, "noise": 0.5, "error_change": 0.4, "above_random": 0.75}
    ]


def test_without_sets_only_the_unablated_model_is_measured(found):
    lm, world, tokens, kept, beside = found
    alone = beside_optimum(lm, tokens, kept, world, {"entropy": []}, 1)
    pd.testing.assert_frame_equal(alone.sets, beside.sets[beside.sets["how"] == UNABLATED])
    assert moved_away(alone.sets).empty


def test_small_groups_of_windows_give_the_same(found, monkeypatch):
    lm, world, tokens, kept, beside = found
    monkeypatch.setattr(set_runs, "CELLS", 5 * tokens.shape[1])
    again = beside_optimum(lm, tokens, kept, world, {"own": [(1, 3), (1, 40)]}, 1, controls=4)
    pd.testing.assert_frame_equal(again.sets, beside.sets, atol=1e-5)
    pd.testing.assert_frame_equal(again.neurons, beside.neurons, atol=1e-5)

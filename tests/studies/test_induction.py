"""Repeated text: planted heads and learnt heads are found, and every ablation equals running the edited model.

Letters: b sequence, t position, l layer, h head, n neuron. Losses and entropies in nats.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from random_models import random_model, with_repeats
from repeated_runs import MEMORY, L, by_name, in_nats, of_random_model
from scipy.special import log_softmax

from jaxconf.analysis.induction import halves, head_scores, predictions, repeated
from jaxconf.analysis.temperature import Change, Unchanged, best_temperature, change, unchanged
from jaxconf.models.decoder import Decoder, abstract_params, final_norm_name, forward
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Ablate, Replace
from jaxconf.studies.induction import heads, mean_ablation, scaling, study
from jaxconf.studies.induction.figures import figures_of
from jaxconf.studies.induction.heads import table_of_scores
from jaxconf.studies.induction.sentences import sentences
from jaxconf.studies.induction.setting import Setting, Texts
from jaxconf.studies.induction.study import Induction, induction

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def model_of(hf: dict[str, Any], params: Any) -> LanguageModel:
    return LanguageModel(config_from_hf(hf), params, "made", None, Path(), {"bos_token_id": 0, "eos_token_id": 0})


HF_HAND = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_embd": 64,
    "n_head": 2,
    "n_positions": 25,
    "vocab_size": 16,
    "n_inner": 8,
}


@functools.cache
def by_hand() -> LanguageModel:
    """Head 0.0 looks one position back and writes which token was there. Head 1.1 looks for the positions where this
    is the present token, and says which token stands there. Heads 0.1 and 1.0 do next to nothing. Coordinates: 16 for
    the token, 25 for the position, 16 for the token before.
    """
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_params(config_from_hf(HF_HAND)))
    for name in ("ln1", "ln2"):
        params["blocks"][name]["scale"][:] = 1
    params["ln_final"]["scale"][:] = 1
    for name in ("w_in", "w_out"):
        params["blocks"]["mlp"][name][:] = 0.1 * rng.standard_normal(params["blocks"]["mlp"][name].shape)
    wq, wk, wv, wo = (params["blocks"]["attn"][name] for name in ("wq", "wk", "wv", "wo"))  # l d h k; wo l h k d
    for w in (wq, wk, wv, wo):
        w[:] = 0.02 * rng.standard_normal(w.shape)
    token, position, before = np.arange(16), 16 + np.arange(25), 41 + np.arange(16)
    params["embed"]["tokens"][token, token] = 1
    params["embed"]["positions"][np.arange(25), position] = 1
    wq[0, position, 0, np.maximum(np.arange(25) - 1, 0)] = wk[0, position, 0, np.arange(25)] = 3
    wv[0, token, 0, token] = wo[0, 0, token, before] = 1
    wq[1, token, 1, token] = wk[1, before, 1, token] = 3
    wv[1, token, 1, token] = 1
    wo[1, 1, token, token] = 5
    return model_of(HF_HAND, jax.tree.map(jnp.asarray, params))


def different_tokens(count: int, vocabulary: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([1 + rng.permutation(vocabulary - 1)[:length] for _ in range(count)])


def test_planted_heads_are_found_and_needed() -> None:
    lm = by_hand()
    text = different_tokens(6, 16, L)
    heads = [(0, 0), (0, 1), (1, 0), (1, 1)]
    named: dict[str, Any] = {"neurons": [(1, 0), (1, 3)], "heads": heads}
    found = induction(lm, repeated(text, 0), sequences=text, controls=1, bootstrap_draws=50, **named)
    scores = found.heads.set_index(["layer", "head"])["score"]
    assert scores.idxmax() == (1, 1)
    assert scores[1, 1] > 0.9
    assert scores.drop((1, 1)).max() < 0.2
    loss = found.positions["loss"]
    assert loss[np.flatnonzero(predictions(L)[1])].max() < 1 < loss[:L].min()
    needed = found.head_sets[found.head_sets["kind"] == "single"].set_index("set")
    assert (needed.loc[["0.0", "1.1"], "loss_lo"] > 1).all()
    assert (needed.loc[["0.1", "1.0"], "loss"].abs() < 0.1).all()


HF_LEARNT = {
    "model_type": "gpt_neox",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 24,
    "max_position_embeddings": 32,
    "rotary_pct": 1.0,
    "use_parallel_residual": False,
}


@functools.cache
def learnt() -> LanguageModel:
    """Trained on nothing but random tokens that are repeated."""
    config = config_from_hf(HF_LEARNT)
    params = Decoder(config).init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        text = jax.random.randint(key, (32, 12), 1, 24)
        tokens = jnp.concatenate([jnp.zeros((32, 1), jnp.int32), text, text], 1)

        def loss(params: Any) -> jax.Array:
            lp = jax.nn.log_softmax(forward(config, params, tokens).logits)
            return -jnp.take_along_axis(lp[:, 12:-1], tokens[:, 13:, None], -1).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    start = (params, optimizer.init(params)), jax.random.split(jax.random.key(1), 300)
    (params, _), losses = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))(*start)
    assert losses[-1] < 0.5, f"the model did not learn to repeat: {losses[-1]}"
    return model_of(HF_LEARNT, params)


@pytest.mark.slow
def test_learnt_heads_are_found_and_needed() -> None:
    """Trained on repeats alone every head of the upper layer becomes one; they rely on a head below."""
    text = np.random.default_rng(2).integers(1, 24, (32, 12))
    upper, lower = ([(layer, head) for head in range(4)] for layer in (1, 0))
    found = induction(
        learnt(), repeated(text, 0), sequences=text, heads=[*upper, *lower], controls=0, bootstrap_draws=100
    )
    scores = found.heads.pivot(index="layer", columns="head", values="score")
    assert (scores.loc[1] > 0.8).all()
    assert (scores.loc[0] < 0.2).all()
    means = found.positions[found.positions["copy"] > 0].groupby("copy")["loss"].mean()
    assert means[2] < means[1] - 1
    assert (found.heads["is_above_threshold"] == (found.heads["layer"] == 1)).all()
    sets = found.head_sets.set_index("set")
    assert sets.loc["top 4", "loss_lo"] > 2
    assert sets.loc[[f"0.{head}" for head in range(4)], "loss"].median() < 0.5


@pytest.mark.slow
def test_out_of_memory_the_work_is_done_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, tokens, windows, found = of_random_model()
    tried: list[str] = []

    def refused_once(module: Any, name: str) -> None:
        measure = getattr(module, name)

        def small(*arguments: Any) -> Any:
            if (memory := arguments[-2]) > MEMORY:
                tried.append(name)
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
            return measure(*arguments[:-2], memory, arguments[-1])

        monkeypatch.setattr(module, name, small)

    monkeypatch.setattr("jaxconf.runtime.memory.LEAST", 1)
    parts = {
        "observe": study,
        "mean_ablations": mean_ablation,
        "scores_of_heads": study,
        "at_bos": heads,
        "scaling": scaling,
        "natural_induction": study,
    }
    for name, module in parts.items():
        refused_once(module, name)
    little = by_name(lm, tokens[:, 1 : L + 1], windows, 2 * MEMORY)
    # Heads are scored on text and on random tokens, and scaling has two texts.
    twice = ("scores_of_heads", "scaling")
    assert tried == [name for name in parts for _ in range(1 + (name in twice))]
    for field in dataclasses.fields(Induction):
        if field.name not in ("facts", "natural"):
            pd.testing.assert_frame_equal(getattr(little, field.name), getattr(found, field.name))


def test_clip_and_full_ablation_equal_running_the_edited_model() -> None:
    lm, tokens, _, found = of_random_model()
    first, second = halves(L)
    repeat = predictions(L)[1]
    scale = f"{final_norm_name(lm.config)}.hook_scale"
    sites = [f"blocks.{i}.mlp.hook_post" for i in range(lm.config.n_layers)]
    plain = lm.apply(tokens, capture=[*sites, scale])
    h = {site: np.array(plain.captured[site]) for site in sites}
    before = in_nats(plain.logits, tokens)
    np.testing.assert_allclose(found.positions["entropy"], before["entropy"].mean(0), atol=1e-5)
    np.testing.assert_allclose(found.positions["loss"], before["loss"].mean(0), atol=1e-5)
    np.testing.assert_allclose(found.positions["scale"], np.asarray(plain.captured[scale]).mean((0, 2)), rtol=1e-5)
    neurons = found.neurons.set_index(["layer", "neuron"])
    for row in found.sets.to_dict("records"):
        members = [tuple(map(int, name.split("."))) for name in row["members"].split(",")]
        edited = {site: value.copy() for site, value in h.items()}
        for layer, n in members:
            own = h[sites[layer]][:, :, n]
            mean, later = own[:, first].mean(), own[:, second].mean()
            clip = np.minimum(own, mean) if later > mean else np.maximum(own, mean)
            edited[sites[layer]][:, :, n] = clip if row["ablation"] == "clip" else mean
            assert neurons["activation_first"][layer, n] == pytest.approx(mean, abs=1e-6)
            assert neurons["weighted_change"][layer, n] == pytest.approx(
                (later - mean) * neurons["w_norm"][layer, n], abs=1e-5
            )
        masked = {}
        for layer, site in enumerate(sites):  # all layers, those without a member too: one program for every set
            own = np.isin(np.arange(lm.config.d_mlp), [n for at, n in members if at == layer])
            masked[site] = Ablate(jnp.asarray(own), jnp.asarray(edited[site]))
        for suffix, edits in (("", masked), ("_ln_frozen", {**masked, scale: Replace(plain.captured[scale])})):
            after = in_nats(lm.apply(tokens, edits=edits).logits, tokens)
            curve = found.ablations.set_index(["set", "ablation"]).loc[(row["set"], row["ablation"])]
            for name in ("entropy", "loss"):
                difference = after[name] - before[name]
                np.testing.assert_allclose(
                    curve[name + suffix], difference.mean(0), atol=1e-4, err_msg=f"{row['set']} {name}{suffix}"
                )
                assert row[name + suffix] == pytest.approx(difference[:, repeat].mean(), abs=1e-4)
                ratio = after[name].mean(0) / before[name].mean(0)
                np.testing.assert_allclose(curve[f"{name}{suffix}_ratio"], ratio, atol=1e-4)
                ratio = after[name][:, repeat].mean() / before[name][:, repeat].mean()
                assert row[f"{name}{suffix}_ratio"] == pytest.approx(ratio, abs=1e-4)
    assert found.sets.groupby("ablation")["loss"].agg(lambda loss: loss.abs().max()).gt(1e-3).all()
    by_ablation = found.sets.groupby("ablation")["kind"].value_counts().to_dict()
    own = {("clip", "neuron"): 3, ("clip", "set"): 1, ("clip", "random"): 3, ("full", "set"): 1, ("full", "random"): 3}
    assert by_ablation == own


def test_bos_ablation_and_scores_equal_whole_patterns() -> None:
    lm, tokens, _, found = of_random_model()
    repeat = predictions(L)[1]
    names = [f"blocks.{i}.attn.hook_pattern" for i in range(lm.config.n_layers)]
    plain = lm.apply(tokens, capture=names)
    before = in_nats(plain.logits, tokens)
    scores = found.heads.set_index(["layer", "head"])["score"]
    for layer, name in enumerate(names):
        pattern = np.asarray(plain.captured[name])
        for head in range(lm.config.n_heads):
            looked = [pattern[:, head, q, q - L + 1].mean() for q in range(L + 1, 2 * L + 1)]
            assert scores[layer, head] == pytest.approx(np.mean(looked), abs=1e-6)
    for row in found.head_sets.to_dict("records"):
        edits: dict[str, Any] = {}
        for layer, head in (tuple(map(int, name.split("."))) for name in row["members"].split(",")):
            # Only that head's pattern: those above it react to what it no longer says.
            mask = np.zeros((lm.config.n_heads, 1, 1), bool)
            mask[head] = True
            if names[layer] in edits:
                mask |= np.asarray(edits[names[layer]].mask)

            edits[names[layer]] = Ablate(jnp.asarray(mask), jnp.asarray(np.arange(tokens.shape[1]) == 0, jnp.float32))
        sites = [f"blocks.{i}.mlp.hook_post" for i in range(lm.config.n_layers)]
        output = lm.apply(tokens, edits=edits, capture=sites)
        after = in_nats(output.logits, tokens)
        for name in ("entropy", "loss"):
            assert row[name] == pytest.approx((after[name] - before[name])[:, repeat].mean(), abs=1e-4)
            ratio = after[name][:, repeat].mean() / before[name][:, repeat].mean()
            assert row[f"{name}_ratio"] == pytest.approx(ratio, abs=1e-4)
        own = found.head_activations[found.head_activations["heads"] == row["set"]].set_index("neuron")
        for neuron, values in own.iterrows():
            layer, n = map(int, str(neuron).split("."))
            expected = np.asarray(output.captured[sites[layer]])[:, repeat, n].mean()
            assert values["activation_ablated"] == pytest.approx(expected, abs=1e-5)
    assert found.head_sets["loss"].abs().max() > 1e-3


def test_heads_are_scored_on_random_tokens_too() -> None:
    lm, tokens, windows, found = of_random_model()
    texts = Texts(tokens, windows, np.ones(windows.shape, bool), None, {})
    drawn = Setting(lm, texts, 0, 0, MEMORY, lambda what, done, total: None).random
    assert drawn.shape == tokens.shape
    assert (drawn[:, 0] == 0).all()
    assert (drawn[:, 1:] != 0).all()
    assert (drawn[:, 1 : L + 1] == drawn[:, L + 1 :]).all()
    assert (drawn[:, 1:] != tokens[:, 1:]).mean() > 0.9
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(lm.config.n_layers)]
    captured = lm.apply(drawn, capture=names).captured
    scores = found.heads.set_index(["layer", "head"])["score_random"]
    for layer, name in enumerate(names):
        pattern = np.asarray(captured[name])
        for head in range(lm.config.n_heads):
            looked = [pattern[:, head, q, q - L + 1].mean() for q in range(L + 1, 2 * L + 1)]
            assert scores[layer, head] == pytest.approx(np.mean(looked), abs=1e-6)


def test_each_rule_names_its_heads() -> None:
    on_text = np.array([[0.1, 0.9, 0.3, 0.0], [0.2, 0.8, 0.0, 0.1]])  # two are a quarter
    on_random = np.array([[0.69, 0.71, 0.0, 0.0], [0.0, 0.2, 0.95, 0.7]])
    table = table_of_scores(on_text, on_random).set_index(["layer", "head"])
    assert table.index[table["is_highest"]].tolist() == [(0, 1), (1, 1)]
    assert table.index[table["is_above_threshold"]].tolist() == [(0, 1), (1, 2)]
    assert (table["score"][1, 1], table["score_random"][1, 2]) == (0.8, 0.95)
    found = dataclasses.replace(of_random_model()[-1], heads=table.reset_index())
    assert "on random tokens, where 1.2, 0.1 have a score above its threshold of 0.7" in " ".join(sentences(found))
    none = dataclasses.replace(found, heads=table.assign(is_above_threshold=False).reset_index())
    assert "where no head has a score above" in " ".join(sentences(none))


def test_sentences_tell_both_ablations_with_their_ratios() -> None:
    *_, found = of_random_model()
    before = found.positions["entropy"][predictions(L)[1]].mean()
    said = sentences(found)
    for ablation, begins in (
        ("clip", "Clip ablation of the 3 chosen"),
        ("full", "The paper clips single neurons only"),
    ):
        row = found.sets[(found.sets["ablation"] == ablation) & (found.sets["kind"] == "set")].iloc[0]
        (own,) = [sentence for sentence in said if sentence.startswith(begins)]
        assert f"by {row['entropy']:.3g} nats" in own
        assert f"ratio {1 + row['entropy'] / before:.3f}" in own


def test_sentences_say_that_the_papers_protocol_leaves_no_window() -> None:
    *_, found = of_random_model()
    natural = found.natural
    assert natural is not None
    assert (
        "drops windows with a BOS or EOS inside: 0 of 15 with such tokens. In 15 of the others" in sentences(found)[-1]
    )
    ours = natural.sets[natural.sets["protocol"] == "ours"]
    alone = dataclasses.replace(natural, sets=ours, counts={**natural.counts, "windows_dropped": 15})
    said = sentences(dataclasses.replace(found, natural=alone))[-1]
    assert said == "The paper drops windows with a BOS or EOS inside: 15 of 15 with such tokens. None is left."


@jax.jit
def unchanged_and_change(before: np.ndarray, after: np.ndarray) -> tuple[Unchanged, Change]:
    return unchanged(before), change(before, after)


def test_doses_equal_running_the_edited_model() -> None:
    lm, tokens, windows, found = of_random_model()
    chosen = [tuple(map(int, name.split("."))) for name in found.facts["chosen"]]
    sites = [f"blocks.{i}.mlp.hook_post" for i in range(lm.config.n_layers)]
    kept = np.broadcast_to((np.arange(24) >= 3) & (np.arange(24) < 23), windows.shape)
    for data, where, mask in (
        ("text", windows, kept),
        ("repeat", tokens, np.broadcast_to(predictions(L)[1], tokens.shape)),
    ):
        plain = lm.apply(where, capture=sites)
        target = np.roll(where, -1, 1)[mask]
        h = {site: np.asarray(plain.captured[site]) for site in sites}
        lp0 = log_softmax(np.asarray(plain.logits)[mask], -1)
        for row in found.doses[(found.doses["data"] == data) & (found.doses["set"] == "the set")].to_dict("records"):
            edits = {}
            for layer in {layer for layer, _ in chosen}:
                own = np.isin(np.arange(lm.config.d_mlp), [n for at, n in chosen if at == layer])
                edits[sites[layer]] = Replace(h[sites[layer]] * np.where(own, row["factor"], 1).astype(np.float32))
            if len(edits) > 1:  # the upper layer's activations, as they were, are what is scaled; others react
                edits = {
                    sites[layer]: Ablate(
                        np.isin(np.arange(lm.config.d_mlp), [n for at, n in chosen if at == layer]),
                        h[sites[layer]] * np.float32(row["factor"]),
                    )
                    for layer in {layer for layer, _ in chosen}
                }
            lp = log_softmax(np.asarray(lm.apply(where, edits=edits).logits, np.float64)[mask], -1)
            P, top = np.exp(lp), lp.argmax(1)
            right = np.eye(P.shape[1])[target]
            assert row["loss"] == pytest.approx(-lp[np.arange(len(lp)), target].mean(), abs=1e-4)
            assert row["entropy"] == pytest.approx(-(P * lp).sum(1).mean(), abs=1e-4)
            assert row["brier"] == pytest.approx(((P - right) ** 2).sum(1).mean(), abs=1e-4)
            assert row["top1"] == pytest.approx((top == target).mean(), abs=1e-9)
            temperature, explained = best_temperature(*unchanged_and_change(lp0, lp.astype(np.float32)))
            assert row["temperature"] == pytest.approx(temperature, abs=1e-3)
            if row["factor"] == 1:
                assert row["temperature"] == pytest.approx(1, abs=1e-6)
            else:
                assert row["explained"] == pytest.approx(explained, abs=1e-3)


def test_natural_pairs_are_looked_at_where_they_are() -> None:
    lm, _, _, found = of_random_model()
    windows = with_repeats(lm.config.vocab_size)
    assert found.natural is not None
    pairs = found.natural.pairs
    assert pairs["window"].tolist() == list(range(0, 30, 2))
    assert (pairs["first"] == 9).all()
    assert (pairs["second"] == 25).all()
    assert pairs["repeats"].tolist() == [bool(windows[s, 26] == windows[s, 10]) for s in range(0, 30, 2)]
    site = "blocks.1.mlp.hook_post"
    output = lm.apply(windows[::2], capture=[site])
    of = in_nats(output.logits, windows[::2])
    np.testing.assert_allclose(pairs["entropy_second"], of["entropy"][:, 25], atol=1e-5)
    np.testing.assert_allclose(pairs["loss_first"], of["loss"][:, 9], atol=1e-5)
    top = np.asarray(output.logits).argmax(-1)[:, 25]
    np.testing.assert_array_equal(pairs["induced"], top == windows[::2, 10])
    h = np.asarray(output.captured[site])
    own = found.natural.activations.set_index(["protocol", "neuron", "offset"]).loc["ours"]
    for offset in range(-5, 2):
        assert own["activation_first"]["1.7", offset] == pytest.approx(h[:, 9 + offset, 7].mean(), abs=1e-6)
        assert own["activation_second"]["1.7", offset] == pytest.approx(h[:, 25 + offset, 7].mean(), abs=1e-6)
    mean, later = h[:, 4:10, 7].mean(), h[:, 20:26, 7].mean()
    edited = h.copy()
    edited[:, :, 7] = np.minimum(h[:, :, 7], mean) if later > mean else np.maximum(h[:, :, 7], mean)
    after = in_nats(lm.apply(windows[::2], edits={site: Replace(jnp.asarray(edited))}).logits, windows[::2])
    row = found.natural.sets.set_index(["protocol", "set"]).loc[("ours", "1.7")]
    assert row["ablation"] == "clip"
    assert row["loss"] == pytest.approx((after["loss"] - of["loss"])[:, 25].mean(), abs=1e-4)
    assert row["entropy"] == pytest.approx((after["entropy"] - of["entropy"])[:, 25].mean(), abs=1e-4)


def test_mistakes_are_refused() -> None:
    lm = random_model("layer")
    text = np.ones((2, L), np.int64)
    with pytest.raises(InputError, match="up to 31"):
        induction(lm, text, sequences=np.ones((2, 40), np.int64))
    with pytest.raises(InputError, match="at least 4"):
        induction(lm, text, sequences=np.ones((2, 3), np.int64))
    with pytest.raises(
        InputError, match=r"no head 2\.0 .* 2 layers of 2 heads each; give LAYER\.HEAD from 0\.0 to 1\.1"
    ):
        induction(lm, text, sequences=text, neurons=[(1, 0)], heads=[(2, 0)])
    with pytest.raises(InputError, match=r"no neuron 1\.48"):
        induction(lm, text, sequences=text, neurons=[(1, 48)])
    with pytest.raises(InputError, match="no 6 tokens occur exactly twice"):
        induction(lm, text, sequences=text, natural=np.tile(np.arange(20), (3, 1)), neurons=[(1, 0)], controls=0)
    without = LanguageModel(lm.config, lm.params, "made", None, Path(), {})
    with pytest.raises(InputError, match="no BOS"):
        induction(without, text, sequences=text)


def test_scores_hold_one_layer_of_attention_at_a_time() -> None:
    """By XLA's plan: twice the layers take less than half as much again."""

    def planned(layers: int) -> int:
        config = config_from_hf({**HF_LEARNT, "num_hidden_layers": layers, "max_position_embeddings": 512})
        tokens = jax.ShapeDtypeStruct((2, 401), jnp.int32)
        real = jax.ShapeDtypeStruct((2,), jnp.float32)
        plan = head_scores.lower(config, abstract_params(config), tokens, real).compile().memory_analysis()
        assert plan is not None
        return plan.temp_size_in_bytes

    assert planned(8) < 1.5 * planned(4)


@pytest.mark.command
def test_every_figure_is_drawn() -> None:
    *_, found = of_random_model()
    assert "induction_natural" in figures_of(found)
    for draw in figures_of(found).values():
        draw(found).draw_without_rendering()


def test_random_controls_are_others_of_the_same_layers() -> None:
    *_, found = of_random_model()
    chosen = set(found.facts["chosen"])
    for row in found.sets[found.sets["kind"] == "random"].to_dict("records"):  # clipped and fully ablated
        members = row["members"].split(",")
        assert not chosen & set(members)
        assert pd.Series([name.split(".")[0] for name in members]).value_counts().to_dict() == {"1": 2, "0": 1}


def test_facts_name_a_text_only_if_one_was_read() -> None:
    *_, found = of_random_model()
    assert not {"data", "repeated"} & set(found.facts)
    assert found.facts["length"] == L

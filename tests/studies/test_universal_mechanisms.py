"""What explains neurons, what they do to attention to BOS, and what they compose with: neurons that are planted.

Letters: s window, t position, l layer, n neuron, h head, d width.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from random_models import HF, random_model

from jaxconf.analysis.bos_attention import bos_directions, most_moved_head
from jaxconf.analysis.explained_variance import cells_of, features, held_out_r2
from jaxconf.analysis.unembedding import at_layer, readout
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Add
from jaxconf.studies.universal.attention import CANDIDATES, attention_table, judged_heads
from jaxconf.studies.universal.composition import composition_table
from jaxconf.studies.universal.explanations import FEATURES, explained, explained_by, explanations_table
from jaxconf.studies.universal.families import FamilyRules
from jaxconf.studies.universal.matches import Activity, CountedText

pytestmark = pytest.mark.usefixtures("compiled_quickly")

HERE = {**HF["layer"], "vocab_size": 260, "max_position_embeddings": 24, "num_hidden_layers": 3}
WITH_POSITIONS = {
    "model_type": "gpt2",
    **{"n_layer": 2, "n_embd": 32, "n_head": 2, "n_inner": 48, "vocab_size": 60, "n_positions": 24},
    **{"bos_token_id": 0, "eos_token_id": 0},
}
ONE_TOKEN, POSITION, CONSTANT = 3, 4, 5  # planted neurons of layer 0
TOKEN = 17


def silent(what: str, done: int, total: int) -> None:
    pass


def changed(lm: LanguageModel, **changes: Any) -> LanguageModel:
    """With leaves of the parameters changed in place, by functions of a numpy array; `mlp__w_in` is blocks.mlp.w_in."""
    params = jax.tree.map(np.array, lm.params)
    for path, change in changes.items():
        *rooms, leaf = path.split("__")
        change(functools.reduce(dict.__getitem__, rooms, params)[leaf])
    return dataclasses.replace(lm, params=jax.tree.map(jnp.asarray, params))


@functools.cache
def texts() -> CountedText:
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, 60, (40, 24))
    tokens[rng.random(tokens.shape) < 0.1] = TOKEN
    tokens[:, 0] = 0
    counted = (rng.random(tokens.shape) < 0.9) & (np.arange(24) > 0)
    return CountedText(tokens, counted, np.indices(tokens.shape)[0], np.ones(60, int))


@functools.cache
def planted() -> Activity:
    """A model in which a neuron fires on a token and another on late positions, and one is constant."""

    def tokens(w: np.ndarray) -> None:
        w[:, :2], w[TOKEN, 0] = 0, 8

    def positions(w: np.ndarray) -> None:
        w[:, 0], w[:, 1] = 0, np.linspace(-3, 3, 24)

    def w_in(w: np.ndarray) -> None:
        w[0][:, [ONE_TOKEN, POSITION, CONSTANT]] = 0
        w[0, 0, ONE_TOKEN] = w[0, 1, POSITION] = 10

    def b_in(b: np.ndarray) -> None:
        b[0, [ONE_TOKEN, POSITION, CONSTANT]] = -20, 0, 0

    def nothing(w: np.ndarray) -> None:
        w[0] = 0

    lm = changed(
        random_model("", 0, WITH_POSITIONS),
        embed__tokens=tokens,
        embed__positions=positions,
        blocks__mlp__w_in=w_in,
        blocks__mlp__b_in=b_in,
        blocks__attn__wo=nothing,
    )
    return Activity(lm, recorded(lm, texts().tokens)[:, texts().counted].mean(1))


def recorded(lm: LanguageModel, tokens: np.ndarray) -> np.ndarray:
    """The activations of all layers, float64 [l s t n]."""
    sites = [f"blocks.{layer}.mlp.hook_post" for layer in range(lm.config.n_layers)]
    captured = lm.apply(tokens, capture=sites).captured
    return np.stack([np.asarray(captured[site], np.float64) for site in sites])


@functools.cache
def found_r2(memory: int) -> dict[str, np.ndarray]:
    return explained(planted(), texts(), memory, silent)


def test_a_neuron_of_one_token_and_one_of_the_position_are_named() -> None:
    found = found_r2(10**8)
    names = explained_by(found, 0.2)
    assert found["r2_unigram"][0, ONE_TOKEN] > 0.8
    assert found["r2_position"][0, ONE_TOKEN] < 0.1
    assert found["r2_position"][0, POSITION] > 0.6
    assert found["r2_unigram"][0, POSITION] < 0.2
    assert names[0, [ONE_TOKEN, POSITION, CONSTANT]].tolist() == ["unigram", "position", None]
    assert np.isnan(found["r2_alphabet"]).all()  # the model has no tokenizer


@pytest.mark.parametrize("memory", [10**4, 10**8])
def test_explanations_are_those_of_numpy_layer_by_layer_or_at_once(memory: int) -> None:
    text, h = texts(), recorded(planted().lm, texts().tokens)
    of_text = features(text.tokens, text.documents, None, text.counted)
    for name, feature in of_text.items():
        cells = cells_of({name: feature}, text.counted)
        member = (cells.cell[text.counted] == np.arange(cells.bounds[-1])).astype(float)  # p c
        half = np.stack([member[:, ::2].sum(1), member[:, 1::2].sum(1)])
        for layer, means in enumerate(planted().means):
            away = h[layer][text.counted] - means
            expected = held_out_r2(member.T @ away, half @ away**2, cells.counts, means)
            np.testing.assert_allclose(found_r2(memory)[f"r2_{name}"][layer], expected, atol=1e-4)


def test_the_coarser_feature_is_named_and_none_below_the_threshold() -> None:
    r2 = {name: np.full(6, -0.1) for name in FEATURES}
    r2["r2_unigram"] = np.array([0.5, 0.5, 0.1, 0.3, np.nan, 0.3])
    r2["r2_alphabet"] = np.array([0.46, 0.44, 0.05, np.nan, np.nan, 0.1])
    r2["r2_topic"] = np.array([0.4, 0.4, 0.1, 0.1, np.nan, 0.4])
    full = {f"r2_{name}": r2.get(f"r2_{name}", np.where(np.isnan(r2["r2_topic"]), np.nan, -0.1)) for name in FEATURES}
    named = explained_by(full, 0.2)
    assert named.tolist() == ["alphabet", "unigram", "none", "unigram", None, "topic"]
    first = pd.DataFrame({**full, "explained_by": named, "is_universal": [True, False, True, False, False, False]})
    table = explanations_table(first).set_index("feature")
    assert table["neurons"].to_dict() == {
        **{"unigram": 2, "alphabet": 1, "position": 0, "previous_token": 0, "topic": 1, "none": 1}
    }
    assert table.loc["unigram", ["universal", "share_of_universal", "share_of_others"]].tolist() == [0, 0.0, 0.5]
    assert table.loc["unigram", ["r2_of_universal", "r2_of_others"]].tolist() == [0.3, 0.3]
    assert table.loc["alphabet", ["universal", "share_of_universal", "share_of_others"]].tolist() == [1, 0.5, 0.0]
    assert table.loc["alphabet", "p"] == pytest.approx(2 / 6)  # one of the two universal neurons is drawn at random


@functools.cache
def switched() -> tuple[LanguageModel, np.ndarray, pd.DataFrame]:
    """A model in which 0.2 calls head 1.1 to BOS and 0.6 calls it away; its windows; and the neurons of the study."""
    tokens = np.random.default_rng(2).integers(1, 260, (4, 24))
    tokens[:, 0] = 0
    plain = random_model("", 0, HERE)
    towards = np.asarray(bos_directions(plain.config, plain.params, tokens))[1, 1]

    def w_out(w: np.ndarray) -> None:
        w[0, 2], w[0, 6] = (sign * 2 * towards / np.linalg.norm(towards) for sign in (1, -1))

    lm = changed(plain, blocks__mlp__w_out=w_out)
    directions, std = np.asarray(bos_directions(lm.config, lm.params, tokens)), recorded(lm, tokens).std((1, 2))
    frames = []
    for layer in range(2):
        writes = np.asarray(lm.params["blocks"]["mlp"]["w_out"])[layer]
        moved = most_moved_head(writes - writes.mean(1, keepdims=True), directions[layer + 1 :].reshape(-1, 32))
        heads = [f"{layer + 1 + i // 2}.{i % 2}" for i in moved.head]
        columns = {"bos_head": heads, "bos_change": moved.change * std[layer], "activation_std": std[layer]}
        frames.append(pd.DataFrame({"layer": layer, "neuron": np.arange(48), **columns}))
    return lm, tokens, pd.concat(frames, ignore_index=True)


def test_a_neuron_that_switches_a_head_off_is_confirmed_by_ablation() -> None:
    lm, tokens, frame = switched()
    table = attention_table(lm, tokens, frame, FamilyRules(), 0, silent)
    assert table.groupby(["layer", "kind"])["neuron"].nunique().tolist() == [CANDIDATES] * 4
    assert table.groupby("layer").size().tolist() == [2 * CANDIDATES * 4, 2 * CANDIDATES * 2]
    judged = judged_heads(table, "candidate").set_index(["layer", "neuron"])
    for neuron, sign in ((2, 1), (6, -1)):
        row = judged.loc[(0, neuron)]
        assert row["head"] == "1.1"
        assert row["confirmed"]
        assert sign * row["bos_change_ablated"] > 0.01
        assert sign * row["bos_change"] > 0
    assert not table[table["kind"] == "random"]["confirmed"].any()
    of_random = table[table["kind"] == "random"].groupby("layer")["bos_change_ablated"].agg(lambda x: x.abs().max())
    assert (table["chance"] == table["layer"].map(of_random)).all()


def test_the_table_of_attention_is_that_of_the_edited_weights() -> None:
    """Against taking from the stream what the neuron writes at every position but 0."""
    lm, tokens, frame = switched()
    table = attention_table(lm, tokens, frame, FamilyRules(), 0, silent)
    row = table[(table["layer"] == 0) & (table["neuron"] == 2) & (table["head"] == "2.0")].iloc[0]
    site, pattern = "blocks.0.mlp.hook_post", "blocks.2.attn.hook_pattern"
    unedited = lm.apply(tokens, capture=[site, pattern]).captured
    h = np.asarray(unedited[site], np.float64)[..., 2]
    write = np.asarray(lm.params["blocks"]["mlp"]["w_out"])[0, 2] * h[..., None] * (np.arange(24) > 0)[:, None]
    edits = {"blocks.0.hook_resid_post": Add(jnp.asarray(-write, jnp.float32))}
    after = np.asarray(lm.apply(tokens, edits=edits, capture=[pattern]).captured[pattern], np.float64)[:, 0, 1:, 0]
    before, h = np.asarray(unedited[pattern], np.float64)[:, 0, 1:, 0], h[:, 1:]
    std = frame.set_index(["layer", "neuron"])["activation_std"][0, 2]
    expected = [before.mean(), (after - before).mean(), np.abs(after - before).mean()]
    names = ["attention", "attention_change", "attention_abs_change"]
    np.testing.assert_allclose(row[names].tolist(), expected, atol=1e-5)
    assert row["bos_change_ablated"] == pytest.approx(std * (h * (before - after)).sum() / (h**2).sum(), abs=1e-5)


def test_a_composed_pair_is_found_beside_random_pairs() -> None:
    plain = random_model("", 0, HERE)
    gain = np.asarray(plain.params["blocks"]["ln2"]["scale"])[2]
    write = np.asarray(plain.params["blocks"]["mlp"]["w_out"])[0, 3]

    def w_in(w: np.ndarray) -> None:
        w[2, :, 7] = -2 * write / gain

    lm = changed(plain, blocks__mlp__w_in=w_in)
    frame = pd.DataFrame({"layer": np.repeat(range(3), 48), "neuron": np.tile(range(48), 3)})
    table = composition_table(lm, frame.assign(is_universal=frame["neuron"] == 3), 0, silent)
    assert table.groupby(["layer", "side"]).size().to_dict() == {
        **{(0, "out"): 48, (1, "in"): 48, (1, "out"): 48},
        (2, "in"): 48,
    }
    rows = table.set_index(["layer", "neuron", "side"])
    for own, partner in (((0, 3, "out"), [2, 7]), ((2, 7, "in"), [0, 3])):
        assert rows.loc[own, ["partner_layer", "partner_neuron"]].tolist() == partner
        assert rows.loc[own, "cosine"] == pytest.approx(-1, abs=1e-4)
    assert (table["cosine"].abs() > table["chance"]).sum() == 2
    assert table["is_universal"].tolist() == (table["neuron"] == 3).tolist()
    # By definition, in numpy.
    seen = readout(lm.config, lm.params)
    writes = [np.asarray(at_layer(lm.config, lm.params, seen, "paper", layer).w_out) for layer in range(3)]
    scale, weights = np.asarray(lm.params["blocks"]["ln2"]["scale"]), np.asarray(lm.params["blocks"]["mlp"]["w_in"])
    read = [(weights[layer] * scale[layer][:, None]).T for layer in range(3)]
    read = [of - of.mean(1, keepdims=True) for of in read]
    writes, read = ([x / np.linalg.norm(x, axis=1, keepdims=True) for x in of] for of in (writes, read))
    cosine = {(i, j): writes[i] @ read[j].T for i in range(3) for j in range(i + 1, 3)}
    for row in table[table["side"] == "out"].to_dict("records"):
        others = {j: cosine[row["layer"], j][row["neuron"]] for j in range(row["layer"] + 1, 3)}
        best = max(others, key=lambda j, others=others: np.abs(others[j]).max())
        assert row["partner_layer"] == best
        assert abs(row["cosine"]) == pytest.approx(np.abs(others[best]).max(), abs=1e-5)
        of_pairs = np.quantile(np.abs(cosine[row["layer"], best]), 0.99)
        assert row["random"] == pytest.approx(of_pairs, rel=0.05)


def test_a_single_layer_has_nothing_to_compose_with() -> None:
    lm = random_model("", 0, {**HERE, "num_hidden_layers": 1})
    frame = pd.DataFrame({"layer": 0, "neuron": range(48), "is_universal": True})
    assert composition_table(lm, frame, 0, silent).empty
    assert attention_table(lm, texts().tokens, frame, FamilyRules(), 0, silent).empty

"""Neurons that recur: correlations against numpy's, twins that are found, strangers that are not, and families.

Letters: s window, t position, l layer, n neuron, h head, d width.
"""

import dataclasses
import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from commands import refusal
from hub_models import TEXT
from meshes import on_mesh
from parameters import marked
from random_models import HF, counts_for, random_model

from jaxconf.analysis.bos_attention import bos_directions
from jaxconf.analysis.correlation import block_layers
from jaxconf.analysis.moments import activations
from jaxconf.analysis.unembedding import at_layer, readout
from jaxconf.cli import main
from jaxconf.data.corpus import END, train_tokenizer
from jaxconf.data.token_counts import count_tokens
from jaxconf.models.checkpoint import save_params
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.models.sites import Add
from jaxconf.studies.universal import neurons as of_neurons
from jaxconf.studies.universal.families import FamilyRules, families_table
from jaxconf.studies.universal.figures import FIGURES
from jaxconf.studies.universal.matches import Activity, CountedText, match_table
from jaxconf.studies.universal.sentences import sentences
from jaxconf.studies.universal.study import Universality, universal

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")

# The command's models have the shapes of the others, so that programs are compiled once.
HERE = {**HF["layer"], "vocab_size": 260, "max_position_embeddings": 24}
MEMORY = 8 * 10**4  # so little that layers are correlated one by one, and windows run one after the other
SILENT, OFFSET = (0, 3), (1, 5)  # a neuron that never acts, and one whose mean is far larger than its deviation


def mlp_changed(lm: LanguageModel, change: Any) -> LanguageModel:
    """With the MLP's parameters changed, by name, as numpy arrays."""
    mlp = {name: np.array(value) for name, value in lm.params["blocks"]["mlp"].items()}
    params = {**lm.params, "blocks": {**lm.params["blocks"], "mlp": jax.tree.map(jnp.asarray, change(mlp))}}
    return dataclasses.replace(lm, params=params)


@functools.cache
def first() -> LanguageModel:
    def change(mlp: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mlp["w_in"][SILENT[0], :, SILENT[1]] = mlp["b_in"][SILENT] = 0
        mlp["b_in"][OFFSET] = 100
        mlp["w_out"][OFFSET] = 0
        return mlp

    return mlp_changed(random_model("", 0, HERE), change)


@functools.cache
def permuted() -> tuple[LanguageModel, np.ndarray]:
    """The first model with the neurons of each layer in another order, and the order [l n]."""
    order = np.stack([np.random.default_rng(layer).permutation(48) for layer in range(2)])

    def change(mlp: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        at = {"w_in": 2, "b_in": 1, "w_out": 1}  # where the neurons' axis stands
        return {
            name: np.stack([np.take(x[i], order[i], at[name] - 1) for i in range(2)]) if name in at else x
            for name, x in mlp.items()
        }

    return mlp_changed(first(), change), order


def matched(models: list[LanguageModel], tokens: np.ndarray, **how: Any) -> Universality:
    """`jaxconf.universal` with token counts of its own."""
    return universal(models, tokens, **{"counts": counts_for(models[0]), **how})


@functools.cache
def windows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, 260, (21, 24))
    tokens[:, 0] = 0
    return tokens, (rng.random(tokens.shape) < 0.8) & (np.arange(24) < 23)


@functools.cache
def of_seeds() -> Universality:
    """The first model beside its permuted copy and a model of another seed."""
    tokens, kept = windows()
    return matched([first(), permuted()[0], random_model("", 7, HERE)], tokens, kept=kept, effects=0, memory=MEMORY)


@functools.cache
def recorded(index: int) -> np.ndarray:
    """The activations of each model of `of_seeds` at the positions that count, float64 [l n p]."""
    lm = [first(), permuted()[0], random_model("", 7, HERE)][index]
    tokens, kept = windows()
    sites = [f"blocks.{layer}.mlp.hook_post" for layer in range(2)]
    captured = lm.apply(tokens, capture=sites).captured
    return np.stack([np.asarray(captured[site], np.float64)[kept].T for site in sites])


def correlations(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """[l n L m], by numpy."""
    rows = ours.reshape(-1, ours.shape[-1]), theirs.reshape(-1, theirs.shape[-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.corrcoef(*rows)[: len(rows[0]), len(rows[0]) :]
    return found.reshape(*ours.shape[:2], *theirs.shape[:2])


def test_every_neuron_finds_its_twin() -> None:
    found, order = of_seeds(), permuted()[1]
    top = found.matches[(found.matches["model"] == 1) & (found.matches["rank"] == 0)]
    assert len(top) == 2 * 48 - 1
    assert (top["match_layer"] == top["layer"]).all()
    np.testing.assert_array_equal(order[top["layer"], top["match_neuron"]], top["neuron"])
    np.testing.assert_allclose(top["correlation"], 1, atol=1e-5)
    np.testing.assert_allclose(top["excess"], 1 - top["baseline"], atol=1e-5)


def test_a_constant_neuron_has_no_match() -> None:
    found = of_seeds()
    of_first = found.neurons[found.neurons["model"] == 0].set_index(["layer", "neuron"])
    assert of_first["correlation"].isna().sum() == 1
    assert np.isnan(of_first.loc[SILENT, "excess"])
    assert not of_first.loc[SILENT, "is_universal"]
    assert not ((found.matches["layer"] == SILENT[0]) & (found.matches["neuron"] == SILENT[1])).any()
    twin = int(np.flatnonzero(permuted()[1][0] == SILENT[1])[0])
    to_twin = (
        (found.matches["model"] == 1) & (found.matches["match_layer"] == 0) & (found.matches["match_neuron"] == twin)
    )
    assert not (to_twin & (found.matches["correlation"] > -1)).any()


@pytest.mark.parametrize("index", [1, 2])
def test_matches_are_those_of_numpy(index: int) -> None:
    matches = of_seeds().matches
    matches = matches[matches["model"] == index]
    expected = correlations(recorded(0), recorded(index))
    ours, theirs = (
        tuple(matches[name].to_numpy() for name in names)
        for names in (("layer", "neuron"), ("match_layer", "match_neuron"))
    )
    np.testing.assert_allclose(matches["correlation"], expected[*ours, *theirs], atol=1e-5)
    ranked = -np.sort(-np.nan_to_num(expected.reshape(2, 48, -1), nan=-1), -1)
    np.testing.assert_allclose(matches["correlation"], ranked[*ours, matches["rank"]], atol=1e-5)
    assert matches.groupby(["layer", "neuron"]).size().eq(5).all()


@pytest.mark.parametrize("index", [1, 2])
def test_the_baseline_is_that_of_layers_rotated_before_they_are_correlated(index: int) -> None:
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), index), 2)
    theirs = recorded(index)
    R = np.stack([np.asarray(jax.random.orthogonal(key, 48), np.float64) for key in keys])
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(48), R.shape), atol=1e-5)
    expected = correlations(recorded(0), np.einsum("lmp,lmn->lnp", theirs, R)).max((2, 3))
    top = of_seeds().matches
    top = top[(top["model"] == index) & (top["rank"] == 0)]
    np.testing.assert_allclose(top["baseline"], expected[top["layer"], top["neuron"]], atol=1e-5)


def test_unrelated_models_share_no_neuron() -> None:
    tokens, _ = windows()
    found = matched([random_model("", 1, HERE), random_model("", 7, HERE)], tokens, effects=0, memory=MEMORY)
    assert not found.neurons["is_universal"].fillna(False).any()
    assert found.layers["universal"].tolist() == [0, 0]
    assert found.neurons["excess"].mean() == pytest.approx(0, abs=0.1)
    assert "0 of 96 neurons" in sentences(found)[0]


def test_means_over_the_other_models_make_a_neuron_universal() -> None:
    found = of_seeds()
    top = found.matches[found.matches["rank"] == 0].pivot(index=["layer", "neuron"], columns="model", values="excess")
    of_first = found.neurons[found.neurons["model"] == 0].set_index(["layer", "neuron"])
    np.testing.assert_allclose(of_first["excess"].dropna(), top.mean(axis=1), atol=1e-12)
    assert (of_first["is_universal"].to_numpy(bool) == (of_first["excess"] >= 0.5)).all()
    assert found.neurons[found.neurons["model"] > 0]["is_universal"].isna().all()
    assert found.layers["universal"].sum() == of_first["is_universal"].sum()


@pytest.mark.command
@pytest.mark.parametrize(("cosine", "told"), [(0.9, False), (0.42, True)])
def test_an_uncertain_frequency_direction_is_told(cosine: float, told: bool) -> None:
    facts = of_seeds().facts | {"counts_tokens": 4096, "counts_cosine": cosine}
    said = " ".join(sentences(dataclasses.replace(of_seeds(), facts=facts)))
    assert ("4,096 tokens" in said and "0.42" in said) == told


def test_every_figure_is_drawn(drawn_truly: None) -> None:
    for draw in FIGURES.values():
        draw(of_seeds()).draw_without_rendering()


@functools.cache
def of_other_shape() -> tuple[LanguageModel, LanguageModel, np.ndarray, list[np.ndarray]]:
    """Two models of different shapes, the positions that count, and the activations [l n p].

    With different shapes no axis can be taken for another.
    """
    tokens, kept = windows()
    lms = random_model("", 0, HERE), random_model("", hf={**HERE, "num_hidden_layers": 3, "intermediate_size": 40})
    counted = kept & (np.arange(24) > 0)
    h = [np.asarray(activations(lm.config, lm.params, tokens), np.float64)[:, counted].transpose(0, 2, 1) for lm in lms]
    return *lms, counted, h


def match_rows(lm: LanguageModel, other: LanguageModel, memory: int) -> pd.DataFrame:
    *_, counted, h = of_other_shape()
    means = [x.mean(-1) for x in h]
    first, second = Activity(lm, means[0]), Activity(other, means[1])
    text = CountedText(windows()[0], counted, windows()[0], np.ones(260, int))
    return match_table(first, second, text, jax.random.key(1), memory, lambda what, done, total: None)


@pytest.mark.slow
@pytest.mark.parametrize("memory", [MEMORY, 10**8])
def test_models_of_different_shapes_are_matched(memory: int) -> None:
    ours, theirs, _, h = of_other_shape()
    matches = match_rows(ours, theirs, memory)
    expected = correlations(*h)
    at = tuple(matches[name].to_numpy() for name in ("layer", "neuron", "match_layer", "match_neuron"))
    np.testing.assert_allclose(matches["correlation"], expected[at], atol=1e-5)
    ranked = -np.sort(-expected.reshape(2, 48, -1), -1)
    np.testing.assert_allclose(matches["correlation"], ranked[*at[:2], matches["rank"]], atol=1e-5)
    assert set(matches["match_layer"]) == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(2, 2), (4, 1), (1, 8)])
def test_a_mesh_changes_nothing(mesh: tuple[int, int]) -> None:
    ours, theirs, *_ = of_other_shape()
    whole = match_rows(ours, theirs, 10**8)
    pd.testing.assert_frame_equal(
        whole, match_rows(on_mesh(ours, *mesh), on_mesh(theirs, *mesh), 10**8), atol=1e-5, rtol=0
    )


def test_layers_are_correlated_one_by_one_where_memory_is_short() -> None:
    assert block_layers(2, 48, 2, 48, MEMORY // 2) == (1, 1)
    assert block_layers(2, 48, 3, 40, 10**8) == (2, 3)


def test_moments_of_activations_are_those_of_numpy() -> None:
    frame = of_seeds().neurons
    _, kept = windows()
    position = np.broadcast_to(np.arange(24), kept.shape)[kept]
    for index in range(3):
        h = recorded(index)
        of_model = frame[frame["model"] == index]
        groups = np.stack(
            [h[..., position == t].mean(-1) for t in np.unique(position)[np.unique(position, return_inverse=True)[1]]],
            -1,
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = {
                "activation_mean": h.mean(-1),
                "activation_std": h.std(-1),
                "activation_skew": scipy.stats.skew(h, axis=-1),
                "activation_kurtosis": scipy.stats.kurtosis(h, axis=-1, fisher=False),
                "position_r2": groups.var(-1) / h.var(-1),
            }
        for name, values in expected.items():
            np.testing.assert_allclose(of_model[name], values.ravel(), rtol=2e-3, atol=1e-4, err_msg=name)


def test_what_a_neuron_reads_and_writes_has_a_cosine() -> None:
    lm, found = first(), of_seeds().neurons
    mlp, gain = lm.params["blocks"]["mlp"], np.asarray(lm.params["blocks"]["ln2"]["scale"])
    read = np.moveaxis(np.asarray(mlp["w_in"]) * gain[..., None], 1, 2)
    a, b = (x - x.mean(-1, keepdims=True) for x in (read, np.asarray(mlp["w_out"])))
    expected = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-9)
    np.testing.assert_allclose(found[found["model"] == 0]["in_out_cosine"], expected.ravel(), atol=1e-5)


def test_a_neuron_that_calls_a_head_to_bos_is_found() -> None:
    """And ablating it does what its sign says."""
    tokens, kept = windows()
    plain = random_model("", 0, HERE)
    towards = np.asarray(bos_directions(plain.config, plain.params, tokens[:8]))[1, 1]

    def change(mlp: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mlp["w_out"][0, 2], mlp["w_out"][0, 6] = (sign * 0.5 * towards / np.linalg.norm(towards) for sign in (1, -1))
        return mlp

    lm = mlp_changed(plain, change)
    found = matched([lm, random_model("", 7, HERE)], tokens, kept=kept, effects=0, memory=MEMORY)
    neurons = found.neurons[found.neurons["model"] == 0].set_index(["layer", "neuron"])
    assert neurons.loc[[(0, 2), (0, 6)], "bos_head"].tolist() == ["1.1", "1.1"]
    assert neurons["is_attention_deactivating_neuron"][0, 2]
    assert neurons["is_attention_activating_neuron"][0, 6]
    assert not neurons["is_attention_deactivating_neuron"][0, 6]
    assert neurons["bos_head"][1].isna().all()
    pattern = "blocks.1.attn.hook_pattern"
    for n, sign in ((2, 1), (6, -1)):
        write = (
            np.asarray(lm.params["blocks"]["mlp"]["w_out"][0, n])
            * neurons["activation_std"][0, n]
            * (np.arange(24) > 0)[:, None]
        )
        before, after = (
            np.asarray(
                lm.apply(
                    tokens, edits={"blocks.0.hook_resid_post": Add(jnp.asarray(x * write))}, capture=[pattern]
                ).captured[pattern]
            )
            for x in (0, 0.1)
        )
        change_of_head = 10 * (after - before)[:8, 1, 1:, 0].mean()
        assert np.sign(change_of_head) == sign
        assert change_of_head == pytest.approx(neurons["bos_change"][0, n], rel=0.2)


def test_planted_families_are_found() -> None:
    tokens, kept = windows()
    plain = random_model("", 0, HERE)
    seen = readout(plain.config, plain.params)
    W_U = np.asarray(seen.W_U)
    gain = np.asarray(plain.params["ln_final"]["scale"])
    null = np.linalg.svd(W_U)[0][:, -2]  # the very last is the all-ones direction

    def change(mlp: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mlp["w_out"][1, 0], mlp["w_out"][1, 1], mlp["w_out"][1, 2] = W_U[:, 9], -W_U[:, 9], null
        return mlp

    assert gain.std() > 0.1  # so that folding matters
    lm = mlp_changed(plain, change)
    found = matched([lm, lm], tokens, kept=kept, effects=0, memory=MEMORY)
    neurons = found.neurons[found.neurons["model"] == 0].set_index(["layer", "neuron"])
    for n, family in enumerate(("prediction", "suppression", "null_space")):
        assert neurons[f"is_{family}_neuron"][1, n], family
    assert neurons["rho"][1, 2] == pytest.approx(1, abs=1e-3)
    words = found.vocabulary[found.vocabulary["family"] == "prediction"]
    assert len(words) == 260
    w = np.asarray(at_layer(lm.config, lm.params, seen, "paper", 1).w_out)[int(words["neuron"].iloc[0].split(".")[1])]
    if words["neuron"].iloc[0].startswith("1."):
        np.testing.assert_allclose(
            words["cosine"], w @ W_U / np.linalg.norm(w) / np.linalg.norm(W_U, axis=0), atol=1e-5
        )
    assert words["word"].notna().sum() == 16


def test_families_are_counted_and_compared() -> None:
    """By hand: two of four neurons are of a family, and in two other models the matches of one are of it too."""
    nothing = dict.fromkeys(
        ("cos_freq", "cos_freq_chance", "logit_var", "logit_var_chance", "vocab_skew", "position_r2"), 0.0
    )
    nothing |= dict.fromkeys(
        ("vocab_kurtosis", "vocab_kurtosis_chance", "bos_change", "bos_cosine", "bos_cosine_chance"), 0.0
    )
    rho = {0: [0.9, 0.8, 0.1, 0.1], 1: [0.1, 0.9, 0.1, 0.1], 2: [0.9, 0.1, 0.1, 0.1]}
    frames = [
        pd.DataFrame({"model": model, "layer": 0, "neuron": range(4), **nothing, "rho": values, "rho_chance": 0.5})
        for model, values in rho.items()
    ]
    neurons = FamilyRules().apply(pd.concat(frames, ignore_index=True))
    neurons["is_universal"] = pd.Series([True, False, True, True, *[None] * 8], dtype="boolean")
    neurons["excess"] = [0.6, 0.2, 0.7, 0.5, *[np.nan] * 8]
    match = {1: [0, 1, 1, 3], 2: [0, 1, 2, 3]}
    matches = pd.concat(
        [
            pd.DataFrame(
                {"model": model, "layer": 0, "neuron": range(4), "rank": 0, "match_layer": 0, "match_neuron": to}
            )
            for model, to in match.items()
        ]
    )
    row = families_table(neurons, matches).set_index("family").loc["null_space"]
    assert (row["neurons"], row["universal"], row["share"], row["share_of_others"]) == (2, 1, 0.5, 1.0)
    assert row["p"] == pytest.approx(1.0)
    assert (row["excess"], row["excess_of_others"]) == pytest.approx((0.4, 0.6))
    assert row["recurs"] == 2 / 4  # 0.0 in the second other model, 0.1 in the first
    assert row["recurs_of_others"] == 1 / 4
    assert "entropy" not in families_table(neurons, matches)["family"].tolist()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of one tokenizer, and one in whose tokenizer a token has another name."""
    found = []
    for seed, name in enumerate(("one", "two", "strange")):
        folder = tmp_path_factory.mktemp("models") / name
        folder.mkdir()
        lm = random_model("", seed, HERE)
        (folder / "config.json").write_text(json.dumps(HERE))
        save_params(lm.config, lm.params, folder / "model.safetensors")
        train_tokenizer(iter(TEXT), 260).save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": END, "eos_token": END}))
        found.append(folder)
    tokenizer = json.loads((found[2] / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    a, b = [token for token in vocabulary if len(token) == 1][:2]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (found[2] / "tokenizer.json").write_text(json.dumps(tokenizer))
    return found


def test_effects_are_those_of_analyze_in_the_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, kept = windows()
    given = []

    def analyzed(lm: LanguageModel, tokens: np.ndarray, kept: np.ndarray, **options: Any) -> SimpleNamespace:
        given.append((tokens, kept))
        effects = {name: np.arange(48.0)[::-1] for name in of_neurons.EFFECTS}
        named = {"is_entropy_neuron": np.arange(48) == 4, "is_frequency_neuron": np.arange(48) == 5}
        return SimpleNamespace(frame=pd.DataFrame({"layer": 1, "neuron": np.arange(48), **effects, **named}))

    monkeypatch.setattr(of_neurons, "analyze", analyzed)
    found = matched([first(), permuted()[0]], tokens, kept=kept, effects=50, memory=MEMORY)
    for some, mask in given:
        np.testing.assert_array_equal(some.tokens, tokens[:2])  # as many whole windows as hold at most so many tokens
        np.testing.assert_array_equal(mask, kept[:2])
    neurons = found.neurons.set_index(["model", "layer", "neuron"])
    assert neurons.index[neurons["is_entropy_neuron"]].tolist() == [(0, 1, 4), (1, 1, 4)]
    assert neurons["ln_mediated"][0, 1, 7] == 40
    assert neurons["ln_mediated"][0, 0].isna().all()
    families = found.families.set_index("family")
    assert families.loc["entropy", "neurons"] == 1
    assert families.loc["entropy", "recurs"] == float(permuted()[1][1][4] == 4)
    others = neurons.loc[(0, 1)].drop(index=4)["is_universal"].astype(bool)
    assert families.loc["entropy", "share_of_others"] == pytest.approx(others.mean())  # of the last layer alone


@pytest.mark.command
@pytest.mark.parametrize("effects", marked([0, 128], quick=[0]))
def test_the_command_writes_its_page(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], effects: int
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"def f{i}(x):\n    return x * {i} + {i % 7}\n" for i in range(100)))
    out = tmp_path / "run"
    options = {"--data": text, "--tokens": 504, "--effects": effects, "--out": out}
    arguments = ["universal", *map(str, [*folders[:2], *(word for option in options.items() for word in option)])]
    main(arguments)
    said = capsys.readouterr().out.replace("\n", "")
    assert str(out / "universal.html") in said
    names = {file.name for file in out.iterdir()}
    names_of_tables = [field.name for field in dataclasses.fields(Universality) if field.name != "facts"]
    assert names_of_tables[5:] == ["explanations", "attention", "composition"]
    tables = {f"universal_{name}.parquet" for name in names_of_tables}
    assert names == tables | {f"{name}.png" for name in FIGURES} | {"universal.json", "universal.html"}
    stated = json.loads((out / "universal.json").read_text())
    assert stated["models"] == [str(folder) for folder in folders[:2]]
    assert all(sentence in said for sentence in stated["verdict"])
    counted = count_tokens([text.read_text()], load(folders[0]).tokenizer, stated["vocab_size"])
    assert (stated["counts_tokens"], stated["counts_types"]) == (counted.sum(), np.count_nonzero(counted))
    neurons = pd.read_parquet(out / "universal_neurons.parquet")
    assert len(neurons) == 2 * 96
    assert ("ln_mediated" in neurons) == bool(effects)
    assert (neurons["explained_by"].notna() == (neurons["model"] == 0)).all()
    assert (neurons["r2_alphabet"].notna() == (neurons["model"] == 0)).all()
    # On eight devices, all layers at once; the same on one, in blocks.
    lms = [load(folder) for folder in folders[:2]]
    alone = universal(lms, 504, data=str(text), effects=0, memory=MEMORY)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "universal_matches.parquet"), alone.matches, atol=1e-5, rtol=0)
    same = [column for column in alone.neurons if column != "bos_head"]
    pd.testing.assert_frame_equal(neurons[same], alone.neurons[same], atol=1e-3, rtol=1e-3)
    assert ("entropy" in set(pd.read_parquet(out / "universal_families.parquet")["family"])) == bool(effects)
    page = (out / "universal.html").read_text()
    assert all(words in page for words in ("Gurnee et al., 2024", "suppression", "data:image/png", str(folders[1])))
    assert all(words in page for words in ("were set to 0", "A feature of the text explains", "previous_token", " → "))
    before = (out / "universal.html").read_bytes()
    assert "--force" in refusal(capsys, *arguments)
    assert (out / "universal.html").read_bytes() == before


def test_mistakes_are_refused(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, strange = folders
    out = tmp_path / "run"
    assert "different vocabularies, of 260 and 260 tokens; give models with the same tokenizer" in refusal(
        capsys, "universal", one, strange, "--out", out
    )
    assert "two models or more" in refusal(capsys, "universal", one, "--out", out)
    assert "tokens is 0" in refusal(capsys, "universal", one, two, "--tokens", 0, "--out", out)
    assert "min_excess is 2" in refusal(capsys, "universal", one, two, "--min-excess", 2, "--out", out)
    assert "effects is -1" in refusal(capsys, "universal", one, two, "--effects", -1, "--out", out)
    assert not out.exists()
    tokens, _ = windows()
    with pytest.raises(InputError, match="of 260 and 72 tokens"):
        matched([first(), random_model("", hf={**HERE, "vocab_size": 72})], tokens)
    with pytest.raises(InputError, match="different meshes"):
        matched([first(), on_mesh(random_model("", 0, HERE), 2, 1)], tokens)
    with pytest.raises(InputError, match="two models or more"):
        matched([first()], tokens)

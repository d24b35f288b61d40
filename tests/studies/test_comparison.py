"""A model against itself, against a shuffled copy and against one that was trained on: what is known comes out, and figures equal those by hand.

Letters: n neuron, d width, s window, t position, v vocabulary. Losses and entropies in nats.
"""

import dataclasses
import gc
import itertools
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_model
from refusals import check_error, check_sentence

import jaxconf
from jaxconf.analysis import overlap
from jaxconf.analysis.calibration import BINS, Predicted, calibration, expected_calibration_error, window_sums
from jaxconf.analysis.overlap import candidates, chance_cosine, chance_iou, cosine_matrix, iou, norm_ratio, one_to_one
from jaxconf.cli import main
from jaxconf.data.corpus import train_tokenizer
from jaxconf.data.windows import kept_positions
from jaxconf.models.checkpoint import save_params
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.studies.comparison.figures import paragraphs
from jaxconf.studies.comparison.study import CANDIDATES, EFFECTS, SHARE, Comparison, compare_models, same_tokens

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")


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
    ("n", "heavy", "sizes"), [(6, None, (2, 3)), (7, None, (3, 3)), (7, ((0, 1, 2, 3), (2, 3, 4, 5)), (2, 3)), (5, None, (5, 1))]
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


def test_calibration_is_that_of_the_drawn_windows() -> None:
    rng = np.random.default_rng(3)
    loss, entropy, brier, confidence = rng.random((4, 5, 7))
    correct, kept = rng.random((2, 5, 7)) < 0.6
    sums = window_sums(Predicted(loss, entropy, brier, confidence, correct), kept)  # type: ignore[arg-type]
    assert sums["bin_count"].shape == (5, BINS)
    weights = np.array([[1, 1, 1, 1, 1], [0, 2, 0, 1, 2]])
    found = calibration(sums, weights)
    for draw, times in enumerate(weights):
        rows = np.repeat(np.arange(5), times)
        for name, values in (("loss", loss), ("entropy", entropy), ("brier", brier), ("accuracy", correct)):
            assert found[name][draw] == pytest.approx(values[rows][kept[rows]].mean())
        assert found["ece"][draw] == pytest.approx(expected_calibration_error(confidence[rows][kept[rows]], correct[rows][kept[rows]]))


TEXT = [f"def f{i}(x):\n    return x * {i} + {i % 7}\n" for i in range(400)]
OTHER = [f"Once upon a time there were {i} little goats, and {i % 5} of them were hungry.\n" for i in range(400)]
ORDER = np.random.default_rng(4).permutation(512)
LAST = {"w_in": 1, "b_in": 0, "w_out": 0}  # axis of the neurons


def shuffled(params: Any, order: np.ndarray) -> Any:
    """The same function, its last layer's neurons in another order."""
    copy = jax.tree.map(np.array, params)
    for name, axis in LAST.items():
        leaf = copy["blocks"]["mlp"][name]
        leaf[-1] = np.take(leaf[-1], order, axis)
    return copy


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """In Hugging Face layout: the bundled model with a shorter context; the same with shuffled neurons; one with perturbed weights and two
    neurons in each other's place, as if trained on; one with another tokenizer of as many tokens; one of another shape. And text."""
    root = tmp_path_factory.mktemp("models")
    (root / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXT))
    config = json.loads((jaxconf.BUNDLED / "config.json").read_text()) | {"max_position_embeddings": 64}
    bundled, rng = load(jaxconf.BUNDLED), np.random.default_rng(0)
    swapped = np.arange(512)
    swapped[[5, 6]] = [6, 5]
    noisy = jax.tree.map(lambda w: np.asarray(w * (1 + 0.2 * rng.standard_normal(w.shape)), np.float32), bundled.params)
    kinds = {"base": bundled.params, "shuffled": shuffled(bundled.params, ORDER), "tuned": shuffled(noisy, swapped), "other": noisy}
    for name, params in kinds.items():
        folder = root / name
        folder.mkdir()
        save_params(bundled.config, params, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(jaxconf.BUNDLED / file, folder / file)
    train_tokenizer(iter(OTHER), 260).save(str(root / "other" / "tokenizer.json"))
    shutil.copytree(root / "base", root / "wide")
    (root / "wide" / "config.json").write_text(json.dumps(config | {"intermediate_size": 600}))
    return {path.name.removesuffix(".jsonl"): path for path in root.iterdir()}


def loaded(folder: Path) -> LanguageModel:
    return dataclasses.replace(load(folder), name=folder.name)


Compared = tuple[LanguageModel, np.ndarray, Comparison]


@pytest.fixture(scope="module")
def compared(models: dict[str, Path]) -> Compared:
    """The base model beside itself, the shuffled one and the tuned one."""
    base = loaded(models["base"])
    tokens = jaxconf.windows(TEXT, base.tokenizer, n_tokens=128, length=64)
    return base, tokens, compare_models(base, [base, *(loaded(models[name]) for name in ("shuffled", "tuned"))], tokens, bootstrap_draws=50)


def test_a_model_is_like_itself(compared: Compared) -> None:
    *_, found = compared
    assert found.facts["tuned"] == ["base (2)", "shuffled", "tuned"]
    assert found.facts["weights_only"] == []
    same = found.overlaps[found.overlaps["model"] == "base (2)"]
    assert (same["iou"] == 1).all()
    assert (same["chance_hi"] < 0.2).all()
    own = found.neurons[found.neurons["model"] == "base (2)"]
    assert (own["match"] == own["neuron"]).all()
    np.testing.assert_allclose(own[["cosine", "cosine_index"]], 1, atol=1e-6)
    changes = found.changes[found.changes["model"] == "base (2)"]
    assert (changes["change"] == 0).all()
    np.testing.assert_allclose(changes["correlation"], 1)
    calibrated = found.calibration[found.calibration["model"].isin(["base", "base (2)"])]
    assert len(calibrated) == 10
    assert (calibrated[["change", "change_lo", "change_hi"]] == 0).all(axis=None)
    said = paragraphs(found)[0]
    assert "shares 10 of" in said
    assert "512 of 512 neurons keep their index" in said
    assert "no more than chance explains" in said


def test_shuffled_neurons_are_found_by_their_cosine_and_not_by_their_index(compared: Compared) -> None:
    *_, found = compared
    grid = found.overlaps[found.overlaps["model"] == "shuffled"]
    by_index, by_cosine = grid[grid["by"] == "index"], grid[grid["by"] == "cosine"]
    assert (by_cosine["iou"] == 1).all()
    assert ((by_index["chance_lo"] <= by_index["iou"]) & (by_index["iou"] <= by_index["chance_hi"])).all()
    assert by_index["iou"].mean() == pytest.approx(by_index["chance"].mean(), abs=0.05)
    own = found.neurons[found.neurons["model"] == "shuffled"]
    np.testing.assert_array_equal(own["match"], ORDER)
    np.testing.assert_allclose(own["cosine"], 1, atol=1e-6)
    assert own["cosine_index"].median() < 0.5
    pairs = found.pairs("shuffled")
    for name in ("w_norm", "logit_var", "ratio", "rho"):
        np.testing.assert_allclose(pairs[f"{name}_tuned"], pairs[f"{name}_base"], rtol=1e-4, atol=1e-6)
    for name in EFFECTS:  # of neurons that do something
        done = pairs["loss_abs_delta_base"] > 1e-3
        np.testing.assert_allclose(pairs[f"{name}_tuned"][done], pairs[f"{name}_base"][done], rtol=0.02, atol=2e-3)
    changes = found.changes[found.changes["model"] == "shuffled"].set_index("measure").loc[["w_norm", "logit_var", "ratio", "rho"]]
    np.testing.assert_allclose(changes["change"], 0, atol=1e-5)
    np.testing.assert_allclose(changes["correlation"], 1, atol=1e-3)
    np.testing.assert_allclose(found.calibration.query("model == 'shuffled'")["change"], 0, atol=1e-5)
    assert "the IoU is 1." in paragraphs(found)[1]


def test_random_sets_say_what_a_change_is_worth(compared: Compared) -> None:
    """The planted change of the candidates alone lies outside what random neurons show; one of all neurons does not."""
    lm, tokens, known = compared
    base = known.neurons[known.neurons["model"] == "base"]
    own = np.flatnonzero(base["is_candidate"])

    def scaled(by: np.ndarray, name: str) -> LanguageModel:
        w_out = lm.params["blocks"]["mlp"]["w_out"]
        mlp = {**lm.params["blocks"]["mlp"], "w_out": w_out.at[-1].multiply(jnp.asarray(by, w_out.dtype)[:, None])}
        return dataclasses.replace(lm, params={**lm.params, "blocks": {**lm.params["blocks"], "mlp": mlp}}, name=name)

    tuned = [scaled(np.where(np.isin(np.arange(512), own), 1.1, 1.0), "some"), scaled(np.full(512, 1.1), "all")]
    found = compare_models(
        dataclasses.replace(lm, folder=Path()), tuned, tokens, bootstrap_draws=0
    )  # without a tokenizer: weights are enough
    assert found.facts["weights_only"] == ["some", "all"]
    row = found.changes.set_index(["model", "measure"])
    assert row.loc[("some", "w_norm"), "change"] == pytest.approx(0.1 * base["w_norm"].iloc[own].mean(), rel=1e-5)
    assert row.loc[("some", "w_norm"), "change"] > row.loc[("some", "w_norm"), "random_hi"]
    heavy = base["w_norm"].nlargest(128)
    assert row.loc[("all", "w_norm"), "random_lo"] > 0.1 * heavy.min()
    assert row.loc[("all", "w_norm"), "random_hi"] < 0.1 * heavy.max()
    assert set(found.changes["measure"]) == {"w_norm", "logit_var", "ratio", "rho"}
    assert len(found.calibration) == len(found.reliability) == 0
    assert found.neurons["ln_mediated"].isna().all()


def by_hand(folder: Path, tokens: np.ndarray, chosen: list[int]) -> tuple[pd.DataFrame, dict[str, float], np.ndarray]:
    """The chosen neurons' figures, those of the predictions, and all write directions, straight from a GPT-NeoX checkpoint in float64 numpy, by
    the definitions: attention with rotary positions, one ablated neuron at a time. Positions kept: from 3 on, neither 0 nor before a 0.
    """
    w = {name.removeprefix("gpt_neox."): np.float64(x) for name, x in safetensors.numpy.load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text())
    (S, T), heads, d = tokens.shape, config["num_attention_heads"], config["hidden_size"]
    size = d // heads

    def norm(x: np.ndarray, name: str, scale: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) if scale is None else scale
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"], scale

    angle = np.arange(T)[:, None] / 10000 ** (np.arange(0, size, 2) / size)
    cos, sin = (np.tile(f(angle), 2)[None, :, None] for f in (np.cos, np.sin))

    def turned(x: np.ndarray) -> np.ndarray:
        return x * cos + np.concatenate([-x[..., size // 2 :], x[..., : size // 2]], -1) * sin

    x = w["embed_in.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        at = f"layers.{layer}"
        qkv = (
            norm(x, f"{at}.input_layernorm")[0] @ w[f"{at}.attention.query_key_value.weight"].T + w[f"{at}.attention.query_key_value.bias"]
        )
        q, k, v = np.split(qkv.reshape(S, T, heads, 3 * size), 3, -1)
        scores = np.einsum("sqhd,skhd->shqk", turned(q), turned(k)) / np.sqrt(size)
        pattern = scipy.special.softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf), -1)
        mixed = np.einsum("shqk,skhd->sqhd", pattern, v).reshape(S, T, d)
        x = x + mixed @ w[f"{at}.attention.dense.weight"].T + w[f"{at}.attention.dense.bias"]
        read = norm(x, f"{at}.post_attention_layernorm")[0] @ w[f"{at}.mlp.dense_h_to_4h.weight"].T + w[f"{at}.mlp.dense_h_to_4h.bias"]
        h = read * scipy.special.ndtr(read)
        x = x + h @ w[f"{at}.mlp.dense_4h_to_h.weight"].T + w[f"{at}.mlp.dense_4h_to_h.bias"]
    kept = np.zeros((S, T), bool)
    kept[:, 3:-1] = (tokens[:, 3:-1] != 0) & (tokens[:, 4:] != 0)
    target = np.roll(tokens, -1, 1)[kept]

    def predictions(x: np.ndarray, scale: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lp = scipy.special.log_softmax(norm(x, "final_layer_norm", scale)[0] @ w["embed_in.weight"].T, -1)[kept]
        return -lp[np.arange(len(lp)), target], -(np.exp(lp) * lp).sum(-1), lp

    writes = w[f"layers.{config['num_hidden_layers'] - 1}.mlp.dense_4h_to_h.weight"].T  # n d
    writes = writes - writes.mean(1, keepdims=True)
    W_U = w["final_layer_norm.weight"][:, None] * w["embed_in.weight"].T
    W_U = W_U - W_U.mean(0)
    W_U = W_U - W_U.mean(1, keepdims=True)
    U, values, _ = np.linalg.svd(W_U)
    assert values[-1] < 1e-9 * values[0]  # the all-ones direction
    null = U[:, -1 - max(1, round(0.01 * d)) : -1]
    loss, entropy, lp = predictions(x)
    scale, rows = norm(x, "final_layer_norm")[1], {}
    for n in chosen:
        length = np.linalg.norm(writes[n])
        logit_var = (writes[n] @ W_U / np.linalg.norm(W_U, axis=0) / length).var(ddof=1)
        ablated = x + (h[..., n].mean() - h[..., n])[..., None] * writes[n]
        after, frozen = predictions(ablated), predictions(ablated, scale)
        total = np.abs(after[0] - loss).mean()
        rows[n] = {
            "w_norm": length,
            "logit_var": logit_var,
            "ratio": length / np.log(logit_var),
            "rho": np.linalg.norm(null.T @ writes[n]) / length,
            "ln_mediated": 1 - np.abs(frozen[0] - loss).mean() / total,
            "loss_delta": (after[0] - loss).mean(),
            "loss_abs_delta": total,
            "entropy_delta": (after[1] - entropy).mean(),
            "entropy_abs_delta": np.abs(after[1] - entropy).mean(),
            "top1_change": (after[2].argmax(-1) != lp.argmax(-1)).mean(),
        }
    P, right = np.exp(lp), lp.argmax(-1) == target
    place = np.minimum((P.max(-1) * 15).astype(int), 14)
    figures = {
        "loss": loss.mean(),
        "entropy": entropy.mean(),
        "brier": np.square(P - np.eye(P.shape[1])[target]).sum(-1).mean(),
        "accuracy": right.mean(),
        "ece": sum(abs((right[place == i] - P.max(-1)[place == i]).sum()) for i in range(15)) / len(right),
    }
    return pd.DataFrame(rows).T, figures, writes


def check_by_hand(base: Path, tuned: Path, name: str, found: Comparison, tokens: np.ndarray, chosen: list[int]) -> None:
    """Every figure of the chosen neurons of the base model, of those that they are matched with, and of the predictions."""
    pairs = found.pairs(name).set_index("neuron_base")
    before, after = (by_hand(folder, tokens, list(which)) for folder, which in ((base, chosen), (tuned, pairs.loc[chosen, "neuron_tuned"])))
    for side, rows in (("base", before[0]), ("tuned", after[0])):
        for column in rows:
            table = pairs.loc[chosen, f"{column}_{side}"].astype(float)
            np.testing.assert_allclose(
                table, rows[column], rtol=2e-3, atol=2e-6 if column == "logit_var" else 5e-5, err_msg=f"{column} {side}"
            )
    ours, others = before[2][chosen], after[2][pairs.loc[chosen, "neuron_tuned"].to_numpy(int)]
    cosine = (ours * others).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(others, axis=1)
    np.testing.assert_allclose(pairs.loc[chosen, "cosine"], cosine, atol=1e-5)
    table = found.calibration.set_index(["model", "measure"])
    for measure, value in after[1].items():
        assert table.loc[(name, measure), "value"] == pytest.approx(value, abs=2e-5)
        assert table.loc[(name, measure), "change"] == pytest.approx(value - before[1][measure], abs=4e-5)


def test_the_table_equals_what_is_computed_by_hand(models: dict[str, Path], compared: Compared) -> None:
    _, tokens, found = compared
    assert found.facts["positions"] == kept_positions(tokens, {0}).sum()
    pairs = found.pairs("tuned")
    assert pairs["neuron_tuned"][[5, 6]].tolist() == [6, 5]
    first, second = (int(np.flatnonzero(pairs[f"is_candidate_{side}"])[0]) for side in ("base", "tuned"))
    check_by_hand(models["base"], models["tuned"], "tuned", found, tokens, [first, second, 5])
    heavy = [pairs.nlargest(128, f"w_norm_{side}").nsmallest(10, f"logit_var_{side}") for side in ("base", "tuned")]
    common, union = set(heavy[0].index) & set(heavy[1].index), set(heavy[0].index) | set(heavy[1].index)
    row = found.overlaps.set_index(["model", "by", "share", "lowest"]).loc[("tuned", "cosine", SHARE, CANDIDATES)]
    assert (row["common"], row["iou"]) == (len(common), len(common) / len(union))
    assert 0 < len(common) < 10
    chosen = pairs[pairs["is_candidate_base"]]
    row = found.changes.set_index(["model", "measure"]).loc[("tuned", "rho")]
    assert row["change"] == pytest.approx((chosen["rho_tuned"] - chosen["rho_base"]).mean())


def test_a_tuned_model_is_let_go_before_the_next_is_loaded(compared: Compared) -> None:
    lm, tokens, _ = compared
    seen: list[Any] = []

    def one_by_one() -> Iterator[LanguageModel]:
        for name in "ab":
            gc.collect()
            assert all(model() is None for model in seen)
            one = dataclasses.replace(lm, name=name)
            seen.append(weakref.ref(one))
            yield one
            del one

    without = dataclasses.replace(lm, folder=Path())  # no tokenizer: weights are enough here
    assert compare_models(without, one_by_one(), tokens, bootstrap_draws=0).facts["tuned"] == ["a", "b"]


def test_mistakes_are_refused(compared: Compared) -> None:
    lm, tokens, _ = compared
    said = check_error(lambda: compare_models(lm, [random_model("layer")], tokens), "2 layers of 48 neurons", "2 layers of 512 neurons")
    check_sentence(said)
    check_sentence(check_error(lambda: compare_models(lm, [], tokens), "at least one"))
    check_sentence(check_error(lambda: compare_models(lm, [lm], tokens, seed=-1), "0 or more"))
    check_sentence(check_error(lambda: compare_models(lm, [lm], tokens, k=200), "null-space size"))


def test_a_zero_neuron_is_no_candidate_and_has_no_ratio() -> None:
    w_norm, logit_var = np.array([2.0, 0, 1]), np.array([0.01, np.nan, 0.5])
    np.testing.assert_allclose(norm_ratio(w_norm, logit_var), [2 / np.log(0.01), np.nan, 1 / np.log(0.5)])
    assert candidates(w_norm, logit_var, 1.0, 5).tolist() == [True, False, True]


def run(*arguments: Any) -> None:
    main([str(a) for a in arguments])


def test_the_command_writes_its_page_and_its_tables(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jaxconf.runtime.placement.load_placed", lambda model, *rest: load(model)
    )  # one device, for which all is compiled already
    out = tmp_path / "run"
    arguments = ("compare", models["base"], models["tuned"], models["other"], "--data", models["text"], "--tokens", 128, "--out", out)
    run(*arguments, "--bootstrap-draws", 20)
    said = capsys.readouterr().out
    assert "What this does not show" in said
    tables = {file.stem.removeprefix("comparison_") for file in out.glob("comparison_*.parquet")}
    assert tables == {"neurons", "overlaps", "changes", "calibration", "reliability"}
    stated = json.loads((out / "comparison.json").read_text())
    assert stated["weights_only"] == [str(models["other"])]
    assert stated["positions"] > 0
    neurons = pd.read_parquet(out / "comparison_neurons.parquet").set_index("model")
    assert neurons.loc[str(models["tuned"]), "loss_abs_delta"].notna().all()
    assert neurons.loc[str(models["other"]), "loss_abs_delta"].isna().all()
    assert neurons.loc[str(models["other"]), "rho"].notna().all()
    page = (out / "comparison.html").read_text()
    assert "only the weights are compared" in page
    assert page.count("data:image/png") == 5
    assert not set(page.split('"')) & {"http:", "https:"}
    assert "--force" in refusal(capsys, *arguments)
    run("compare", models["base"], models["other"], *arguments[4:], "--force")
    assert not (out / "comparison_calibration.png").exists()
    assert "none was run on the same tokens" in (out / "comparison.html").read_text()
    assert not [file for file in out.iterdir() if file.name.startswith(".")]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    check_sentence(said)
    return said


def test_a_model_of_another_shape_is_refused_before_it_is_loaded(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights would not even fit its config.json."""
    arguments = ("--data", models["text"], "--out", tmp_path / "run")
    said = refusal(capsys, "compare", models["base"], models["wide"], models["tuned"], *arguments)
    assert "2 layers of 600 neurons at width 128" in said
    assert "no folder" in refusal(capsys, "compare", models["base"], tmp_path / "nowhere", *arguments)
    assert "at least one" in refusal(capsys, "compare", models["base"], *arguments)
    assert "--tokens is 0" in refusal(capsys, "compare", models["base"], models["tuned"], *arguments, "--tokens", 0)
    assert not (tmp_path / "run").exists()


def test_tokenizers_are_told_apart_by_what_they_give(models: dict[str, Path], tmp_path: Path) -> None:
    base, same, other = (load(models[name]) for name in ("base", "tuned", "other"))
    tokens = jaxconf.windows(TEXT, base.tokenizer, 128, 64)
    assert same_tokens(base, same, tokens)
    assert base.config.vocab_size == other.config.vocab_size
    assert not same_tokens(base, other, tokens)

    def changed(name: str, change: Callable[[dict[str, Any]], Any]) -> LanguageModel:
        shutil.copytree(models["base"], tmp_path / name)
        read = json.loads((tmp_path / name / "tokenizer.json").read_text())
        change(read)
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(read))
        return load(tmp_path / name)

    assert not same_tokens(base, changed("split", lambda read: read["model"].update(merges=[])), tokens)

    def rename(read: dict[str, Any]) -> None:  # what each window begins with
        read["model"]["vocab"]["<|start|>"] = read["model"]["vocab"].pop("<|endoftext|>")
        read["added_tokens"][0]["content"] = "<|start|>"

    renamed = changed("renamed", rename)
    named = json.loads((tmp_path / "renamed" / "tokenizer_config.json").read_text()) | {"bos_token": "<|start|>", "eos_token": "<|start|>"}
    (tmp_path / "renamed" / "tokenizer_config.json").write_text(json.dumps(named))
    assert not same_tokens(base, renamed, tokens)
    # A token that post-training added, and the text does not have.
    more = changed("more", lambda read: read["added_tokens"].append({**read["added_tokens"][0], "id": 260, "content": "<|user|>"}))
    assert more.tokenizer.vocab_size == 261
    assert same_tokens(base, more, tokens)
    bare = dataclasses.replace(base, folder=tmp_path)
    assert not same_tokens(base, bare, tokens)
    assert same_tokens(bare, dataclasses.replace(same, folder=tmp_path), tokens)


@pytest.mark.slow
def test_the_script_trains_the_bundled_model_on_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import compare_bundled

    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in OTHER))
    out = tmp_path / "run"
    few = ["--steps", "10", "--batch", "2", "--tokens", "512"]
    monkeypatch.setattr("sys.argv", ["compare_bundled.py", "--data", str(tmp_path / "text.jsonl"), "--out", str(out), *few])
    compare_bundled.main()
    losses = json.loads((out / "tuned" / "losses.json").read_text())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert (out / "comparison.html").is_file()
    assert (out / "stdlib" / "comparison.html").is_file()
    assert "512 of 512 neurons keep their index" in capsys.readouterr().out

"""A model beside itself, a shuffled copy and one that was trained further: what is known is found, also by hand.

Letters: n neuron, d width, s window, t position, v vocabulary. Losses and entropies in nats.
"""

import dataclasses
import gc
import json
import shutil
import weakref
from collections.abc import Callable
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
from commands import refusal, run
from random_models import random_model
from refusals import check_error, check_sentence

import jaxconf
from jaxconf.data.corpus import END, train_tokenizer
from jaxconf.data.windows import kept_positions
from jaxconf.models.checkpoint import save_params
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.studies.comparison.figures import figures_of
from jaxconf.studies.comparison.models import same_tokens
from jaxconf.studies.comparison.neurons import CANDIDATES, EFFECTS, SHARE
from jaxconf.studies.comparison.sentences import paragraphs
from jaxconf.studies.comparison.study import Comparison, compare

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")


TEXT = [f"def f{i}(x):\n    return x * {i} + {i % 7}\n" for i in range(400)]
OTHER = [f"Once upon a time there were {i} little goats, and {i % 5} of them were hungry.\n" for i in range(400)]
HF = {
    **{"model_type": "gpt_neox", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4},
    **{"intermediate_size": 512, "vocab_size": 260, "max_position_embeddings": 64, "bos_token_id": 0},
    **{"tie_word_embeddings": True, "rotary_pct": 1.0, "use_parallel_residual": False},
}
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
    """Models in Hugging Face layout, and text.

    A random model whose last neurons have norms of many sizes; the same with shuffled neurons; one with perturbed
    weights and two neurons in each other's place, as if trained further; one with another tokenizer of as many tokens;
    one of another shape.
    """
    root = tmp_path_factory.mktemp("models")
    (root / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXT))
    lm, rng = random_model("", hf=HF), np.random.default_rng(0)
    base = jax.tree.map(np.array, lm.params)
    base["blocks"]["mlp"]["w_out"][-1] *= np.exp(rng.normal(size=(512, 1)))
    swapped = np.arange(512)
    swapped[[5, 6]] = [6, 5]
    noisy = jax.tree.map(lambda w: np.asarray(w * (1 + 0.1 * rng.standard_normal(w.shape)), np.float32), base)
    kinds = {"base": base, "shuffled": shuffled(base, ORDER), "tuned": shuffled(noisy, swapped), "other": noisy}
    for name, params in kinds.items():
        folder = root / name
        folder.mkdir()
        save_params(lm.config, params, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(HF))
        train_tokenizer(iter(OTHER if name == "other" else TEXT), 260).save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": END, "eos_token": END}))
    shutil.copytree(root / "base", root / "wide")
    (root / "wide" / "config.json").write_text(json.dumps(HF | {"intermediate_size": 600}))
    return {path.name.removesuffix(".jsonl"): path for path in root.iterdir()}


def loaded(folder: Path) -> LanguageModel:
    return dataclasses.replace(load(folder), name=folder.name)


Compared = tuple[LanguageModel, np.ndarray, Comparison]


@pytest.fixture(scope="module")
def compared(models: dict[str, Path]) -> Compared:
    """The base model beside itself, the shuffled one and the tuned one."""
    base = loaded(models["base"])
    tokens = jaxconf.windows(TEXT, base.tokenizer, n_tokens=128, length=64).tokens
    return (
        base,
        tokens,
        compare(base, [base, *(loaded(models[name]) for name in ("shuffled", "tuned"))], tokens, bootstrap_draws=50),
    )


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
    changes = (
        found.changes[found.changes["model"] == "shuffled"]
        .set_index("measure")
        .loc[["w_norm", "logit_var", "ratio", "rho"]]
    )
    np.testing.assert_allclose(changes["change"], 0, atol=1e-5)
    np.testing.assert_allclose(changes["correlation"], 1, atol=1e-3)
    np.testing.assert_allclose(found.calibration.query("model == 'shuffled'")["change"], 0, atol=1e-5)
    assert "The IoU of the candidates is then 1." in paragraphs(found)[1]


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
    found = compare(
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


class NeoX:
    """A GPT-NeoX checkpoint, run in float64 numpy by the definitions."""

    def __init__(self, folder: Path) -> None:
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        self.w = {name.removeprefix("gpt_neox."): np.float64(x) for name, x in tensors.items()}
        self.config = json.loads((folder / "config.json").read_text())

    def norm(self, x: np.ndarray, name: str, scale: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The normalised stream, and its scale, which may be given."""
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) if scale is None else scale
        return centred / scale * self.w[f"{name}.weight"] + self.w[f"{name}.bias"], scale

    def dense(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def run(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The stream before the final norm, [s t d], and the activations of the last layer, [s t n]."""
        (S, T), heads = tokens.shape, self.config["num_attention_heads"]
        size = self.config["hidden_size"] // heads
        angle = np.arange(T)[:, None] / 10000 ** (np.arange(0, size, 2) / size)
        cos, sin = (np.tile(f(angle), 2)[None, :, None] for f in (np.cos, np.sin))

        def turned(x: np.ndarray) -> np.ndarray:
            return x * cos + np.concatenate([-x[..., size // 2 :], x[..., : size // 2]], -1) * sin

        x = self.w["embed_in.weight"][tokens]
        for layer in range(self.config["num_hidden_layers"]):
            at = f"layers.{layer}"
            qkv = self.dense(self.norm(x, f"{at}.input_layernorm")[0], f"{at}.attention.query_key_value")
            q, k, v = np.split(qkv.reshape(S, T, heads, 3 * size), 3, -1)
            scores = np.einsum("sqhd,skhd->shqk", turned(q), turned(k)) / np.sqrt(size)
            pattern = scipy.special.softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf), -1)
            mixed = np.einsum("shqk,skhd->sqhd", pattern, v).reshape(S, T, -1)
            x = x + self.dense(mixed, f"{at}.attention.dense")
            read = self.dense(self.norm(x, f"{at}.post_attention_layernorm")[0], f"{at}.mlp.dense_h_to_4h")
            h = read * scipy.special.ndtr(read)
            x = x + self.dense(h, f"{at}.mlp.dense_4h_to_h")
        return x, h

    def writes(self) -> np.ndarray:
        """Write directions of the last layer, centred, [n d]."""
        w = self.w[f"layers.{self.config['num_hidden_layers'] - 1}.mlp.dense_4h_to_h.weight"].T
        return w - w.mean(1, keepdims=True)

    def unembedding(self) -> np.ndarray:
        """Folded and centred both ways, [d v]."""
        W_U = self.w["final_layer_norm.weight"][:, None] * self.w["embed_in.weight"].T
        W_U = W_U - W_U.mean(0)
        return W_U - W_U.mean(1, keepdims=True)


def by_hand(folder: Path, tokens: np.ndarray, chosen: list[int]) -> tuple[pd.DataFrame, dict[str, float], np.ndarray]:
    """The chosen neurons' measures, those of the predictions, and all write directions; one ablated neuron at a time.

    Positions kept: from 3 on, neither 0 nor before a 0.
    """
    model = NeoX(folder)
    x, h = model.run(tokens)
    kept = np.zeros(tokens.shape, bool)
    kept[:, 3:-1] = (tokens[:, 3:-1] != 0) & (tokens[:, 4:] != 0)
    target = np.roll(tokens, -1, 1)[kept]

    def predictions(x: np.ndarray, scale: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits = model.norm(x, "final_layer_norm", scale)[0] @ model.w["embed_in.weight"].T
        lp = scipy.special.log_softmax(logits, -1)[kept]
        return -lp[np.arange(len(lp)), target], -(np.exp(lp) * lp).sum(-1), lp

    writes, W_U = model.writes(), model.unembedding()
    U, values, _ = np.linalg.svd(W_U)
    assert values[-1] < 1e-9 * values[0]  # the all-ones direction
    null = U[:, -1 - max(1, round(0.01 * len(U))) : -1]
    loss, entropy, lp = predictions(x)
    scale, rows = model.norm(x, "final_layer_norm")[1], {}
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
    return pd.DataFrame(rows).T, calibration_by_hand(loss, entropy, lp, target), writes


def calibration_by_hand(loss: np.ndarray, entropy: np.ndarray, lp: np.ndarray, target: np.ndarray) -> dict[str, float]:
    P, right = np.exp(lp), lp.argmax(-1) == target
    place = np.minimum((P.max(-1) * 15).astype(int), 14)
    return {
        "loss": loss.mean(),
        "entropy": entropy.mean(),
        "brier": np.square(P - np.eye(P.shape[1])[target]).sum(-1).mean(),
        "accuracy": right.mean(),
        "ece": sum(abs((right[place == i] - P.max(-1)[place == i]).sum()) for i in range(15)) / len(right),
    }


def check_by_hand(base: Path, tuned: Path, name: str, found: Comparison, tokens: np.ndarray, chosen: list[int]) -> None:
    """Every measure of the base model's chosen neurons, of those they are matched with, and of the predictions."""
    pairs = found.pairs(name).set_index("neuron_base")
    before, after = (
        by_hand(folder, tokens, list(which))
        for folder, which in ((base, chosen), (tuned, pairs.loc[chosen, "neuron_tuned"]))
    )
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
    first, second = (int(np.flatnonzero(pairs[f"is_candidate_{side}"])[i]) for side, i in (("base", 0), ("tuned", -1)))
    check_by_hand(models["base"], models["tuned"], "tuned", found, tokens, [first, second, 5])
    heavy = [pairs.nlargest(128, f"w_norm_{side}").nsmallest(10, f"logit_var_{side}") for side in ("base", "tuned")]
    common, union = set(heavy[0].index) & set(heavy[1].index), set(heavy[0].index) | set(heavy[1].index)
    row = found.overlaps.set_index(["model", "by", "share", "lowest"]).loc[("tuned", "cosine", SHARE, CANDIDATES)]
    assert (row["common"], row["iou"]) == (len(common), len(common) / len(union))
    assert 0 < len(common) < 10
    chosen = pairs[pairs["is_candidate_base"]]
    row = found.changes.set_index(["model", "measure"]).loc[("tuned", "rho")]
    assert row["change"] == pytest.approx((chosen["rho_tuned"] - chosen["rho_base"]).mean())


def test_a_tuned_model_is_let_go_before_the_next_is_loaded(models: dict[str, Path], compared: Compared) -> None:
    lm, tokens, _ = compared
    seen: list[Any] = []

    def remembered(name: str) -> LanguageModel:
        gc.collect()
        assert all(model() is None for model in seen)
        one = load(name)
        seen.append(weakref.ref(one))
        return one

    without = dataclasses.replace(lm, folder=Path())  # no tokenizer: weights are enough here
    names = [str(models[name]) for name in ("tuned", "other", "shuffled")]
    found = compare(without, names, tokens, bootstrap_draws=0, load=remembered)
    assert found.facts["tuned"] == names
    assert len(seen) == 3


@pytest.mark.command
def test_every_figure_is_drawn(compared: Compared, drawn_truly: None) -> None:
    *_, found = compared
    found = dataclasses.replace(found, facts=found.facts | {"tuned": ["tuned"]})  # each model has its panels
    assert "comparison_calibration" in figures_of(found)
    for draw in figures_of(found).values():
        draw(found).draw_without_rendering()


def test_mistakes_are_refused(compared: Compared) -> None:
    lm, tokens, _ = compared
    said = check_error(
        lambda: compare(lm, [random_model("layer")], tokens), "2 layers of 48 neurons", "2 layers of 512 neurons"
    )
    check_sentence(said)
    check_sentence(check_error(lambda: compare(lm, [], tokens), "at least one"))
    check_sentence(check_error(lambda: compare(lm, [lm], 0), "tokens is 0"))
    check_sentence(check_error(lambda: compare(lm, [lm], tokens, seed=-1), "at least 0"))
    check_sentence(check_error(lambda: compare(lm, [lm], tokens, k=200), "null-space size"))


@pytest.mark.command
def test_the_command_writes_its_page_and_its_tables(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jaxconf.runtime.placement.load_placed", lambda model, *rest: load(model)
    )  # one device, for which all is compiled already
    out = tmp_path / "run"
    arguments = (
        "compare",
        models["base"],
        models["tuned"],
        models["other"],
        "--data",
        models["text"],
        "--tokens",
        128,
        "--out",
        out,
    )
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


def test_a_model_of_another_shape_is_refused_before_it_is_loaded(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights would not even fit its config.json."""
    arguments = ("--data", models["text"], "--out", tmp_path / "run")
    said = refusal(capsys, "compare", models["base"], models["wide"], models["tuned"], *arguments)
    assert "2 layers of 600 neurons at width 64" in said
    assert "no folder" in refusal(capsys, "compare", models["base"], tmp_path / "nowhere", *arguments)
    assert "at least one" in refusal(capsys, "compare", models["base"], *arguments)
    again = models["tuned"].parent / "base" / ".." / "base"
    assert "named more than once" in refusal(capsys, "compare", models["base"], again, *arguments)
    assert "named more than once" in refusal(capsys, "compare", models["base"], *[models["tuned"]] * 2, *arguments)
    assert "the model bundled" in refusal(capsys, "compare", "bundled", jaxconf.BUNDLED, *arguments)
    assert "the model a/b" in refusal(capsys, "compare", "a/b", "a/b", *arguments)
    assert "tokens is 0" in refusal(capsys, "compare", models["base"], models["tuned"], *arguments, "--tokens", 0)
    assert not (tmp_path / "run").exists()


def test_tokenizers_are_told_apart_by_what_they_give(models: dict[str, Path], tmp_path: Path) -> None:
    base, same, other = (load(models[name]) for name in ("base", "tuned", "other"))
    tokens = jaxconf.windows(TEXT, base.tokenizer, 128, 64).tokens
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
    named = json.loads((tmp_path / "renamed" / "tokenizer_config.json").read_text()) | {
        "bos_token": "<|start|>",
        "eos_token": "<|start|>",
    }
    (tmp_path / "renamed" / "tokenizer_config.json").write_text(json.dumps(named))
    assert not same_tokens(base, renamed, tokens)
    # A token that post-training added, and the text does not have.
    more = changed(
        "more", lambda read: read["added_tokens"].append({**read["added_tokens"][0], "id": 260, "content": "<|user|>"})
    )
    assert more.tokenizer.vocab_size == 261
    assert same_tokens(base, more, tokens)
    bare = dataclasses.replace(base, folder=tmp_path)
    assert not same_tokens(base, bare, tokens)
    assert same_tokens(bare, dataclasses.replace(same, folder=tmp_path), tokens)


@pytest.mark.slow
def test_the_script_trains_a_model_further_and_compares(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import compare_tuned

    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in OTHER))
    out = tmp_path / "run"
    few = ["--steps", "10", "--batch", "2", "--tokens", "512"]
    given = [str(models["base"]), "--data", str(tmp_path / "text.jsonl"), "--out", str(out), *few]
    monkeypatch.setattr("sys.argv", ["compare_tuned.py", *given])
    compare_tuned.main()
    losses = json.loads((out / "tuned" / "losses.json").read_text())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert (out / "comparison.html").is_file()
    assert (out / "own" / "comparison.html").is_file()
    assert "512 of 512 neurons keep their index" in capsys.readouterr().out

"""Context against memory: the tables are what one neuron set after the other gives, without cache or vmap.

Letters: p prompt, n new token, c neuron set, k neuron of a set. Log-probabilities and entropies in nats.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import refusal, run
from one_set_at_a_time import ablation, alone, log_p_alone
from plain_class import plain_class
from random_models import random_model
from refusals import check_error
from tiny_knowledge import RECORDED, make_knowledge

from jaxconf.analysis.activations import BINS
from jaxconf.analysis.selection import scaled_k
from jaxconf.analysis.transitions import CLASSES, MEASURES
from jaxconf.data.documents import documents
from jaxconf.data.statements import COLUMNS, objects_of, own_object, read_statements
from jaxconf.data.windows import windows
from jaxconf.measure.chosen_sets import Checked
from jaxconf.measure.named_sets import Population
from jaxconf.measure.neuron_sets import check_last_layer
from jaxconf.models.language_model import load
from jaxconf.studies.copying.figures import FIGURES
from jaxconf.studies.copying.neurons import published_size, selections
from jaxconf.studies.copying.prompts import NEW_TOKENS
from jaxconf.studies.copying.sentences import sentences
from jaxconf.studies.copying.study import Copying, copying
from jaxconf.studies.copying.transitions import ABLATIONS

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")

CONTROLS = 2
K = 13  # leaves four neurons to the published rule, so that its sets are smaller than the others
LENGTH = 32  # of the texts that are decoded one set at a time
# A model that has learnt facts and to be contradicted.


@pytest.fixture(scope="module")
def knowledge() -> Path:
    """A folder with statements.csv, text.jsonl and a model of them, not to be changed."""
    return RECORDED


def copying_of(knowledge: Path) -> Copying:
    lm = load(knowledge / "model")
    text = windows(documents(str(knowledge / "text.jsonl")), lm.tokenizer, 640, 32).tokens
    return copying(lm, knowledge / "statements.csv", tokens=text, controls=CONTROLS, k=K, as_published=True)


@pytest.fixture(scope="module")
def found(knowledge: Path, compiled_quickly: None) -> Copying:
    return copying_of(knowledge)


def check_shares(found: Copying) -> None:
    shares = found.prompts["class"].value_counts(normalize=True)
    assert shares["CK"] > 0.15
    assert shares["PK"] > 0.15


def test_the_model_heeds_both_context_and_memory(found: Copying) -> None:
    check_shares(found)


@pytest.mark.slow
def test_a_model_that_is_made_again_heeds_both(tmp_path: Path) -> None:
    check_shares(copying_of(make_knowledge(tmp_path)))


def test_tables_equal_decoding_one_set_at_a_time(knowledge: Path, found: Copying) -> None:
    lm = load(knowledge / "model")
    tokenizer, last = lm.tokenizer, lm.config.n_layers - 1
    own = found.statements["own"].loc[found.prompts["statement"]].tolist()
    contexts = found.prompts["context"].tolist()
    assert found.selections == ["chosen", "published"]
    prompts = [np.array([tokenizer.bos_id, *tokenizer.encode(prompt)]) for prompt in found.prompts["prompt"]]
    answers = [tokenizer.encode(f" {context}") for context in contexts]
    firsts = [tokenizer.encode(f" {one}")[:1] for one in own]
    text = windows(documents(str(knowledge / "text.jsonl")), tokenizer, 640, 32).tokens
    site = f"blocks.{last}.mlp.hook_post"
    h = np.asarray(lm.apply(text, capture=[site]).captured[site]).reshape(-1, lm.config.d_mlp)
    usual = dict(zip(ABLATIONS, usual_values(h), strict=True))

    def answered(edits: dict[str, Any]) -> tuple[list[str], list[str], np.ndarray]:
        tokens, entropy = alone(lm, prompts, edits, NEW_TOKENS, LENGTH)
        texts = [tokenizer.decode(row[: [*row, 0].index(0)]) for row in tokens]  # 0 ends a text
        return [plain_class(*triple) for triple in zip(texts, contexts, own, strict=True)], texts, entropy

    before, texts, entropy = answered(ablation(lm, np.array([], int), np.array([])))
    assert found.prompts["class"].tolist() == before
    assert found.prompts["continuation"].tolist() == texts
    np.testing.assert_allclose(found.prompts["entropy"], entropy, atol=1e-5)
    for name, given in (("CK", [ids[:1] for ids in answers]), ("PK", firsts)):
        expected = log_p_alone(lm, prompts, given, {}, LENGTH)
        np.testing.assert_allclose(found.prompts[f"log_p_first_{name}"], expected, atol=1e-4)
    changed = 0
    for row in found.sets.to_dict("records"):
        members = np.array([int(name.split(".")[1]) for name in row["members"].split(",")])
        edits = ablation(lm, members, usual[row["ablation"]][members])
        after, texts, entropy_after = answered(edits)
        table = pd.crosstab(pd.Categorical(before, CLASSES), pd.Categorical(after, CLASSES), dropna=False)
        of_selection = found.of(row["selection"])
        rows = of_selection.transitions
        rows = rows[(rows["ablation"] == row["ablation"]) & (rows["set"] == row["set"])]
        counts = rows.pivot(index="before", columns="after", values="count").loc[list(CLASSES), list(CLASSES)]
        np.testing.assert_array_equal(counts, table)
        moved = np.mean([one != other for one, other in zip(before, after, strict=True)])
        assert row["transition_score"] == pytest.approx(moved)
        assert row["share_CK"] == pytest.approx(after.count("CK") / len(after))
        stay = [b == a for b, a in zip(before, after, strict=True) if b == "PK"]
        assert row["conversion_PK"] == pytest.approx(1 - np.mean(stay))
        assert row["entropy_change"] == pytest.approx((entropy_after - entropy).mean(), abs=1e-5)
        changed += moved > 0
        if row["kind"] == "set":
            told = of_selection.answers[of_selection.answers["ablation"] == row["ablation"]]
            assert told["continuation"].tolist() == texts
            assert told["class"].tolist() == after
            np.testing.assert_allclose(told["log_p_CK"], log_p_alone(lm, prompts, answers, edits, LENGTH), atol=1e-4)
            np.testing.assert_allclose(
                told["log_p_first_PK"], log_p_alone(lm, prompts, firsts, edits, LENGTH), atol=1e-4
            )
            change = (told["log_p_first_PK"].to_numpy() - found.prompts["log_p_first_PK"].to_numpy()).mean()
            assert row["log_p_first_PK_change"] == pytest.approx(change, abs=1e-5)
    assert changed > len(found.sets) / 2


def usual_values(h: np.ndarray) -> list[np.ndarray]:
    """ABLATIONS of activations [… n], one neuron at a time."""
    modes = []
    for of_neuron in h.T:
        counts, edges = np.histogram(of_neuron, BINS)
        modes.append(edges[counts.argmax()] / 2 + edges[counts.argmax() + 1] / 2)
    mean, std = h.mean(0, dtype=np.float64), h.std(0, dtype=np.float64)
    return [
        mean,
        np.median(h, 0),
        np.array(modes),
        np.minimum(mean + 3 * std, h.max(0)),
        np.maximum(mean - 3 * std, h.min(0)),
    ]


def test_prompts_contradict_with_what_the_model_finds_least_likely(knowledge: Path, found: Copying) -> None:
    lm = load(knowledge / "model")
    pool = objects_of(read_statements(knowledge / "statements.csv"))
    queries = [np.array([lm.tokenizer.bos_id, *lm.tokenizer.encode(query)]) for query in found.statements["query"]]
    continued, _ = alone(lm, queries, ablation(lm, np.array([], int), np.array([])), NEW_TOKENS, LENGTH)
    others, rows = [], list(found.statements.iterrows())
    for (_, row), tokens in zip(rows, continued, strict=True):
        said = lm.tokenizer.decode(tokens[: [*tokens, 0].index(0)])
        assert row["continuation"] == said
        assert row["own"] == own_object(said, pool[row["relation"]])
        assert row["knows"] == (row["own"] == row["object"])
        others.append([o for o in pool[row["relation"]] if o not in (row["object"], row["own"])])
    ids = [lm.tokenizer.encode(f" {o}") for other in others for o in other]
    asked = [query for query, other in zip(queries, others, strict=True) for _ in other]
    per_token = iter(log_p_alone(lm, asked, ids, {}, LENGTH) / [len(i) for i in ids])
    for (statement, row), other in zip(rows, others, strict=True):
        scores = np.array([next(per_token) for _ in other])
        prompts = found.prompts[found.prompts["statement"] == statement]
        assert len(prompts) == min(3, len(other))
        assert prompts["context"].tolist() == [other[i] for i in np.argsort(scores)[:3]]
        np.testing.assert_allclose(prompts["log_p_query"], np.sort(scores)[:3], atol=1e-4)
        assert (prompts["prompt"] == f"{row['query']} " + prompts["context"] + f". {row['query']}").all()


def test_random_sets_are_others_of_the_last_layer(found: Copying) -> None:
    for selection, size in (("chosen", 10), ("published", 4)):
        own = set(found.facts[selection])
        sets = found.of(selection).sets
        for row in sets[sets["kind"] == "random"].to_dict("records"):
            members = set(row["members"].split(","))
            assert len(members) == len(own) == size
            assert not members & own
            assert {name.split(".")[0] for name in members} == {"0"}


def test_each_selection_follows_its_rule(knowledge: Path, found: Copying) -> None:
    lm = load(knowledge / "model")
    w, W_U = lm.params["blocks"]["mlp"]["w_out"][0], lm.params["embed"]["tokens"].T  # they are tied
    w, W_U = np.asarray(w, np.float64), np.asarray(W_U, np.float64)
    scale = np.asarray(lm.params["ln_final"]["scale"], np.float64)
    W_U = scale[:, None] * W_U
    W_U -= W_U.mean(0)
    W_U -= W_U.mean(1, keepdims=True)
    w -= w.mean(1, keepdims=True)
    U = np.linalg.svd(W_U)[0][:, -1 - K : -1]  # without the all-ones direction, whose singular value is 0
    lengths = np.linalg.norm(w, axis=1)
    rho = np.linalg.norm(w @ U, axis=1) / lengths
    logit_var = np.var(w @ W_U / lengths[:, None] / np.linalg.norm(W_U, axis=0), axis=1, ddof=1)
    highest = sorted(range(len(w)), key=lambda n: -rho[n])[:10]
    lowest = sorted((n for n in range(len(w)) if rho[n] >= 0.4), key=lambda n: logit_var[n])[:10]
    for selection, expected in (("chosen", highest), ("published", lowest)):
        table = found.of(selection).neurons
        assert table["neuron"].tolist() == found.facts[selection] == [f"0.{n}" for n in expected]
        np.testing.assert_allclose(table["rho"], rho[expected], rtol=1e-5)
        np.testing.assert_allclose(table["logit_var"], logit_var[expected], rtol=1e-4)
        np.testing.assert_allclose(table["w_norm"], lengths[expected], rtol=1e-5)


def test_the_published_rule_takes_the_papers_k() -> None:
    config = random_model("layer").config
    assert published_size(config, 5) == (5, "as given")
    assert published_size(config, None)[0] == scaled_k(config.d_model)
    gpt2 = {"model_type": "gpt2", "n_layers": 12, "d_model": 768, "d_mlp": 3072, "vocab_size": 50257}
    size, why = published_size(dataclasses.replace(config, **gpt2), None)
    assert (size, "a model of this shape" in why) == (40, True)
    assert published_size(dataclasses.replace(config, **gpt2), 7)[0] == 7


def test_the_chosen_are_the_same_beside_the_published(knowledge: Path) -> None:
    lm = load(knowledge / "model")
    of = {"neuron": Population.of_neurons(lm.config)}
    [alone] = selections(lm, None, of, CONTROLS, K, False, 0)
    beside, published = selections(lm, None, of, CONTROLS, K, True, 0)
    assert beside.sets == alone.sets
    assert published.sets[0].listed != beside.sets[0].listed
    named, _ = selections(lm, Checked("neuron", [(0, 3)]), of, CONTROLS, K, True, 0)
    assert named.own.members == [(0, 3)]
    check_error(lambda: selections(lm, None, of, CONTROLS, None, True, 0), "rho(1)", "larger k")


def test_quantiles_place_the_set_among_the_random_ones(found: Copying) -> None:
    rows = dict(iter(found.sets.set_index("kind").groupby(["selection", "ablation"])))
    for row in found.quantiles.to_dict("records"):
        of_value = rows[row["selection"], row["ablation"]][row["measure"]]
        random = of_value["random"].to_numpy()
        if np.isnan(random).any():
            assert np.isnan(row["quantile"])
            continue
        assert row["value"] == of_value["set"]
        assert row["quantile"] == pytest.approx(np.mean((random < row["value"]) + 0.5 * (random == row["value"])))
        assert row["quantile_lo"] <= row["quantile"] <= row["quantile_hi"]
    assert set(found.quantiles["measure"]) == set(MEASURES)


# The command.


@pytest.mark.command
def test_the_command_leaves_tables_figures_and_a_page(
    knowledge: Path, found: Copying, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One device and as many neurons and random sets as above, for which all is compiled already.
    monkeypatch.setattr("jaxconf.runtime.placement.load_placed", lambda model, *rest: load(model))
    names = [f"0.{n}" for n in range(3, 13)]
    out = tmp_path / "run"
    arguments = (
        "copying",
        knowledge / "model",
        "--data",
        knowledge / "statements.csv",
        "--text",
        knowledge / "text.jsonl",
        "--out",
        out,
    )
    run(
        *arguments,
        "--statements",
        5,
        "--controls",
        CONTROLS,
        "--neurons",
        ",".join(names),
        "--tokens",
        640,
        "--k",
        K,
        "--as-published",
    )
    written = {file.name for file in out.iterdir()}
    tables = [field.name for field in dataclasses.fields(Copying) if field.name != "facts"]
    figures = ["transitions", "conversions", "scores", "entropy", "log_ratios"]
    assert written == {f"copying_{name}.parquet" for name in tables} | {f"copying_{name}.png" for name in figures} | {
        "copying.json",
        "copying.html",
    }
    record = json.loads((out / "copying.json").read_text())
    assert record["chosen"] == names
    assert record["published"] == found.facts["published"]
    assert set(pd.read_parquet(out / "copying_sets.parquet")["selection"]) == {"chosen", "published"}
    assert record["statements_asked"] == 5
    page, said = (out / "copying.html").read_text(), capsys.readouterr().out
    assert "$" not in re.sub(r"<script>.*?</script>|data:[^\"]*", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert page.count("<img") == len(figures)
    for sentence in record["verdict"]:
        assert sentence in said.replace("\n", " ")
    assert "--force" in refusal(capsys, *arguments)


def test_objects_that_begin_with_the_same_token_are_counted(knowledge: Path, found: Copying) -> None:
    tokenizer = load(knowledge / "model").tokenizer
    own = found.statements["own"].loc[found.prompts["statement"]]
    pairs = zip(found.prompts["context"], own, strict=True)
    alike = sum(tokenizer.encode(f" {one}")[0] == tokenizer.encode(f" {other}")[0] for one, other in pairs)
    assert 0 < alike < len(own)
    assert any(sentence.startswith(f"In {alike} prompts both objects begin") for sentence in sentences(found))
    no_first = found.prompts.assign(log_p_first_CK=-9.0)
    assert not any(
        "both objects begin" in sentence for sentence in sentences(dataclasses.replace(found, prompts=no_first))
    )


def test_little_that_can_be_said_is_said(found: Copying) -> None:
    assert not any("answers are neither" in sentence or "next to nothing" in sentence for sentence in sentences(found))
    neither = dataclasses.replace(
        found, prompts=found.prompts.assign(**{"class": ["PK"] + ["ND"] * (len(found.prompts) - 1)})
    )
    told = " ".join(sentences(neither))
    assert "The published neurons are chosen by the lowest LogitVar" in told
    assert f"k is {K}, as given. The paper's sets have 6 to 14 neurons, but only 4 have so high a rho." in told
    assert "Almost all answers are neither" in told
    assert "only 1 prompt can tell" in told
    assert (
        "its context in only 0 prompts and its memory in only 1 prompt, so these statements say next to nothing" in told
    )


@pytest.mark.command
def test_no_random_sets_are_said_and_drawn(found: Copying, drawn_truly: None) -> None:
    def chosen(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame["kind"] == "set"]

    found = found.of("chosen")
    only = dataclasses.replace(
        found,
        quantiles=found.quantiles.copy(),
        facts=found.facts | {"controls": 0},
        sets=chosen(found.sets),
        transitions=chosen(found.transitions),
    )
    only.quantiles[["random_mean", "quantile", "quantile_lo", "quantile_hi"]] = np.nan
    assert not any("for random sets" in sentence or "nan" in sentence for sentence in sentences(only))
    for draw in FIGURES.values():
        draw(only).draw_without_rendering()


@pytest.mark.slow
def test_stories_run_to_the_end(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = ("--data", shared / "data" / "pararel-statements.csv", "--text", shared / "data" / "tinystories.jsonl")
    run(
        "copying",
        shared / "models" / "stories260K",
        *data,
        "--statements",
        12,
        "--controls",
        5,
        "--tokens",
        2048,
        "--out",
        tmp_path,
    )
    prompts = pd.read_parquet(tmp_path / "copying_prompts.parquet")
    assert (prompts["class"] == "CK").mean() < 0.05
    assert "its context in only" in capsys.readouterr().out.replace("\n", " ")


def test_mistakes_of_the_command(knowledge: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, data = knowledge / "model", ("--data", knowledge / "statements.csv")
    out = ("--out", tmp_path / "run")
    columns = tmp_path / "columns.csv"
    columns.write_text("rel_p_id,statement_subject\nP1,Ada\n")
    assert "lacks the columns statement_relation, statement_object" in refusal(
        capsys, "copying", model, "--data", columns, *out
    )
    assert "no relation with two objects" in refusal(capsys, "copying", model, "--data", one_object(tmp_path), *out)
    assert "0.64" in refusal(capsys, "copying", model, *data, *out, "--neurons", "0.64")
    assert "as_published" in refusal(capsys, "copying", model, *data, *out, "--as-published", "--tokens", 300)
    assert "such as 11.584" in refusal(capsys, "copying", model, *data, *out, "--neurons", "x")
    assert "statements is 0" in refusal(capsys, "copying", model, *data, *out, "--statements", 0)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((model / name).read_bytes())
    assert "tokenizer" in refusal(capsys, "copying", bare, *data, *out)
    assert not (tmp_path / "run").exists()


def one_object(folder: Path) -> Path:
    (folder / "one.csv").write_text(",".join(COLUMNS) + "\nP1,Ada,is,tall\nP1,Bo,is,tall\n")
    return folder / "one.csv"


def test_what_no_prompt_can_be_made_of() -> None:
    lm = random_model("layer")
    check_error(lambda: copying(lm, pd.DataFrame(), tokens=np.ones((1, 8), int), neurons=[(0, 1)]), "tokenizer")


def test_sets_of_other_layers_are_refused(knowledge: Path) -> None:
    check_error(lambda: check_last_layer(random_model("layer").config, [(0, 3)], 2), "0.3", "last layer, which is 1")

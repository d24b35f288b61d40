"""Real tasks: the tables are what running the edited model for one set after the other gives.

Letters: q question, j choice, c neuron set, s window, t position, n neuron.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import refusal, run
from noise_questions import noise_questions
from one_set_at_a_time import alone, log_p_alone
from planted_table import planted_table
from random_models import random_model
from refusals import check_error
from tiny_knowledge import RECORDED
from world_text import world

from jaxconf.analysis.intervals import resamples
from jaxconf.analysis.question_scores import MEASURES
from jaxconf.analysis.unembedding import readout
from jaxconf.data.documents import documents
from jaxconf.data.questions import Question, questions_of_statements, write_questions
from jaxconf.data.statements import read_statements
from jaxconf.data.windows import kept_positions, windows
from jaxconf.measure.prompts import Asked
from jaxconf.models.language_model import BUNDLED, LanguageModel, load
from jaxconf.models.sites import Ablate, Scale
from jaxconf.studies.tasks.answers import NEW_TOKENS, _until_line_break
from jaxconf.studies.tasks.sentences import sentences
from jaxconf.studies.tasks.study import Tasks, tasks

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")

SETS = [[(0, 3), (0, 7), (0, 9)], [(0, 12)]]
LENGTH = 32  # of the texts that are run one set at a time
HOW: dict[str, Any] = {"sets": SETS, "controls": 2, "bootstrap_draws": 50, "scale": (0.0, 2.0)}


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load(RECORDED / "model")


def text_of(lm: LanguageModel) -> np.ndarray:
    return windows(documents(str(RECORDED / "text.jsonl")), lm.tokenizer, 640, 32).tokens


def asked() -> list[Question]:
    """Questions of four choices, and one of three."""
    found = questions_of_statements(read_statements(RECORDED / "statements.csv"), 0)
    first = found[0]
    wrong = next(choice for choice in first.choices if choice != first.answer)
    fewer = tuple(choice for choice in first.choices if choice != wrong)
    return [first._replace(choices=fewer, right=fewer.index(first.answer)), *found[1:]]


@pytest.fixture(scope="module")
def found(lm: LanguageModel, compiled_quickly: None) -> Tasks:
    return tasks(lm, asked(), tokens=text_of(lm), reasoning=text_of(lm), **HOW)


def edits_of(lm: LanguageModel, treatment: str, members: str) -> dict[str, Any]:
    """What a row of `Tasks.sets` does to the model."""
    indices = [int(name.split(".")[1]) for name in members.split(",") if name]
    site = "blocks.0.mlp.hook_post"
    if treatment == "mean":
        h = np.asarray(lm.apply(text_of(lm), capture=[site]).captured[site]).reshape(-1, lm.config.d_mlp)
        return {site: Ablate(np.isin(np.arange(lm.config.d_mlp), indices), h.mean(0))}
    factor = np.ones(lm.config.d_mlp, np.float32)
    factor[indices] = 1 if treatment == "none" else float(treatment.removeprefix("x"))
    return {site: Scale(factor)}


def prompts_of(lm: LanguageModel, questions: Sequence[Question]) -> list[np.ndarray]:
    return [np.array([lm.tokenizer.bos_id, *lm.tokenizer.encode(one.question)]) for one in questions]


def chosen_alone(lm: LanguageModel, edits: dict[str, Any]) -> tuple[list[list[np.ndarray]], list[list[str]]]:
    """The scores [q][j] of each kind, and the answers [kind][q], by whole passes of the edited model."""
    questions = asked()
    pairs = [(prompt, one, choice) for prompt, one in zip(prompts_of(lm, questions), questions, strict=True)
             for choice in one.choices]  # fmt: skip
    ids = [lm.tokenizer.encode(f" {choice}") for _, _, choice in pairs]
    log_p = iter(log_p_alone(lm, [prompt for prompt, _, _ in pairs], [np.array(i) for i in ids], edits, LENGTH))
    scores: list[list[np.ndarray]] = [[], [], []]
    for one in questions:
        own = np.array([next(log_p) for _ in one.choices])
        tokens = np.array([len(lm.tokenizer.encode(f" {choice}")) for choice in one.choices])
        for kind, by in zip(
            scores, (1, np.array([len(choice.encode()) for choice in one.choices]), tokens), strict=True
        ):
            kind.append(own / by)
    return scores, [[q.choices[s.argmax()] for q, s in zip(questions, kind, strict=True)] for kind in scores]


def test_choices_are_scored_as_by_the_edited_model(lm: LanguageModel, found: Tasks) -> None:
    right = [one.right for one in asked()]
    assert found.scores == ["acc", "acc_norm", "acc_token"]
    moved = 0
    for _, row in found.sets.drop_duplicates(["treatment", "selection", "set"]).iterrows():
        scores, texts = chosen_alone(lm, edits_of(lm, row["treatment"], row["members"]))
        for score, of_score, of_text in zip(found.scores, scores, texts, strict=True):
            p = [np.exp(s) / np.exp(s).sum() for s in of_score]
            correct = np.array([s.argmax() == r for s, r in zip(of_score, right, strict=True)])
            same = found.sets[["treatment", "selection", "set"]].eq(row[["treatment", "selection", "set"]]).all(axis=1)
            own = found.sets[same & found.sets["score"].eq(score)].iloc[0]
            assert own["accuracy"] == pytest.approx(correct.mean())
            assert own["confidence"] == pytest.approx(np.mean([x.max() for x in p]), abs=1e-4)
            brier = [((x - np.eye(len(x))[r]) ** 2).sum() for x, r in zip(p, right, strict=True)]
            assert own["brier"] == pytest.approx(np.mean(brier), abs=1e-4)
            if row["kind"] == "random":
                continue
            place = found.answers[["score", "treatment", "selection"]]
            told = found.answers[place.eq([score, row["treatment"], row["selection"]]).all(axis=1)]
            assert told["answer"].tolist() == of_text
            assert told["correct"].tolist() == correct.tolist()
            np.testing.assert_allclose(told["confidence"], [x.max() for x in p], atol=1e-4)
            moved += row["kind"] == "set" and not np.allclose(told["confidence"], _before(found, score), atol=1e-3)
    assert moved == 3 * 2 * 3  # every treatment of both sets, by every score


def _before(found: Tasks, score: str) -> pd.Series:
    rows = found.answers
    return rows.loc[(rows["score"] == score) & (rows["treatment"] == "none"), "confidence"]


def test_short_answers_are_those_of_the_edited_model(lm: LanguageModel) -> None:
    questions = [Question(one.question, (), one.answer, -1) for one in asked()]
    found = tasks(lm, questions, tokens=text_of(lm), **HOW)
    assert found.scores == ["match"]
    prompts, eos = prompts_of(lm, questions), lm.tokenizer.eos_id
    accuracies = set()
    for _, row in found.sets.iterrows():
        edits = edits_of(lm, row["treatment"], row["members"])
        tokens, entropy = alone(lm, prompts, edits, NEW_TOKENS, LENGTH)
        ids = [of[: max(1, [*of, eos].index(eos))] for of in tokens]
        texts = [lm.tokenizer.decode(i).strip() for i in ids]
        assert not any("\n" in text for text in texts)  # the ends of texts end these answers
        confidence = np.exp(log_p_alone(lm, prompts, ids, edits, LENGTH) / [len(i) for i in ids])
        correct = [re.match(rf"{one.answer}\b", text) is not None for one, text in zip(questions, texts, strict=True)]
        assert row["accuracy"] == pytest.approx(np.mean(correct))
        assert row["confidence"] == pytest.approx(confidence.mean(), abs=1e-4)
        assert row["brier"] == pytest.approx(np.mean((confidence - correct) ** 2), abs=1e-4)
        assert row["entropy"] == pytest.approx(entropy.mean(), abs=1e-4)
        accuracies.add(row["accuracy"])
        if row["kind"] != "random":
            place = found.answers[["treatment", "selection"]].eq([row["treatment"], row["selection"]]).all(axis=1)
            assert found.answers.loc[place, "answer"].tolist() == texts
    assert len(accuracies) > 1
    assert found.sets["accuracy"].iloc[0] > 1 / 4  # a relation has four objects or more
    assert "short answers" in sentences(found)[0]


def test_an_answer_ends_at_a_line_break_behind_text(lm: LanguageModel) -> None:
    asking = Asked(lm, lm.tokenizer, 10**9, lambda what, done, total: None)
    encode = lm.tokenizer.encode
    for text, kept in (("\n Oslo\nand", "\n Oslo"), (" Oslo", " Oslo"), (" a\n", " a")):
        assert lm.tokenizer.decode(_until_line_break(asking, np.array(encode(text)))) == kept
    ended = np.array([*encode(" Oslo"), lm.tokenizer.eos_id, *encode(" Rome")])
    assert lm.tokenizer.decode(_until_line_break(asking, ended)) == " Oslo"


def test_changes_are_paired_over_questions(found: Tasks) -> None:
    weights = resamples(np.ones(found.facts["questions"]), 50, 0)
    for _, row in found.changes[found.changes["measure"].isin(["accuracy", "brier"])].iterrows():
        column = {"accuracy": "correct", "brier": "brier"}[row["measure"]]
        of_score = found.answers[found.answers["score"] == row["score"]]
        before = of_score.loc[of_score["treatment"] == "none", column].to_numpy(float)
        own = of_score["treatment"].eq(row["treatment"]) & of_score["selection"].eq(row["selection"])
        after = of_score.loc[own, column].to_numpy(float)
        assert row["change"] == pytest.approx((after - before).mean())
        drawn = weights @ (after - before) / weights.sum(1)
        np.testing.assert_allclose(
            row[["change_lo", "change_hi"]].tolist(), np.quantile(drawn, [0.025, 0.975]), atol=1e-6
        )
        sets = found.sets
        same = sets["score"].eq(row["score"]) & sets["treatment"].eq(row["treatment"])
        random = sets.loc[same & sets["selection"].eq(row["selection"]) & sets["kind"].eq("random"), row["measure"]]
        assert len(random) == 2
        assert row["beyond_random"] == pytest.approx(after.mean() - random.mean())
        assert row["beyond_random_lo"] <= row["beyond_random"] + 1e-9 <= row["beyond_random_hi"] + 2e-9
        assert row["quantile"] == pytest.approx(
            np.mean((random < after.mean()) + 0.5 * np.isclose(random, after.mean()))
        )
    assert set(found.changes["measure"]) == set(MEASURES)


def test_random_sets_are_others_of_the_same_size(found: Tasks) -> None:
    for number, own in enumerate(SETS, 1):
        names = {f"{layer}.{index}" for layer, index in own}
        rows = found.sets[found.sets["selection"] == f"set {number}"]
        assert set(rows.loc[rows["kind"] == "set", "members"]) == {",".join(f"0.{index}" for _, index in own)}
        for listed in rows.loc[rows["kind"] == "random", "members"]:
            members = set(listed.split(","))
            assert len(members) == len(names)
            assert not members & names


def test_curves_are_of_the_answers(found: Tasks) -> None:
    for (score, treatment, selection), rows in found.answers.groupby(["score", "treatment", "selection"]):
        own = [frame[frame[["score", "treatment", "selection"]].eq([score, treatment, selection]).all(axis=1)]
               for frame in (found.risks, found.reliability)]  # fmt: skip
        assert own[0]["risk"].iloc[-1] == pytest.approx(1 - rows["correct"].mean())
        assert own[0]["coverage"].iloc[-1] == 1
        assert own[1]["count"].sum() == len(rows)
        assert (own[1]["count"] * own[1]["accuracy"]).sum() == pytest.approx(rows["correct"].sum())


def test_reasoning_is_told_token_by_token(lm: LanguageModel, found: Tasks) -> None:
    tokens, site = text_of(lm), "blocks.0.mlp.hook_post"
    kept = kept_positions(tokens, lm.special_ids)
    output = lm.apply(tokens, capture=[site])
    lp = np.asarray(output.logits, np.float64)
    lp = lp - np.log(np.exp(lp).sum(-1, keepdims=True))
    entropy = -(np.exp(lp) * lp).sum(-1)[kept]
    np.testing.assert_allclose(found.tokens["entropy"], entropy, atol=1e-4)
    h = np.asarray(output.captured[site])[kept]
    forks = entropy > np.quantile(entropy, 0.9)
    assert found.tokens["is_fork"].tolist() == forks.tolist()
    assert found.forks["neuron"].tolist() == ["0.3", "0.7", "0.9", "0.12"]
    for _, row in found.forks.iterrows():
        own = h[:, int(row["neuron"].split(".")[1])]
        np.testing.assert_allclose(found.tokens[row["neuron"]], own, atol=1e-5)
        assert row["difference"] == pytest.approx(own[forks].mean() - own[~forks].mean(), abs=1e-5)
        assert row["null_lo"] <= row["null_mean"] <= row["null_hi"]
        assert row["p"] <= row["q"] <= 1
    s, t = np.nonzero(kept)
    assert found.tokens["token"].tolist() == [lm.tokenizer.token(token) for token in tokens[s, t]]
    assert found.tokens["target"].tolist() == [lm.tokenizer.token(token) for token in tokens[s, t + 1]]


def test_the_bundled_model_knows_its_world() -> None:
    lm = load(BUNDLED)
    of = world(json.loads((BUNDLED / "tokenizer_config.json").read_text())["jaxconf_source"])
    found = tasks(lm, noise_questions(of, 120), tokens=2048, controls=0, bootstrap_draws=200, scale=())
    rows = found.changes[found.changes["score"] == "acc"].set_index("measure")
    assert found.facts["chance"] == 0.25
    assert rows.loc["accuracy", "before_lo"] > 0.8
    assert rows.loc["auroc", "before_lo"] > 0.6
    assert found.selections == ["highest rho"]
    assert len(found.neurons) == 10
    assert np.isnan(rows["quantile"]).all()
    assert not any("nan" in sentence or "random set" in sentence for sentence in sentences(found)[:-1])


def test_neurons_of_a_run(lm: LanguageModel, tmp_path: Path) -> None:
    last, count = lm.config.n_layers - 1, lm.config.d_mlp
    table = planted_table(neurons=count, plant=False)
    table.facts |= {"convention": "paper"}
    norms = np.linalg.norm(readout(lm.config, lm.params).w_out, axis=1)
    frame = table.frame.assign(layer=last, neuron=np.arange(count), w_norm=norms)
    frame["is_entropy_neuron"], frame["is_frequency_neuron"] = frame.index.isin([4, 6]), frame.index == 11
    # Other components of the run, and neurons of other layers, are no neurons of the last layer.
    others = frame[:2].assign(component="head", name=["0.h0", "0.h1"], is_entropy_neuron=True)
    named = frame.assign(component="neuron", name=[f"{last}.{n}" for n in range(count)])
    dataclasses.replace(table, frame=pd.concat([others, named], ignore_index=True)).save(tmp_path)
    found = tasks(lm, asked(), from_run=tmp_path, tokens=text_of(lm), **HOW | {"sets": SETS[1:], "scale": ()})
    assert found.selections == ["entropy", "frequency", "set 1"]
    listed = found.neurons.groupby("selection")["neuron"].apply(set)
    assert listed.to_dict() == {"entropy": {"0.4", "0.6"}, "frequency": {"0.11"}, "set 1": {"0.12"}}
    none = frame.assign(is_entropy_neuron=False, is_frequency_neuron=False)
    dataclasses.replace(table, frame=none).save(tmp_path)
    check_error(lambda: tasks(lm, asked(), from_run=tmp_path), "names no entropy or frequency neurons", "--set")
    dataclasses.replace(table, frame=frame.assign(w_norm=1.1 * norms)).save(tmp_path)
    check_error(lambda: tasks(lm, asked(), from_run=tmp_path), "another model")


# The command.


@pytest.mark.command
def test_the_command_leaves_tables_figures_and_a_page(
    lm: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One device and as many neurons and random sets as above, for which all is compiled already.
    monkeypatch.setattr("jaxconf.runtime.placement.load_placed", lambda model, *rest: load(model))
    write_questions(asked(), tmp_path / "questions.jsonl")
    text, out = RECORDED / "text.jsonl", tmp_path / "run"
    data = ("tasks", RECORDED / "model", "--data", tmp_path / "questions.jsonl", "--out", out)
    sets = [word for own in SETS for word in ("--set", ",".join(f"0.{index}" for _, index in own))]
    how = ("--text", text, "--tokens", 640, "--reasoning", text, "--reasoning-tokens", 640, "--scale", 0, 2)
    run(*data, *sets, *how, "--controls", 2, "--bootstrap-draws", 20)
    written = {file.name for file in out.iterdir()}
    tables = [field.name for field in dataclasses.fields(Tasks) if field.name != "facts"]
    figures = ["reliability", "risk_coverage", "sets", "forks", "passage"]
    expected = {f"tasks_{name}.parquet" for name in tables} | {f"tasks_{name}.png" for name in figures}
    assert written == expected | {"tasks.json", "tasks.html"}
    record = json.loads((out / "tasks.json").read_text())
    assert record["selections"] == {"set 1": "0.3,0.7,0.9", "set 2": "0.12"}
    assert record["reasoning"] == str(text)
    page, said = (out / "tasks.html").read_text(), capsys.readouterr().out
    assert "$" not in re.sub(r"<script>.*?</script>|data:[^\"]*", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert page.count("<img") == len(figures)
    for sentence in record["verdict"]:
        assert sentence in said.replace("\n", " ")
    assert "--force" in refusal(capsys, *data)
    run(*data, "--force", "--quiet", *how[:4], "--controls", 0, "--bootstrap-draws", 0, "--scale")
    assert not list(out.glob("*forks*.png"))
    assert pd.read_parquet(out / "tasks_forks.parquet").empty


def test_mistakes_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, out = RECORDED / "model", ("--out", tmp_path / "run")
    write_questions(asked(), tmp_path / "questions.jsonl")
    data = ("--data", tmp_path / "questions.jsonl")

    def said(row: dict[str, Any]) -> str:
        (tmp_path / "bad.jsonl").write_text(json.dumps(row))
        return refusal(capsys, "tasks", model, "--data", tmp_path / "bad.jsonl", *out)

    assert "lacks the columns question, answer" in said({"prompt": "Ada lives in"})
    absent = {"question": "Ada lives in", "choices": ["Oslo", "Rome"], "answer": "Lima"}
    assert "has the answer 'Lima', which is not among its 2 choices" in said(absent)
    assert "does not exist" in refusal(capsys, "tasks", model, "--data", tmp_path / "none.jsonl", *out)
    assert "0.64" in refusal(capsys, "tasks", model, *data, *out, "--set", "0.64")
    assert "neither neurons nor a file" in refusal(capsys, "tasks", model, *data, *out, "--set", "x")
    assert "give different finite factors" in refusal(capsys, "tasks", model, *data, *out, "--scale", 1, 1)
    assert "questions is 0" in refusal(capsys, "tasks", model, *data, *out, "--questions", 0)
    assert "does not exist" in refusal(capsys, "tasks", model, *data, *out, "--run", tmp_path)
    assert "the nearest is --run" in refusal(capsys, "tasks", model, *data, *out, "--rum", tmp_path)
    assert "0.3.1" in refusal(capsys, "tasks", model, *data, *out, "--set", "0.3.1")
    assert not (tmp_path / "run").exists()


def test_other_models_and_questions_are_refused() -> None:
    lm = random_model("layer")
    check_error(lambda: tasks(lm, asked()), "tokenizer")
    check_error(lambda: tasks(lm, []), "no questions")
    check_error(lambda: tasks(lm, [*asked(), Question("2 and 2 is", (), "4", -1)]), "of one kind")

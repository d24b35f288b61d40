"""Context against memory: many sets that answer together give what each gives alone, without cache or vmap, and the tables follow from that.

Letters: p prompt, n new token, c set of neurons, k neuron of a set. Log-probabilities and entropies in nats.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from commands import refusal, run
from hypothesis import assume, given
from meshes import ACROSS, gathered, on_mesh
from random_models import random_model
from refusals import check_error
from tiny_knowledge import make_knowledge

from jaxconf.analysis.ablated_sets import Ablations
from jaxconf.analysis.activations import BINS
from jaxconf.analysis.transitions import (
    CLASSES,
    conversion_ratios,
    means_by_transition,
    quantile_among,
    transition_scores,
    transition_tables,
)
from jaxconf.data.documents import documents
from jaxconf.data.statements import answer_class, begins, contradicts, normal, objects_of, own_object, read_statements
from jaxconf.data.windows import windows
from jaxconf.measure import answers as together
from jaxconf.measure.answers import ablated_answers
from jaxconf.models.decoder import forward
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.models.sites import Ablate
from jaxconf.studies.copying.figures import DRAWN, sentences
from jaxconf.studies.copying.study import ABLATIONS, MEASURES, NEW_TOKENS, Copying, copying

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")

MEMORY = 10**9
whole_pass = jax.jit(forward, static_argnames="config")


def quiet(what: str, done: int, total: int) -> None:
    pass


def log_probabilities(lm: LanguageModel, rows: list[np.ndarray], length: int, edits: dict[str, Any]) -> np.ndarray:
    """Of every next token, [p t v], by whole passes; what is behind a row's end does not matter to it."""
    tokens = np.stack([np.pad(row, (0, length - len(row))) for row in rows])
    return np.asarray(jax.nn.log_softmax(whole_pass(lm.config, lm.params, tokens, edits).logits))


def ablation(lm: LanguageModel, members: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    mask, to = np.zeros(lm.config.d_mlp, bool), np.zeros(lm.config.d_mlp, np.float32)
    mask[members], to[members] = True, values
    return {f"blocks.{lm.config.n_layers - 1}.mlp.hook_post": Ablate(jnp.asarray(mask), jnp.asarray(to))}


def alone(lm: LanguageModel, prompts: list[np.ndarray], edits: dict[str, Any], n_new: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """One set at a time, without cache or vmap: the greedy continuations [p n], and the entropy of the first prediction, [p]."""
    rows = [np.asarray(prompt) for prompt in prompts]
    for step in range(n_new):
        lp = log_probabilities(lm, rows, length, edits)[np.arange(len(rows)), [len(row) - 1 for row in rows]]
        if step == 0:
            entropy = -(np.exp(lp) * lp).sum(-1)
        rows = [np.append(row, of_row.argmax()) for row, of_row in zip(rows, lp, strict=True)]
    return np.stack([row[-n_new:] for row in rows]), entropy


def log_p_alone(lm: LanguageModel, prompts: list[np.ndarray], answers: list[np.ndarray], edits: dict[str, Any], length: int) -> np.ndarray:
    lp = log_probabilities(lm, [np.concatenate(pair) for pair in zip(prompts, answers, strict=True)], length, edits)
    return np.array([sum(lp[p, len(prompts[p]) - 1 + a, token] for a, token in enumerate(answer)) for p, answer in enumerate(answers)])


C, NEW = 7, 6


def case(kind: str) -> tuple[LanguageModel, list[np.ndarray], list[list[np.ndarray]], Ablations]:
    """A model, prompts, two answers to each, and sets of which the first ablates nothing."""
    lm, rng = random_model(kind), np.random.default_rng(0)
    prompts = [rng.integers(1, lm.config.vocab_size, length) for length in (5, 9, 7)]
    answers = [[rng.integers(1, lm.config.vocab_size, 3), rng.integers(1, lm.config.vocab_size, 2)] for _ in prompts]
    members = np.array([rng.choice(lm.config.d_mlp, 6, replace=False) for _ in range(C)])
    return lm, prompts, answers, Ablations(members, 2 * rng.standard_normal(members.shape).astype(np.float32), np.arange(C) > 0)


@pytest.mark.parametrize("kind", ["capped", "summed"])  # a norm behind the MLP and soft caps; a norm of the sum. For others see below
def test_sets_answer_together_as_each_does_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, prompts, answers, sets = case(kind)
    monkeypatch.setattr(together, "SETS", 4)  # two chunks, of which one is filled up
    found = ablated_answers(lm, prompts, answers, sets, NEW, MEMORY, quiet, "")
    assert len(np.unique(found.tokens.reshape(-1, NEW), axis=0)) > len(prompts)
    for c in range(C):
        edits = ablation(lm, sets.members[c], sets.values[c]) if c else ablation(lm, np.array([], int), np.array([]))
        tokens, entropy = alone(lm, prompts, edits, NEW, 16)
        np.testing.assert_array_equal(found.tokens[c], tokens)
        np.testing.assert_allclose(found.entropy[c], entropy, atol=1e-5)
        for j in range(2):
            expected = log_p_alone(lm, prompts, [of_prompt[j] for of_prompt in answers], edits, 16)
            np.testing.assert_allclose(found.log_p[c, :, j], expected, atol=2e-5)


def test_what_sets_share_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets that leave neurons as they are need no texts of their own; one that differs needs one of each prompt."""
    lm, prompts, answers, sets = case("capped")
    texts: list[int] = []

    def counted(*arguments: Any) -> Any:
        texts.append(len(arguments[-1]))
        return advance(*arguments)

    advance = together.advance
    monkeypatch.setattr(together, "advance", counted)
    monkeypatch.setattr(together, "SETS", 4)
    same = ablated_answers(lm, prompts, answers, sets._replace(ablated=np.zeros(C, bool)), NEW, MEMORY, quiet, "")
    assert texts == [3] * 2 * (NEW - 1)  # of two chunks
    assert (same.tokens == same.tokens[0]).all()
    texts.clear()
    one = sets._replace(values=np.full(sets.values.shape, 99, np.float32), ablated=np.arange(C) == 3)
    other = ablated_answers(lm, prompts, answers, one, NEW, MEMORY, quiet, "")
    assert texts[NEW - 2] == 12  # up to four of each prompt is the next size that is compiled
    assert texts[NEW - 1 :] == [3] * (NEW - 1)
    np.testing.assert_array_equal(np.delete(other.tokens, 3, 0), np.delete(same.tokens, 3, 0))
    assert (other.tokens[3] != same.tokens[3]).any()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mesh"), ACROSS)
def test_meshes_give_the_same_answers(kind: str, mesh: tuple[int, int]) -> None:
    lm, rng = random_model(kind), np.random.default_rng(2)
    prompts = [rng.integers(1, lm.config.vocab_size, length) for length in (5, 9, 7, 6, 5)]
    answers = [[prompt[:2]] for prompt in prompts]
    members = np.array([rng.choice(lm.config.d_mlp, 6, replace=False) for _ in range(5)])
    sets = Ablations(members, rng.standard_normal(members.shape).astype(np.float32), np.arange(5) > 0)
    one, other = (ablated_answers(model, prompts, answers, sets, 4, 10**5, quiet, "") for model in (lm, on_mesh(lm, *mesh)))
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_allclose(one.log_p, other.log_p, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(one.entropy, other.entropy, atol=1e-5)


@pytest.mark.parametrize("mesh", [(8, 1), (2, 4)])
def test_no_logits_are_gathered(mesh: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    lm, rng = on_mesh(random_model("large"), *mesh), np.random.default_rng(2)
    V = lm.config.vocab_size
    prompts = [rng.integers(1, V, 5) for _ in range(16)]
    members = np.array([rng.choice(lm.config.d_mlp, 6, replace=False) for _ in range(3)])
    sets = Ablations(members, rng.standard_normal(members.shape).astype(np.float32), np.arange(3) > 0)
    found: dict[str, int] = {}

    def measured(name: str) -> Callable[..., Any]:
        program = getattr(together, name)

        def run(*arguments: Any) -> Any:
            found[name] = found.get(name) or gathered(program.lower(*arguments).compile())
            return program(*arguments)

        return run

    for name in ("_begin", "_judged", "_likeliest", "_branched", "_advance"):
        monkeypatch.setattr(together, name, measured(name))
    ablated_answers(lm, prompts, [[prompt[:2], prompt[1:3]] for prompt in prompts], sets, 3, MEMORY, quiet, "")
    assert len(found) == 5
    assert max(found.values()) < len(prompts) * V


# A model that has learnt facts and to be contradicted.


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory, compiled_quickly: None) -> Path:
    """A folder with statements.csv, text.jsonl and a model of them."""
    return make_knowledge(tmp_path_factory.mktemp("knowledge"))


@pytest.fixture(scope="module")
def found(knowledge: Path) -> Copying:
    lm = load(knowledge / "model")
    text = windows(documents(str(knowledge / "text.jsonl")), lm.tokenizer, 640, 32)
    return copying(lm, read_statements(knowledge / "statements.csv"), text, controls=6)


def test_the_model_heeds_both_context_and_memory(found: Copying) -> None:
    shares = found.prompts["class"].value_counts(normalize=True)
    assert shares["CK"] > 0.15
    assert shares["PK"] > 0.15


def plain_class(text: str, context: str, own: str) -> str:
    """The rule again, by a regular expression."""
    for name, answer in (("CK", context), ("PK", own)):
        if re.match(rf"\s*{re.escape(answer)}(?![^\W_])", text, re.IGNORECASE):
            return name
    return "ND"


def test_tables_equal_decoding_one_set_at_a_time(knowledge: Path, found: Copying) -> None:
    lm = load(knowledge / "model")
    tokenizer, last = lm.tokenizer, lm.config.n_layers - 1
    own = found.statements["own"].loc[found.prompts["statement"]].tolist()
    contexts = found.prompts["context"].tolist()
    prompts = [np.array([tokenizer.bos_id, *tokenizer.encode(prompt)]) for prompt in found.prompts["prompt"]]
    answers = [tokenizer.encode(f" {context}") for context in contexts]
    length = max(map(len, prompts)) + NEW_TOKENS
    text = windows(documents(str(knowledge / "text.jsonl")), tokenizer, 640, 32)
    site = f"blocks.{last}.mlp.hook_post"
    h = np.asarray(lm.apply(text, capture=[site]).captured[site]).reshape(-1, lm.config.d_mlp)
    usual = dict(zip(ABLATIONS, usual_values(h), strict=True))

    def answered(edits: dict[str, Any]) -> tuple[list[str], list[str], np.ndarray]:
        tokens, entropy = alone(lm, prompts, edits, NEW_TOKENS, length)
        texts = [tokenizer.decode(row[: [*row, 0].index(0)]) for row in tokens]  # 0 ends a text
        return [plain_class(*triple) for triple in zip(texts, contexts, own, strict=True)], texts, entropy

    before, texts, entropy = answered(ablation(lm, np.array([], int), np.array([])))
    assert found.prompts["class"].tolist() == before
    assert found.prompts["continuation"].tolist() == texts
    np.testing.assert_allclose(found.prompts["entropy"], entropy, atol=1e-5)
    changed = 0
    for row in found.sets.to_dict("records"):
        members = np.array([int(name.split(".")[1]) for name in row["members"].split(",")])
        edits = ablation(lm, members, usual[row["ablation"]][members])
        after, texts, entropy_after = answered(edits)
        table = pd.crosstab(pd.Categorical(before, CLASSES), pd.Categorical(after, CLASSES), dropna=False)
        rows = found.transitions[(found.transitions["ablation"] == row["ablation"]) & (found.transitions["set"] == row["set"])]
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
            told = found.answers[found.answers["ablation"] == row["ablation"]]
            assert told["continuation"].tolist() == texts
            assert told["class"].tolist() == after
            np.testing.assert_allclose(told["log_p_CK"], log_p_alone(lm, prompts, answers, edits, length), atol=1e-4)
    assert changed > len(found.sets) / 2


def usual_values(h: np.ndarray) -> list[np.ndarray]:
    """ABLATIONS of activations [… n], one neuron at a time."""
    modes = []
    for of_neuron in h.T:
        counts, edges = np.histogram(of_neuron, BINS)
        modes.append(edges[counts.argmax()] / 2 + edges[counts.argmax() + 1] / 2)
    mean, std = h.mean(0, dtype=np.float64), h.std(0, dtype=np.float64)
    return [mean, np.median(h, 0), np.array(modes), np.minimum(mean + 3 * std, h.max(0)), np.maximum(mean - 3 * std, h.min(0))]


def test_prompts_contradict_with_what_the_model_finds_least_likely(knowledge: Path, found: Copying) -> None:
    lm = load(knowledge / "model")
    pool = objects_of(read_statements(knowledge / "statements.csv"))
    for statement, row in found.statements.iterrows():
        query = np.array([lm.tokenizer.bos_id, *lm.tokenizer.encode(row["query"])])
        said = lm.tokenizer.decode(lm.generate([query], NEW_TOKENS)[0]).removesuffix("<|endoftext|>")
        assert row["continuation"] == said
        assert row["own"] == own_object(said, pool[row["relation"]])
        assert row["knows"] == (row["own"] == row["object"])
        other = [o for o in pool[row["relation"]] if o not in (row["object"], row["own"])]
        ids = [lm.tokenizer.encode(f" {o}") for o in other]
        scores = log_p_alone(lm, [query] * len(other), ids, {}, 24) / [len(i) for i in ids]
        prompts = found.prompts[found.prompts["statement"] == statement]
        assert len(prompts) == min(3, len(other))
        assert prompts["context"].tolist() == [other[i] for i in np.argsort(scores)[:3]]
        np.testing.assert_allclose(prompts["log_p_query"], np.sort(scores)[:3], atol=1e-4)
        assert (prompts["prompt"] == f"{row['query']} " + prompts["context"] + f". {row['query']}").all()


def test_random_sets_are_others_of_the_last_layer(found: Copying) -> None:
    chosen = set(found.facts["chosen"])
    rho = found.neurons.set_index("neuron")["rho"]
    assert rho.is_monotonic_decreasing
    for row in found.sets[found.sets["kind"] == "random"].to_dict("records"):
        members = set(row["members"].split(","))
        assert len(members) == len(chosen) == 10
        assert not members & chosen
        assert {name.split(".")[0] for name in members} == {"0"}


def test_quantiles_place_the_set_among_the_random_ones(found: Copying) -> None:
    for row in found.quantiles.to_dict("records"):
        of_value = found.sets[found.sets["ablation"] == row["ablation"]].set_index("kind")[row["measure"]]
        random = of_value["random"].to_numpy()
        if np.isnan(random).any():
            assert np.isnan(row["quantile"])
            continue
        assert row["value"] == of_value["set"]
        assert row["quantile"] == pytest.approx(np.mean((random < row["value"]) + 0.5 * (random == row["value"])))
        assert row["quantile_lo"] <= row["quantile"] <= row["quantile_hi"]
    assert set(found.quantiles["measure"]) == set(MEASURES)


# Tables of transitions.

of_classes = functools.partial(arrays.arrays, np.int64, elements=st.integers(0, 2))


def test_a_table_by_hand() -> None:
    before, after = np.array([0, 0, 0, 1, 1]), np.array([[0, 1, 1, 1, 0], [0, 0, 0, 1, 1]])
    tables = transition_tables(before, after)
    np.testing.assert_array_equal(tables[0], [[1, 2, 0], [1, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(conversion_ratios(tables), [[2 / 3, 1 / 2, np.nan], [0, 0, np.nan]])
    np.testing.assert_allclose(transition_scores(tables), [3 / 5, 0])
    means = means_by_transition(before, after, np.array([[1.0, 2, 4, 8, 16], [0] * 5]))
    np.testing.assert_allclose(means[0], [[1, 3, np.nan], [16, 8, np.nan], [np.nan] * 3])


@given(data=st.data(), P=st.integers(1, 12), C=st.integers(1, 4))
def test_tables_hold_every_prompt_once(data: st.DataObject, P: int, C: int) -> None:
    before, after = data.draw(of_classes(shape=P)), data.draw(of_classes(shape=(C, P)))
    tables = transition_tables(before, after)
    np.testing.assert_array_equal(tables.sum(2), np.broadcast_to(np.bincount(before, minlength=3), (C, 3)))
    np.testing.assert_array_equal(tables.sum(1), [np.bincount(of_set, minlength=3) for of_set in after])
    np.testing.assert_allclose(transition_scores(tables), (after != before).mean(1))
    weights = np.bincount(before, minlength=3) / P
    np.testing.assert_allclose(np.nansum(conversion_ratios(tables) * weights, 1), transition_scores(tables), atol=1e-12)


@given(others=arrays.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 5)), own=st.integers(0, 5))
def test_quantiles_have_clopper_and_pearsons_intervals(others: np.ndarray, own: int) -> None:
    quantile, low, high = quantile_among(own, others)
    below, most = int((others < own).sum()), int((others <= own).sum())
    assert quantile == pytest.approx((below + most) / 2 / len(others))
    assert low == pytest.approx(scipy.stats.binomtest(below, len(others)).proportion_ci().low)
    assert high == pytest.approx(scipy.stats.binomtest(most, len(others)).proportion_ci().high)
    assert low <= quantile <= high


# Statements, and answers to them.


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        (" Paris. It is", "Paris", True),
        (" PARIS\n and", "paris", True),
        (" Parisian", "Paris", False),
        ("New  York City", "new york", True),
        ("Paris", "Paris is", False),
        ("ﬁnland", "Finland", True),
        ("Paris", "", False),
    ],
)
def test_a_text_begins_with_an_answer_at_a_words_end(text: str, answer: str, expected: bool) -> None:
    assert begins(normal(text), normal(answer)) == expected


def test_own_objects() -> None:
    assert own_object(" New York City, and", ["New York", "York", "New York City"]) == "New York City"
    assert own_object(" the sun. All the", ["Paris"]) == "the sun"
    assert own_object("\n\nOslo\nRome", ["Rome"]) == "Oslo"
    assert own_object(". Yes", ["Rome"]) == ""


words = st.text("ab A.", max_size=6).map(lambda text: " ".join(text.split()))


@given(text=words, one=words, other=words)
def test_no_answer_is_of_two_classes(text: str, one: str, other: str) -> None:
    assume(one and other)
    if contradicts(one, other):
        assert not (begins(normal(text), normal(one)) and begins(normal(text), normal(other)))
    assert CLASSES[answer_class(f" {text}", one, other)] == plain_class(text, one, other)


HEAD = "rel_p_id,statement_subject,statement_relation,statement_object\n"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["cannot be read as CSV"]),
        ("rel_p_id,statement_object\nP1,a\n", ["lacks the columns statement_subject, statement_relation;"]),
        (HEAD, ["no relation with two objects"]),
        (HEAD + "P1,Ada,is,tall\nP1,Bo,is, TALL\nP2,Ada,was,small\n", ["no relation with two objects"]),
        (HEAD + "P1,Ada,is,tall\nP1,Bo,,small\n", ["no statement_relation in its statement 2"]),
        (HEAD + '"P1,Ada\n', ["cannot be read as CSV"]),
    ],
)
def test_statements_that_are_none(content: str, parts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "statements.csv"
    file.write_text(content)
    check_error(lambda: read_statements(file), str(file), *parts)


def test_statements_are_read_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "statements.csv"
    file.write_text(HEAD.replace("rel_p_id", "x,rel_p_id") + ",P1,Ada,is a,NA\n,P1,Bo,is a,null\n,P1,Ada,is a,baker\n,P2,Ada,is in,Rome\n")
    frame = read_statements(file)
    assert frame["query"].tolist() == ["Ada is a", "Bo is a", "Ada is in"]
    assert frame["object"].tolist() == ["NA", "null", "Rome"]
    assert objects_of(frame).to_dict() == {"P1": ["NA", "null"], "P2": ["Rome"]}


def test_the_shared_statements_can_be_asked(shared: Path) -> None:
    frame = read_statements(shared / "data" / "pararel-statements.csv")
    assert len(frame) == 4666
    assert (objects_of(frame).map(len) < 2).sum() == 2


# The command.


def test_the_command_leaves_tables_figures_and_a_page(
    knowledge: Path, found: Copying, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    arguments = ("copying", knowledge / "model", "--data", knowledge / "statements.csv", "--text", knowledge / "text.jsonl", "--out", out)
    run(*arguments, "--statements", 5, "--controls", 2, "--neurons", "0.3,0.5", "--tokens", 320)
    names = {file.name for file in out.iterdir()}
    tables = [field.name for field in dataclasses.fields(Copying) if field.name != "facts"]
    figures = ["transitions", "conversions", "scores", "entropy", "log_ratios"]
    assert names == {f"copying_{name}.parquet" for name in tables} | {f"copying_{name}.png" for name in figures} | {
        "copying.json",
        "copying.html",
    }
    record = json.loads((out / "copying.json").read_text())
    assert record["chosen"] == ["0.3", "0.5"]
    assert record["statements_asked"] == 5
    page, said = (out / "copying.html").read_text(), capsys.readouterr().out
    assert "$" not in re.sub(r"<script>.*?</script>|data:[^\"]*", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert page.count("<img") == len(figures)
    for sentence in record["verdict"]:
        assert sentence in said.replace("\n", " ")
    assert "--force" in refusal(capsys, *arguments)


def test_little_that_can_be_said_is_said(found: Copying) -> None:
    assert not any("answers are neither" in sentence or "next to nothing" in sentence for sentence in sentences(found))
    neither = dataclasses.replace(found, prompts=found.prompts.assign(**{"class": ["PK"] + ["ND"] * (len(found.prompts) - 1)}))
    told = " ".join(sentences(neither))
    assert "Almost all answers are neither" in told
    assert "only 1 prompt can tell" in told
    assert "its context in only 0 prompts and its memory in only 1 prompt, so these statements say next to nothing" in told


def test_no_random_sets_are_said_and_drawn(found: Copying) -> None:
    def chosen(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame["kind"] == "set"]

    only = dataclasses.replace(
        found,
        quantiles=found.quantiles.copy(),
        facts=found.facts | {"controls": 0},
        sets=chosen(found.sets),
        transitions=chosen(found.transitions),
    )
    only.quantiles[["random_mean", "quantile", "quantile_lo", "quantile_hi"]] = np.nan
    assert not any("random sets do" in sentence or "nan" in sentence for sentence in sentences(only))
    for draw in DRAWN.values():
        draw(only).draw_without_rendering()


@pytest.mark.slow
def test_stories_run_to_the_end(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = ("--data", shared / "data" / "pararel-statements.csv", "--text", shared / "data" / "tinystories.jsonl")
    run("copying", shared / "models" / "stories260K", *data, "--statements", 12, "--controls", 5, "--tokens", 2048, "--out", tmp_path)
    prompts = pd.read_parquet(tmp_path / "copying_prompts.parquet")
    assert (prompts["class"] == "CK").mean() < 0.05
    assert "its context in only" in capsys.readouterr().out.replace("\n", " ")


def test_mistakes_of_the_command(knowledge: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, data = knowledge / "model", ("--data", knowledge / "statements.csv")
    out = ("--out", tmp_path / "run")
    columns = tmp_path / "columns.csv"
    columns.write_text("rel_p_id,statement_subject\nP1,Ada\n")
    assert "lacks the columns statement_relation, statement_object" in refusal(capsys, "copying", model, "--data", columns, *out)
    assert "no relation with two objects" in refusal(capsys, "copying", model, "--data", one_object(tmp_path), *out)
    assert "0.64" in refusal(capsys, "copying", model, *data, *out, "--neurons", "0.64")
    assert "such as 11.584" in refusal(capsys, "copying", model, *data, *out, "--neurons", "x")
    assert "--statements is 0" in refusal(capsys, "copying", model, *data, *out, "--statements", 0)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((model / name).read_bytes())
    assert "tokenizer" in refusal(capsys, "copying", bare, *data, *out)
    assert not (tmp_path / "run").exists()


def one_object(folder: Path) -> Path:
    (folder / "one.csv").write_text(HEAD + "P1,Ada,is,tall\nP1,Bo,is,tall\n")
    return folder / "one.csv"


def test_what_no_prompt_can_be_made_of() -> None:
    lm = random_model("layer")
    check_error(lambda: copying(lm, pd.DataFrame(), np.ones((1, 8), int), neurons=[(0, 1)]), "tokenizer")


def test_sets_of_other_layers_are_refused(knowledge: Path) -> None:
    from jaxconf.studies.copying.study import check_chosen

    check_error(lambda: check_chosen(random_model("layer").config, [(0, 3)], 2), "0.3", "layer 1")

"""What a measurement is given: windows or how many tokens of a text, token counts, a model or its name."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hub_models import HF, build
from random_models import random_model
from refusals import refused
from world_text import model_of

from jaxconf.analysis.frequency import split_half_cosine
from jaxconf.data.documents import documents
from jaxconf.data.token_counts import count_tokens
from jaxconf.data.windows import windows
from jaxconf.measure.analyze import analyze
from jaxconf.measure.inputs import check_amounts, counts_of, loaded, text_of, window_length, windows_of
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.results.words import facts_in_words

pytestmark = pytest.mark.usefixtures("counted_quickly")


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(build(tmp_path_factory.mktemp("models") / "model", 0, HF | {"max_position_embeddings": 512}))


@pytest.fixture
def text(tmp_path: Path) -> str:
    lines = [json.dumps({"text": f"def f{i}(x):\n    return x * {i}\n"}) for i in range(300)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "text.jsonl")


@pytest.mark.parametrize("context", [256, 1024, 32])
def test_text_is_read_in_windows_of_the_shortest_context(lm: LanguageModel, text: str, context: int) -> None:
    other = dataclasses.replace(lm.config, n_positions=context)
    found = windows_of(600, text, lm, other)
    length = min(256, context, lm.config.n_positions)
    for ours, theirs in zip(found, windows(documents(text), lm.tokenizer, 600, length), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.tokens.shape == (600 // length, length)


def test_windows_are_taken_as_they_are(lm: LanguageModel) -> None:
    given = np.arange(12).reshape(2, 6)
    found = windows_of(given, "nowhere.txt", lm)
    assert found.tokens.dtype == np.int32
    np.testing.assert_array_equal(found.tokens, given)
    np.testing.assert_array_equal(found.documents, [[0] * 6, [1] * 6])  # each window by itself
    assert windows_of(found, "nowhere.txt", lm) is found


def test_numbers_that_are_too_small_are_refused(lm: LanguageModel) -> None:
    assert refused(lambda: windows_of(0, "stdlib", lm)) == "tokens is 0; give at least 1"
    short = dataclasses.replace(lm.config, n_positions=40)
    said = refused(lambda: windows_of(39, "stdlib", lm, short))
    assert said == "tokens is 39, but one window has 40; give at least 40"
    assert window_length(40, lm.config, short) == 40
    assert refused(lambda: check_amounts(0, effects=3, seed=-1)) == "seed is -1; give at least 0"
    check_amounts(1, tokens=np.zeros((0, 4), int), sequences=1)


def test_a_model_is_loaded_only_if_it_is_named(lm: LanguageModel) -> None:
    def fail(name: str) -> LanguageModel:
        raise AssertionError(name)

    assert loaded(lm, fail) is lm
    assert loaded(Path("here"), lambda name: dataclasses.replace(lm, name=name)).name == "here"


def quiet(what: str, done: int, total: int) -> None:
    pass


def test_counts_are_those_of_the_text_that_is_read_or_the_given_ones(
    lm: LanguageModel, text: str, tmp_path: Path
) -> None:
    counted = count_tokens(documents(text), lm.tokenizer, lm.config.vocab_size)
    read = text_of(lm, 600, text, None, quiet)
    np.testing.assert_array_equal(read.windows.tokens, windows_of(600, text, lm).tokens)
    np.testing.assert_array_equal(read.counts, counted)
    assert read.facts == {
        "data": text,
        "counts": f"{text}, its first 40,000,000 characters at most",
        "counts_tokens": counted.sum(),
        "counts_types": np.count_nonzero(counted),
        "counts_smoothing": "add-one",
        "counts_cosine": split_half_cosine(counted),
        "counts_sha256": hashlib.sha256(counted.tobytes()).hexdigest(),
    }

    np.save(tmp_path / "counts.npy", 2 * counted)
    of_file = text_of(lm, 600, text, tmp_path / "counts.npy", quiet)
    np.testing.assert_array_equal(of_file.counts, 2 * counted)
    assert of_file.facts["counts"] == str(tmp_path / "counts.npy")
    np.save(tmp_path / "counts.npy", counted[: lm.tokenizer.vocab_size - 1])
    refused(lambda: text_of(lm, 600, text, tmp_path / "counts.npy", quiet), "fewer than the", "jaxconf unigram")
    given = text_of(lm, 600, text, counted, quiet)
    np.testing.assert_array_equal(given.counts, counted)
    assert given.facts["counts"] == "given"


def test_the_column_and_the_skipped_rows_stand_in_the_facts(lm: LanguageModel, tmp_path: Path) -> None:
    rows = [json.dumps({"body": f"def f{i}(x):\n    return x\n" if i > 3 else None}) for i in range(30)]
    (tmp_path / "text.jsonl").write_text("\n".join(rows))
    source = f"{tmp_path / 'text.jsonl'}:column=body"
    facts = text_of(lm, 256, source, None, quiet).facts
    assert (facts["data"], facts["rows_skipped"]) == (source, 4)
    assert facts["counts"].startswith(source)
    data = dict(facts_in_words(facts))["Data"]
    assert data == f"{source}, rows without text skipped: 4"


def test_tokens_of_given_windows_are_counted_in_the_text_and_not_in_the_windows(lm: LanguageModel, text: str) -> None:
    found = text_of(lm, np.ones((2, 6), int), text, None, quiet)
    np.testing.assert_array_equal(found.counts, count_tokens(documents(text), lm.tokenizer, lm.config.vocab_size))
    assert found.facts["data"] == "tokens"
    assert found.facts["counts"].startswith(text)


def test_the_default_text_is_the_models_own_and_is_named_in_the_facts(lm: LanguageModel, tmp_path: Path) -> None:
    of_world = load(model_of("copies:words=16,levels=2,size=2000", tmp_path / "model"))
    found = text_of(of_world, 400, "own", None, quiet)
    source = "copies:words=16,levels=2"
    assert found.facts["data"] == source
    assert found.facts["counts"].startswith(f"{source}, its first")
    assert found.counts[18:].sum() > 0  # the separators of copies
    for ours, theirs in zip(found.windows, windows(documents(source), of_world.tokenizer, 400, 40), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = text_of(of_world, 400, f"{source},seed=3", None, quiet)
    assert other.facts["data"] == f"{source},seed=3"
    assert (other.windows.tokens != found.windows.tokens).any()
    assert text_of(lm, 512, "own", None, quiet).facts["data"] == "stdlib"


def test_a_text_that_is_read_is_one_that_the_model_can_read(lm: LanguageModel, tmp_path: Path) -> None:
    of_world, counts = load(model_of("noise:words=16", tmp_path / "model")), np.ones(262, int)
    advice = "the text is 'stdlib'; give --data noise:words=16"
    refused(lambda: windows_of(400, "stdlib", of_world), "was trained on 'noise:words=16'", advice)
    refused(lambda: counts_of(of_world, "stdlib", None, quiet), advice)
    refused(lambda: text_of(of_world, np.ones((2, 6), int), "stdlib", None, quiet), advice)
    assert text_of(of_world, np.ones((2, 6), int), "stdlib", counts, quiet).facts["data"] == "tokens"  # no text is read
    refused(lambda: windows_of(512, "noise", lm), "the text 'noise' has a tokenizer of its own")
    refused(lambda: of_world.tokenizer.encode("w0 hello"), "the tokenizer cannot encode the text")


def test_without_a_tokenizer_counts_are_asked_for_and_padded(tmp_path: Path) -> None:
    lm = random_model("rms")
    assert "no tokenizer" in refused(lambda: text_of(lm, np.ones((2, 6), int), "stdlib", None, quiet), "give counts")
    np.save(tmp_path / "counts.npy", [5, 3])
    padded = text_of(lm, np.ones((2, 6), int), "stdlib", tmp_path / "counts.npy", quiet).counts
    np.testing.assert_array_equal(padded, [5, 3] + [0] * (lm.config.vocab_size - 2))


def test_an_analysis_of_so_many_tokens_is_that_of_their_windows_and_counts(text: str, tmp_path: Path) -> None:
    lm = load(build(tmp_path / "model", 0))
    found = analyze(lm, 80, data=text, nulls=0, bootstrap_draws=0)
    counts = count_tokens(documents(text), lm.tokenizer, lm.config.vocab_size)
    same = analyze(lm, windows_of(80, text, lm), counts=counts, nulls=0, bootstrap_draws=0)
    pd.testing.assert_frame_equal(found.frame, same.frame)
    assert (found.facts["data"], found.facts["counts_sha256"]) == (text, same.facts["counts_sha256"])

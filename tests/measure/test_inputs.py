"""What a measurement is given: windows or how many tokens of a text, token counts, a model or its name."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hub_models import build
from refusals import refused

from jaxconf.data.documents import documents
from jaxconf.data.token_counts import count_tokens
from jaxconf.data.windows import windows
from jaxconf.measure.analyze import analyze
from jaxconf.measure.inputs import check_amounts, loaded, text_of, windows_of
from jaxconf.models.language_model import BUNDLED, LanguageModel, load


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load(BUNDLED)


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
    np.testing.assert_array_equal(found, windows(documents(text), lm.tokenizer, 600, length))
    assert found.shape == (600 // length, length)


def test_windows_are_taken_as_they_are(lm: LanguageModel) -> None:
    given = np.arange(12).reshape(2, 6)
    found = windows_of(given, "nowhere.txt", lm)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, given)


def test_numbers_that_are_too_small_are_refused(lm: LanguageModel) -> None:
    assert refused(lambda: windows_of(0, "stdlib", lm)) == "tokens is 0; give at least 1"
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
    np.testing.assert_array_equal(read.tokens, windows_of(600, text, lm))
    np.testing.assert_array_equal(read.counts, counted)
    assert read.facts == {"data": text, "counts": f"{text}, its first 40,000,000 characters at most"}

    np.save(tmp_path / "counts.npy", 2 * counted)
    of_file = text_of(lm, 600, text, tmp_path / "counts.npy", quiet)
    np.testing.assert_array_equal(of_file.counts, 2 * counted)
    assert of_file.facts["counts"] == str(tmp_path / "counts.npy")
    given = text_of(lm, 600, text, counted, quiet)
    assert given.counts is counted
    assert given.facts["counts"] == "given"


def test_windows_that_are_given_have_their_own_counts(lm: LanguageModel) -> None:
    found = text_of(lm, np.ones((2, 6), int), "nowhere.txt", None, quiet)
    assert found.counts is None
    assert found.facts == {"data": "tokens", "counts": "the analysed windows"}


def test_an_analysis_of_so_many_tokens_is_that_of_their_windows_and_counts(text: str, tmp_path: Path) -> None:
    lm = load(build(tmp_path / "model", 0))
    found = analyze(lm, 80, data=text, bootstrap_draws=0)
    counts = count_tokens(documents(text), lm.tokenizer, lm.config.vocab_size)
    same = analyze(lm, windows_of(80, text, lm), counts=counts, bootstrap_draws=0)
    pd.testing.assert_frame_equal(found.frame, same.frame)
    assert (found.facts["data"], found.facts["counts_sha256"]) == (text, same.facts["counts_sha256"])

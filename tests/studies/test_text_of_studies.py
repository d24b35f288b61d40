"""The studies read the text that a model was trained on, and name it in their facts."""

from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from world_text import model_of

from jaxconf.data.statements import COLUMNS
from jaxconf.measure.unigram import unigram
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.studies.comparison.study import compare
from jaxconf.studies.copying.study import copying
from jaxconf.studies.induction.setting import read_texts
from jaxconf.studies.universal.study import universal

pytestmark = pytest.mark.usefixtures("compiled_quickly", "counted_quickly")

WORLD = "noise:words=16,levels=2"
ADVICE = f"the text is 'stdlib'; give --data {WORLD}"


@pytest.fixture(scope="module")
def lms(tmp_path_factory) -> list[LanguageModel]:
    """Two models of one world."""
    parent = tmp_path_factory.mktemp("models")
    return [load(model_of(WORLD, parent / str(seed), seed)) for seed in (0, 1)]


def test_the_study_of_repeated_text(lms: list[LanguageModel]) -> None:
    texts = read_texts(lms[0], 400, "own", 5, 12, False, False, 0)
    assert texts.facts["data"] == WORLD
    assert texts.repeated.shape == (5, 25)
    assert texts.repeated.max() < 19
    refused(lambda: read_texts(lms[0], 400, "stdlib", 5, 12, False, False, 0), ADVICE)


@pytest.mark.command
def test_the_study_of_tuned_models(lms: list[LanguageModel]) -> None:
    assert compare(lms[0], lms[1:], 400, bootstrap_draws=5).facts["data"] == WORLD
    refused(lambda: compare(lms[0], lms[1:], 400, data="stdlib"), ADVICE)


@pytest.mark.command
def test_the_study_of_universal_neurons(lms: list[LanguageModel]) -> None:
    found = universal(lms, 400, effects=0)
    assert found.facts["data"] == WORLD
    assert found.facts["counts"].startswith(f"{WORLD}, its first")
    refused(lambda: universal(lms, 400, data="stdlib"), ADVICE)


def test_the_study_of_contradicting_prompts(lms: list[LanguageModel], tmp_path: Path) -> None:
    """Its statements are text that a word-level tokenizer has no tokens for."""
    rows = [",".join(COLUMNS), *(f"P36,subject{i},subject{i} is capital of,object{i}" for i in range(4))]
    (tmp_path / "statements.csv").write_text("\n".join(rows))
    refused(lambda: copying(lms[0], tmp_path / "statements.csv", text="stdlib"), f"give --text {WORLD}")
    refused(lambda: copying(lms[0], tmp_path / "statements.csv", tokens=400), "cannot encode the text")


def test_token_counts(lms: list[LanguageModel], tmp_path: Path) -> None:
    model, out = str(lms[0].folder), tmp_path / "counts.npy"
    refused(lambda: unigram(model, out, data="stdlib"), ADVICE)
    counts = unigram(model, out, data=f"{WORLD},size=500")
    assert 500 <= counts[:16].sum() < 3000
    assert counts[18:].sum() == 0  # the end of a document is put there by what reads the text
    np.testing.assert_array_equal(np.load(out), counts)

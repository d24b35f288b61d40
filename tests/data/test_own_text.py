"""Which text a model reads: its own by default, and the text of a world only if it was trained on it."""

from pathlib import Path

import numpy as np
import pytest
from refusals import check_error, refused
from world_text import tokenizer_of, world

from jaxconf.data.corpus import read_corpus
from jaxconf.data.own_text import source_for

WORLD = "noise:words=16,levels=2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the tokenizer of WORLD."""
    (tmp_path / "model").mkdir()
    tokenizer_of(world(f"{WORLD},seed=7,size=300"), tmp_path / "model")
    return tmp_path / "model"


def test_a_model_of_a_world_reads_every_text_of_it(folder: Path) -> None:
    assert source_for("own", folder) == WORLD
    for source in (WORLD, f"{WORLD},seed=3", f"{WORLD},size=9,seed=1", "noise:levels=2,words=16,zipf=0.0"):
        assert source_for(source, folder) == source


def test_a_folder_may_name_parameters_that_are_the_default_now(folder: Path) -> None:
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace(WORLD, f"{WORLD},zipf=0"))
    assert source_for("own", folder) == f"{WORLD},zipf=0"
    for source in (f"{WORLD},zipf=0", WORLD, f"{WORLD},seed=3"):
        assert source_for(source, folder) == source


def test_a_model_of_a_world_reads_no_other_text(folder: Path) -> None:
    for source in ("noise", f"{WORLD},world=1", "copies:words=16,levels=2", "stdlib", "texts.jsonl"):
        refused(
            lambda source=source: source_for(source, folder),
            f"the model in {folder} was trained on '{WORLD}'",
            f"the text is '{source}'; give --data {WORLD}",
        )
    refused(lambda: source_for("stdlib", folder, "--text"), f"give --text {WORLD}")


def test_other_models_read_no_text_of_a_world(tmp_path: Path) -> None:
    assert source_for("own", tmp_path) == "stdlib"
    for source in ("stdlib", "texts.jsonl", "hf://datasets/owner/noise"):
        assert source_for(source, tmp_path) == source
    refused(lambda: source_for("copies", tmp_path), "the text 'copies' has a tokenizer of its own", str(tmp_path))
    check_error(lambda: source_for("copies:word=3", tmp_path), "the nearest is 'words'")


def test_a_corpus_of_a_world_has_its_tokenizer(folder: Path) -> None:
    source = f"{WORLD},size=3000"
    corpus, same = read_corpus(19, 24, source), read_corpus(19, 24, source, folder)
    assert corpus.tokenizer_files == same.tokenizer_files == world(WORLD).tokenizer_files
    assert corpus.begin == corpus.end == 18
    np.testing.assert_array_equal(corpus.train, same.train)
    text = np.concatenate([corpus.train, corpus.held_out])
    words = [word for document in world(source).documents() for word in [*document.split(), "<|endoftext|>"]]
    assert [world(source).tokens[i] for i in text] == words
    refused(lambda: read_corpus(18, 24, source), "has 19 tokens and vocab_size is 18")
    refused(lambda: read_corpus(300, 24, "noise:size=3000", folder), f"was trained on '{WORLD}'")
    refused(lambda: read_corpus(300, 24, "stdlib", folder), "the text is 'stdlib'")
    refused(lambda: read_corpus(300, 24, "own"), "no model is given")

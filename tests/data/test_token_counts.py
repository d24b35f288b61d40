"""Token counts: of a text, kept for a hub dataset, and read from a file."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from byte_tokenizer import byte_tokenizer
from hub import hub
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from jaxconf.data import token_counts, windows
from jaxconf.data.corpus import train_tokenizer
from jaxconf.data.token_counts import count_tokens, counts_of_source, first_documents, read_counts
from jaxconf.models.tokenizer import Tokenizer

SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared material is not here")


@given(st.lists(st.text(max_size=30)), st.integers(1, 40))
def test_counts_are_those_of_the_text(texts: list[str], batch: int) -> None:
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "BATCH_CHARACTERS", batch)
        counts = count_tokens(texts, byte_tokenizer(), 300, seen.append)
    expected = np.zeros(300, np.int64)
    for document in texts:
        for token in byte_tokenizer().encode(document):
            expected[token] += 1
    assert counts.dtype == np.int64
    assert np.array_equal(counts, expected)
    assert seen == sorted(seen)
    assert not texts or seen[-1] == counts.sum()


def test_counts_of_a_foreign_tokenizer() -> None:
    highest = int(byte_tokenizer().encode("z")[0])
    assert count_tokens(["z"], byte_tokenizer(), highest + 1).tolist() == [0] * highest + [1]
    refused(lambda: count_tokens(["z"], byte_tokenizer(), highest), f"id {highest}", f"vocabulary of {highest}")


@pytest.mark.parametrize(
    ("characters", "expected"),
    [(11, ["one two", "up"]), (9, ["one two", "up"]), (8, ["one two", ""]), (5, ["one"]), (3, ["one"]), (2, [""])],
)
def test_the_first_documents_end_with_a_whole_word(characters: int, expected: list[str]) -> None:
    assert list(first_documents(["one two", "up and", "more"], characters)) == expected
    assert list(first_documents(["一" * 9], 5)) == ["一" * 5]


TEXT = "hf://datasets/owner/text"


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Path]:
    """The file of a hub dataset of one text."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "a.txt").write_text("one text, two texts")
    with hub({"datasets/owner/text": {"main": folder}}, tmp_path / "hub"):
        yield folder / "a.txt"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are turned into tokens from now on."""
    texts: list[str] = []
    encode = Tokenizer.encode_batch

    def noted(self: Tokenizer, batch: list[str]) -> list[np.ndarray]:
        texts.extend(batch)
        return encode(self, batch)

    monkeypatch.setattr(Tokenizer, "encode_batch", noted)
    return texts


def counted(text: str, tokenizer: Tokenizer | None = None) -> np.ndarray:
    ids = (tokenizer or byte_tokenizer()).encode(text)
    return np.bincount(ids, minlength=300)


def kept_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "hub-of-jaxconf" / "jaxconf" / "counts").iterdir())


def test_a_hub_dataset_is_counted_once(dataset: Path, encoded: list[str], tmp_path: Path) -> None:
    tokenizer, expected = byte_tokenizer(), counted(dataset.read_text())
    encoded.clear()
    assert np.array_equal(counts_of_source(TEXT, tokenizer, 300), expected)
    assert encoded == [dataset.read_text()]
    again = counts_of_source(TEXT, byte_tokenizer(), 300)
    assert len(encoded) == 1 + 1  # a new tokenizer encodes "\n", and nothing else was encoded
    assert np.array_equal(again, expected)
    assert again.dtype == np.int64
    assert len(kept_files(tmp_path)) == 1


def test_local_text_is_counted_each_time(dataset: Path, tmp_path: Path) -> None:
    for text in ("one", "another"):
        dataset.write_text(text)
        assert np.array_equal(counts_of_source(str(dataset), byte_tokenizer(), 300), counted(text))
    assert not (tmp_path / "hub-of-jaxconf").exists()


def test_kept_counts_are_of_the_commit_the_path_the_tokenizer_and_the_amount(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = dataset.read_text()
    assert np.array_equal(counts_of_source(TEXT, byte_tokenizer(), 300), counted(text))
    assert len(counts_of_source(TEXT, byte_tokenizer(), 310)) == 310
    trained = Tokenizer(train_tokenizer(iter([text] * 9), 270), None, [])
    assert np.array_equal(counts_of_source(TEXT, trained, 300), counted(text, trained))
    assert not np.array_equal(counted(text, trained), counted(text))
    (dataset.parent / "b.txt").write_text("more")  # a push: main is now another commit
    assert np.array_equal(counts_of_source(TEXT, byte_tokenizer(), 300), counted(text) + counted("more"))
    assert np.array_equal(counts_of_source(f"{TEXT}/b.txt", byte_tokenizer(), 300), counted("more"))
    monkeypatch.setattr(token_counts, "COUNTED", 3)
    assert np.array_equal(counts_of_source(TEXT, byte_tokenizer(), 300), counted("one"))
    assert len(kept_files(tmp_path)) == 6


def test_kept_counts_are_of_the_column_and_the_split(dataset: Path) -> None:
    (dataset.parent / "train.json").write_text('{"text": "one", "body": "two"}\n')
    (dataset.parent / "test.json").write_text('{"text": "three", "body": "four"}\n')
    for fields, text in {
        "split=train": "one",
        "split=test": "three",
        "split=train,column=body": "two",
        "split=test,column=body": "four",
    }.items():
        assert np.array_equal(counts_of_source(f"{TEXT}:{fields}", byte_tokenizer(), 300), counted(text))


def test_counts_of_the_users_cache_are_also_kept_for_a_sweep(dataset: Path, encoded: list[str], tmp_path: Path) -> None:
    expected = counts_of_source(TEXT, byte_tokenizer(), 300)
    encoded.clear()
    assert np.array_equal(counts_of_source(TEXT, byte_tokenizer(), 300, keep=tmp_path / "counts"), expected)
    shutil.rmtree(tmp_path / "hub-of-jaxconf")  # as for a host with another home
    assert np.array_equal(counts_of_source(TEXT, byte_tokenizer(), 300, keep=tmp_path / "counts"), expected)
    assert dataset.read_text() not in encoded


def test_a_spoilt_file_of_counts_is_made_anew(dataset: Path, tmp_path: Path) -> None:
    tokenizer, expected = byte_tokenizer(), counted(dataset.read_text())
    counts_of_source(TEXT, tokenizer, 300)
    [file] = kept_files(tmp_path)
    good = file.read_bytes()
    at = good.index(expected[expected > 0][:1].astype("<i8").tobytes())
    flipped = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    np.save(tmp_path / "other.npy", expected)
    np.savez(tmp_path / "short.npz", counts=expected[:-1])
    others = [(tmp_path / name).read_bytes() for name in ("other.npy", "short.npz")]
    for spoilt in (flipped, good[:-20], b"", b"not an archive", *others):
        file.write_bytes(spoilt)
        assert np.array_equal(counts_of_source(TEXT, tokenizer, 300), expected)
        with np.load(file) as saved:
            assert np.array_equal(saved["counts"], expected)


def test_counts_that_cannot_be_kept_are_still_made(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "hub-of-jaxconf").write_text("a file in the folder's place")
    assert np.array_equal(counts_of_source(TEXT, byte_tokenizer(), 300), counted(dataset.read_text()))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, ">i8"])
def test_read_counts(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "counts.npy", np.array([3, 0, 1, 0, 0], dtype))
    for vocab_size, expected in [(5, [3, 0, 1, 0, 0]), (7, [3, 0, 1, 0, 0, 0, 0]), (3, [3, 0, 1])]:
        counts = read_counts(tmp_path / "counts.npy", vocab_size)
        assert counts.tolist() == expected
        assert counts.dtype == np.int64
    refused(lambda: read_counts(tmp_path / "counts.npy", 2), "counts.npy counts the token 2", "vocabulary of 2")


def test_counts_that_lack_tokens_of_the_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "counts.npy"
    np.save(path, np.array([3, 0, 1]))
    assert read_counts(path, 5, least=3).tolist() == [3, 0, 1, 0, 0]  # the vocabulary is padded
    assert read_counts(path, 3, least=4).tolist() == [3, 0, 1]  # the tokenizer has a token that the model lacks
    refused(lambda: read_counts(path, 5, least=4), "counts.npy has 3 counts, fewer than the 4 tokens")


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.ones((2, 2), np.int64), "one-dimensional"),
        (np.array(3), "one-dimensional"),
        (np.ones(3), "integers"),
        (np.ones(3, bool), "integers"),
        (np.array([1, 2, -1]), "negative count, of token 2"),
        (np.array([{}], object), "cannot be read"),
    ],
)
def test_counts_that_cannot_be_used(tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "counts.npy", array, allow_pickle=True)
    refused(lambda: read_counts(tmp_path / "counts.npy", 5), "counts.npy", says)


def test_count_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "counts.npy"
    refused(lambda: read_counts(path, 5), "counts.npy", "cannot be read", "No such file")
    for data in (b"", b"hello", b"\x93NUMPY\x01\x00"):
        path.write_bytes(data)
        refused(lambda: read_counts(path, 5), "counts.npy cannot be read")
    np.savez(tmp_path / "counts.npz", np.ones(3, np.int64))
    refused(lambda: read_counts(tmp_path / "counts.npz", 5), "counts.npz", "one-dimensional")


@needs_shared
@pytest.mark.parametrize(
    ("name", "vocab_size", "n_counted"), [("gpt2-openwebtext", 50257, 50257), ("pythia-pile", 50304, 50277)]
)
def test_published_counts(name: str, vocab_size: int, n_counted: int) -> None:
    path = SHARED / "data" / "unigrams" / f"{name}.npy"
    counts = read_counts(path, vocab_size)
    assert counts.shape == (vocab_size,)
    assert np.array_equal(counts[:n_counted], np.load(path))
    assert not counts[n_counted:].any()
    refused(lambda: read_counts(path, 50), "counts the token 50,")

"""Token counts: of a text, and read from a file."""

from pathlib import Path

import numpy as np
import pytest
from byte_tokenizer import byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from jaxconf.data import windows
from jaxconf.data.token_counts import count_tokens, read_counts

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

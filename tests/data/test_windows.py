"""Text becomes windows of token ids: the cutting, the positions that are kept, and the digest."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from byte_tokenizer import BOS, EOS, byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from refusals import refused
from tokenizers import models, pre_tokenizers

from jaxconf.data import windows as cutting
from jaxconf.data.documents import documents
from jaxconf.data.token_counts import count_tokens
from jaxconf.models.errors import InputError
from jaxconf.models.tokenizer import Tokenizer

SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared material is not here")

TOKENIZERS = [byte_tokenizer(bos, eos) for bos in (BOS, None) for eos in (EOS, None)]


def tokens_one_by_one(texts: list[str], tokenizer: Tokenizer) -> Iterator[tuple[int, int]]:
    """Each token, and the number of its document."""
    for number, document in enumerate(texts):
        for token in tokenizer.encode(document):
            yield token, number
        if tokenizer.eos_id is not None:
            yield tokenizer.eos_id, number


@given(
    texts=st.lists(st.text(max_size=40), max_size=12),
    tokenizer=st.sampled_from(TOKENIZERS),
    length=st.integers(2, 9),
    n_tokens=st.integers(-1, 300),
    piece=st.integers(1, 20),
    batch=st.integers(1, 50),
)
def test_windows_hold_the_stream_in_order(
    texts: list[str], tokenizer: Tokenizer, length: int, n_tokens: int, piece: int, batch: int
) -> None:
    stream = list(tokens_one_by_one(texts, tokenizer))
    has_bos = tokenizer.bos_id is not None
    body = length - has_bos
    n_windows = min(max(1, n_tokens // length), len(stream) // body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "PIECE_CHARACTERS", piece)
        patch.setattr(cutting, "BATCH_CHARACTERS", batch)
        if n_windows == 0:
            refused(
                lambda: cutting.windows(texts, tokenizer, n_tokens, length),
                f"gives {len(stream) + has_bos} tokens, fewer than one window of {length}",
                "more text",
            )
            return
        windows, documents = cutting.windows(texts, tokenizer, n_tokens, length)
    assert windows.shape == documents.shape == (n_windows, length)
    assert windows.dtype == documents.dtype == np.int32
    if has_bos:
        assert (windows[:, 0] == BOS).all()
        assert (documents[:, 0] == documents[:, 1]).all()
    pairs = zip(windows[:, has_bos:].ravel().tolist(), documents[:, has_bos:].ravel().tolist(), strict=True)
    assert list(pairs) == stream[: n_windows * body]


def test_windows_of_the_default_length() -> None:
    assert cutting.windows(["a" * 2000], byte_tokenizer(), 1000).tokens.shape == (3, 256)
    assert cutting.windows(["a" * 2000], byte_tokenizer(), 1).tokens.shape == (1, 256)
    refused(lambda: cutting.windows(["a"], byte_tokenizer(), 1000), "gives 3 tokens", "one window of 256")
    refused(lambda: cutting.windows([], byte_tokenizer(None, None), 1000), "gives 0 tokens")
    refused(lambda: cutting.windows(["abc"], byte_tokenizer(), 1000, 1), "length is 1; give at least 2")


@given(st.lists(st.text("ab ", max_size=60), min_size=1), st.integers(1, 100))
def test_windows_read_no_document_too_many(texts: list[str], n_tokens: int) -> None:
    read_so_far: list[str] = []

    def source() -> Iterator[str]:
        for document in texts:
            read_so_far.append(document)
            yield document

    words = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(words, BOS, [EOS])
    try:
        windows, _ = cutting.windows(source(), tokenizer, n_tokens, 4)
    except InputError:
        return
    if len(windows) == max(1, n_tokens // 4):
        assert len(list(tokens_one_by_one(read_so_far[:-1], tokenizer))) < 3 * len(windows)


def test_windows_from_an_endless_source() -> None:
    assert cutting.windows(itertools.repeat("endless "), byte_tokenizer(), 10_000).tokens.shape == (39, 256)
    assert cutting.windows(itertools.repeat(""), byte_tokenizer(), 1000).tokens.shape == (3, 256)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of the encoder gets more than a batch, whatever the sizes of the documents."""
    tokenizer = byte_tokenizer()
    sizes = []
    encode_batch = tokenizer.encode_batch

    def spy(texts: list[str]) -> list[np.ndarray]:
        sizes.append(sum(map(len, texts)))
        return encode_batch(texts)

    tokenizer.encode_batch = spy  # type: ignore[method-assign,assignment]
    monkeypatch.setattr(cutting, "PIECE_CHARACTERS", 500)
    monkeypatch.setattr(cutting, "BATCH_CHARACTERS", 2000)
    texts = ["word " * 4000, "b", "x" * 7000]
    assert count_tokens(texts, tokenizer, 258).sum() == 27_001
    assert cutting.windows(texts, tokenizer, 20_000).tokens.shape == (78, 256)
    assert max(sizes) <= 2500
    assert len(sizes) > 20


@needs_shared
@pytest.mark.parametrize("name", ["gpt2", "pythia"])
def test_pieces_of_a_long_document_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_folder(SHARED / "tokenizers" / name)
    document = (SHARED / "data" / "wikitext2-valid.txt").read_text("utf-8")[:200_000]
    whole = tokenizer.encode(document)
    monkeypatch.setattr(cutting, "PIECE_CHARACTERS", 1000)
    n = len(whole) // 16 * 16
    windows, _ = cutting.windows([document], Tokenizer(tokenizer._tokenizer, None, []), len(whole), 16)
    assert np.array_equal(windows.ravel(), whole[:n])


@needs_shared
def test_the_oracles_windows() -> None:
    """A window is a BOS and the next 255 tokens of a stream of stories that each end with an EOS."""
    tokenizer = Tokenizer.from_folder(SHARED / "models" / "stories260K")
    windows = cutting.windows(documents(str(SHARED / "data" / "tinystories.jsonl")), tokenizer, 16 * 256).tokens
    assert windows.shape == (16, 256)
    assert (windows[:, 0] == 1).all()
    assert (windows == 2).sum() > 5
    expected = np.load(SHARED / "oracle" / "stories260K" / "windows.npy")
    assert np.array_equal(windows, expected)


# Kept positions


@given(
    npst.arrays(np.int32, npst.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 5)),
    st.sets(st.integers(0, 5), max_size=3),
)
def test_kept_positions_by_their_definition(windows: np.ndarray, special_ids: set[int]) -> None:
    kept = cutting.kept_positions(windows, special_ids)
    assert kept.shape == windows.shape
    assert kept.dtype == bool
    for window, row in zip(windows.tolist(), kept.tolist(), strict=True):
        for position, token in enumerate(window):
            inner = 3 <= position < len(window) - 1
            assert row[position] == (inner and token not in special_ids and window[position + 1] not in special_ids)


@needs_shared
@pytest.mark.parametrize("name", ["random-gpt2", "random-gpt-neox", "random-gemma2", "stories260K"])
def test_the_oracles_kept_positions(name: str) -> None:
    config = json.loads((SHARED / "models" / name / "config.json").read_text())
    windows = np.load(SHARED / "oracle" / name / "windows.npy")
    kept = cutting.kept_positions(windows, (config["bos_token_id"], config["eos_token_id"]))
    assert np.array_equal(kept, np.load(SHARED / "oracle" / name / "kept.npy"))


# Digest


def test_digest() -> None:
    windows = np.arange(6).reshape(2, 3)
    same = [windows.astype(np.int32), windows.astype(">i4"), np.asfortranarray(windows)]
    other = [windows.reshape(3, 2), windows + 1, windows[:1]]
    assert {cutting.digest(array) for array in same} == {cutting.digest(windows)}
    assert cutting.digest(windows) not in {cutting.digest(array) for array in other}
    assert cutting.digest(windows) == "7eadaafe1c36d469e89127d4db6a65e85de807235d89f2112257cb61121ba2d0"

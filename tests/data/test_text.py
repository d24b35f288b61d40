"""Corpora: every kind of source, the cutting into windows, counts, and a sentence for each thing a user can get wrong."""

import gzip
import itertools
import json
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import refusals
import tokenizers
from hub import hub, point_at
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tokenizers import decoders, models, pre_tokenizers

from jaxconf.data import text
from jaxconf.models.errors import InputError
from jaxconf.models.tokenizer import Tokenizer

SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared material is not here")

TEXTS = ["One.\nTwo\r\nthree", "", "naïve 🐈", "a" * 3000]
BOS, EOS = 256, 257


def byte_tokenizer(bos_id: int | None = BOS, eos_id: int | None = EOS) -> Tokenizer:
    """One token for each byte, ids 0 to 255."""
    vocab = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return Tokenizer(tokenizer, bos_id, [] if eos_id is None else [eos_id])


TOKENIZERS = [byte_tokenizer(bos, eos) for bos in (BOS, None) for eos in (EOS, None)]


def json_lines(texts: Iterable[str]) -> bytes:
    return b"".join(json.dumps({"text": text, "other": 1}).encode() + b"\n" for text in texts)


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # without the time, which would give the tests other names in each process


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


def write_parquet(path: Path, texts: Sequence[str | None], column: str = "text", kind: pa.DataType | None = None) -> None:
    table = pa.table({"id": list(range(len(texts))), column: pa.array(texts, kind or pa.string())})
    pq.write_table(table, path, row_group_size=2)


def check_error(call: Callable[[], object], *parts: str) -> None:
    message = refusals.check_error(call, *parts)
    assert message.endswith("."), message


def read(source: object) -> list[str]:
    return list(text.documents(str(source)))


# Sources


def test_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXTS[0].encode())
    assert read(path) == TEXTS[:1]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", json_lines(TEXTS)),
        ("a.jsonl", json_lines(TEXTS).replace(b"\n", b"\r\n\r\n").rstrip()),
        ("a.jsonl", "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS).encode()),
        ("a.jsonl.gz", gz(json_lines(TEXTS))),
        ("a.jsonl.gz", gz(json_lines(TEXTS[:2])) + gz(json_lines(TEXTS[2:]))),
        ("a.jsonl.zst", zstd(json_lines(TEXTS))),
        ("a.jsonl.zst", zstd(json_lines(TEXTS[:2])) + zstd(json_lines(TEXTS[2:]))),
    ],
)
def test_json_lines(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name) == TEXTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    texts = [f"text {i}" for i in range(3000)]
    write_parquet(tmp_path / "a.parquet", texts, kind=kind)
    assert read(tmp_path / "a.parquet") == texts


def test_folder_reads_every_kind_in_order(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "b" / "deep" / "x.txt").write_text("second")
    (tmp_path / "b" / "y.jsonl.gz").write_bytes(gz(json_lines(["third", "fourth"])))
    (tmp_path / "b-a.txt").write_text("first")
    (tmp_path / "notes.md").write_text("not read")
    write_parquet(tmp_path / "z.parquet", ["last"])
    assert read(tmp_path) == ["first", "second", "third", "fourth", "last"]


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("home")
    assert read("~/a.txt") == ["home"]


def test_reading_is_streamed(tmp_path: Path) -> None:
    """The first documents come before a later error is met."""
    (tmp_path / "a.jsonl").write_bytes(json_lines(TEXTS) + b"not json\n")
    assert list(itertools.islice(text.documents(str(tmp_path / "a.jsonl")), len(TEXTS))) == TEXTS


def test_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = {"argparse.py": "parse", "json/__init__.py": "", "json/decoder.py": "decode", "email/mime/text.py": "mail"}
    left_out = ["site-packages/x.py", "test/x.py", "json/tests/x.py", "idlelib/x.py", "lib2to3/x.py", "json/__pycache__/x.py"]
    for name, content in library.items() | {(name, "left out") for name in left_out} | {("os.pyc", "left out")}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "latin.py").write_bytes(b"# \xe9")
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.get)
    assert read("stdlib") == ["decode", "", "mail", "parse"]


def test_this_standard_library_is_mixed() -> None:
    first = list(itertools.islice(text.documents("stdlib"), 30))
    assert first == list(itertools.islice(text.documents("stdlib"), 30))
    root = Path(sysconfig.get_path("stdlib"))
    of_top_level = {path.read_bytes().decode(errors="replace") for path in root.glob("*.py")}
    assert 0 < sum(document in of_top_level for document in first) < 30


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.csv", b"x", ["a.csv is not of a known kind", ".jsonl.zst", "convert"]),
        ("a.json", b"{}", ["known kind"]),
        ("a.txt", b"caf\xe9", ["a.txt is not valid UTF-8"]),
        ("a.jsonl", b'{"text": "a"}\nnope\n', ["a.jsonl, line 2 is not JSON"]),
        ("a.jsonl", b'{"text": "a"}\n\n{"txt": "b"}\n', ["a.jsonl, line 3 has no string"]),
        ("a.jsonl", b'{"text": null}', ["line 1 has no string"]),
        ("a.jsonl", b'["text"]', ["line 1 has no string"]),
        ("a.jsonl", b'{"text": "caf\xe9"}', ["a.jsonl is not valid UTF-8"]),
        ("a.jsonl", b'{"text": "\\ud83d"}', ["line 1 has half of a surrogate pair"]),
        ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", ["line 1 is not JSON"]),
        ("a.jsonl.gz", gz(json_lines(TEXTS))[:-20], ["a.jsonl.gz cannot be read", "runcated", "whole"]),
        ("a.jsonl.zst", zstd(json_lines(TEXTS))[:-20], ["a.jsonl.zst cannot be read", "runcated", "whole"]),
        ("a.jsonl.gz", b"not gzip", ["a.jsonl.gz cannot be read"]),
        ("a.jsonl.zst", b"not zstd", ["a.jsonl.zst cannot be read"]),
        ("a.parquet", b"not parquet, not at all", ["a.parquet cannot be read"]),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, data: bytes, says: list[str]) -> None:
    (tmp_path / name).write_bytes(data)
    check_error(lambda: read(tmp_path / name), str(tmp_path), *says)


def test_parquet_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, ["a"], column="content")
    check_error(lambda: read(path), "a.parquet has no column", "id, content")
    write_parquet(path, ["a", "b", None])
    check_error(lambda: read(path), "a.parquet, row 3 has no string")
    pq.write_table(pa.table({"text": [1]}), path)
    check_error(lambda: read(path), "row 1 has no string")
    bad_utf8 = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xe9")])
    pq.write_table(pa.table({"text": bad_utf8}), path)
    check_error(lambda: read(path), "a.parquet is not valid UTF-8")
    path.write_bytes(path.read_bytes()[:-3])
    check_error(lambda: read(path), "a.parquet cannot be read")


def test_errors_of_a_source_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.md").write_text("")
    for source, says in [
        (tmp_path / "none.txt", "no file or folder"),
        (tmp_path / "notes.md", "known kind"),
        (tmp_path, "has no file of a known kind"),
    ]:
        check_error(lambda source=source: text.documents(str(source)), str(source), says)  # type: ignore[misc]
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.get)
    check_error(lambda: text.documents("stdlib"), "no source files", str(tmp_path))


# The hub


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    (folder / "data" / "train").mkdir(parents=True)
    (folder / "README.md").write_text("not read")
    (folder / "data-card.txt").write_text("card")
    (folder / "data" / "test.jsonl").write_bytes(json_lines(["one", "two"]))
    write_parquet(folder / "data" / "train" / "0.parquet", ["three"])
    write_parquet(folder / "data" / "train" / "1.parquet", ["four"])
    return folder


def fetched(requests: list[str]) -> list[str]:
    return [request.rpartition("/")[2] for request in requests if request.startswith("GET /datasets/")]


def test_hub_equals_the_folder(tmp_path: Path, dataset: Path) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache"):
        assert read("hf://datasets/owner/texts") == read(dataset) == ["card", "one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("data/train", ["three", "four"]),
        ("data/", ["one", "two", "three", "four"]),
        ("data/test.jsonl", ["one", "two"]),
    ],
)
def test_hub_path(tmp_path: Path, dataset: Path, path: str, texts: list[str]) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache"):
        assert read(f"hf://datasets/owner/texts/{path}") == texts


def test_hub_downloads_only_what_is_read(tmp_path: Path, dataset: Path) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache") as server:
        texts = text.documents("hf://datasets/owner/texts")
        assert fetched(server.requests) == []
        assert list(itertools.islice(texts, 2)) == ["card", "one"]
        assert fetched(server.requests) == ["data-card.txt", "test.jsonl"]
        assert list(texts) == ["two", "three", "four"]
        assert fetched(server.requests) == ["data-card.txt", "test.jsonl", "0.parquet", "1.parquet"]


def test_hub_revisions(tmp_path: Path, dataset: Path) -> None:
    revisions = {"main": dataset, "v1": dataset / "data", "refs/convert/parquet": dataset / "data" / "train"}
    with hub({"datasets/owner/texts": revisions}, tmp_path / "cache") as server:
        assert read("hf://datasets/owner/texts@v1/train") == ["three", "four"]
        assert read("hf://datasets/owner/texts@refs/convert/parquet") == ["three", "four"]
        commit = next(part for request in server.requests for part in request.split("/") if len(part) == 40)
        assert read(f"hf://datasets/owner/texts@{commit}/train") == ["three", "four"]
        check_error(lambda: text.documents("hf://datasets/owner/texts@v2"), "owner/texts has no revision v2")


def test_hub_stays_at_one_commit(tmp_path: Path, dataset: Path) -> None:
    """A push during a run must not mix two corpora: the rest of the first one is gone, and the run says so."""
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache"):
        texts = text.documents("hf://datasets/owner/texts")
        assert next(texts) == "card"
        (dataset / "data" / "test.jsonl").write_bytes(json_lines(["changed"]))
        check_error(lambda: list(texts), "owner/texts")
        assert read("hf://datasets/owner/texts/data/test.jsonl") == ["changed"]


def test_hub_offline(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache") as server:
        read("hf://datasets/owner/texts/data/test.jsonl")
        n_requests = len(server.requests)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert read("hf://datasets/owner/texts/data/test.jsonl") == ["one", "two"]
        check_error(lambda: read("hf://datasets/owner/texts/data"), "owner/texts", "not all in the local cache", "HF_HUB_OFFLINE")
        check_error(lambda: text.documents("hf://datasets/owner/other"), "owner/other", "HF_HUB_OFFLINE")
        monkeypatch.undo()
        assert len(server.requests) == n_requests


def test_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    with point_at("http://127.0.0.1:9", tmp_path / "cache"):
        check_error(lambda: text.documents("hf://datasets/owner/texts"), "owner/texts", "127.0.0.1:9", "check the connection")


def test_hub_gated(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache", token="right"):
        check_error(lambda: read("hf://datasets/owner/texts"), "owner/texts is gated", "HF_TOKEN")
        monkeypatch.setenv("HF_TOKEN", "wrong")
        check_error(lambda: read("hf://datasets/owner/texts"), "owner/texts is gated", "HF_TOKEN")
        monkeypatch.setenv("HF_TOKEN", "right")
        assert read("hf://datasets/owner/texts/data-card.txt") == ["card"]


def test_hub_names_that_do_not_exist(tmp_path: Path, dataset: Path) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}, "models/owner/model": {"main": dataset}}, tmp_path / "cache"):
        for source, says in [
            ("hf://datasets/owner/model", "no dataset owner/model"),
            ("hf://datasets/owner/texts/dat", "no file of a known kind"),
            ("hf://datasets/owner/texts/README.md", "at README.md"),
            ("hf://owner/model", "not a dataset"),
            ("hf://datasets/", "give hf://datasets/OWNER/NAME"),
            ("hf://datasets/owner", "give hf://datasets/OWNER/NAME"),
        ]:
            check_error(lambda source=source: text.documents(source), says)  # type: ignore[misc]


@pytest.mark.parametrize("failure", [HTTPError("broken pipe\nwhile reading"), OSError(28, "No space left on device")])
def test_hub_download_that_fails(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise failure

    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache"):
        monkeypatch.setattr(text, "hf_hub_download", fail)
        check_error(lambda: read("hf://datasets/owner/texts"), "owner/texts cannot be fetched", str(failure).splitlines()[0])


def test_a_folder_never_contacts_the_hub(tmp_path: Path, dataset: Path) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache") as server:
        read(dataset)
        read(dataset / "data-card.txt")
        list(itertools.islice(text.documents("stdlib"), 3))
        assert server.requests == []


# Windows


def tokens_one_by_one(texts: list[str], tokenizer: Tokenizer) -> Iterator[int]:
    for document in texts:
        yield from tokenizer.encode(document).tolist()
        if tokenizer.eos_id is not None:
            yield tokenizer.eos_id


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
        patch.setattr(text, "PIECE_CHARACTERS", piece)
        patch.setattr(text, "BATCH_CHARACTERS", batch)
        if n_windows == 0:
            check_error(
                lambda: text.windows(texts, tokenizer, n_tokens, length),
                f"gives {len(stream) + has_bos} tokens, fewer than one window of {length}",
                "more text",
            )
            return
        windows = text.windows(texts, tokenizer, n_tokens, length)
    assert windows.shape == (n_windows, length)
    assert windows.dtype == np.int32
    if has_bos:
        assert (windows[:, 0] == BOS).all()
    assert windows[:, has_bos:].ravel().tolist() == stream[: n_windows * body]


def test_windows_of_the_default_length() -> None:
    assert text.windows(["a" * 2000], byte_tokenizer(), 1000).shape == (3, 256)
    assert text.windows(["a" * 2000], byte_tokenizer(), 1).shape == (1, 256)
    check_error(lambda: text.windows(["a"], byte_tokenizer(), 1000), "gives 3 tokens", "one window of 256")
    check_error(lambda: text.windows([], byte_tokenizer(None, None), 1000), "gives 0 tokens")
    check_error(lambda: text.windows(["abc"], byte_tokenizer(), 1000, 1), "length 1", "at least 2")


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
        windows = text.windows(source(), tokenizer, n_tokens, 4)
    except InputError:
        return
    if len(windows) == max(1, n_tokens // 4):
        assert len(list(tokens_one_by_one(read_so_far[:-1], tokenizer))) < 3 * len(windows)


def test_windows_from_an_endless_source() -> None:
    assert text.windows(itertools.repeat("endless "), byte_tokenizer(), 10_000).shape == (39, 256)
    assert text.windows(itertools.repeat(""), byte_tokenizer(), 1000).shape == (3, 256)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of the encoder gets more than a batch, whatever the sizes of the documents."""
    tokenizer = byte_tokenizer()
    sizes = []
    encode_batch = tokenizer.encode_batch

    def spy(texts: list[str]) -> list[np.ndarray]:
        sizes.append(sum(map(len, texts)))
        return encode_batch(texts)

    tokenizer.encode_batch = spy  # type: ignore[method-assign,assignment]
    monkeypatch.setattr(text, "PIECE_CHARACTERS", 500)
    monkeypatch.setattr(text, "BATCH_CHARACTERS", 2000)
    texts = ["word " * 4000, "b", "x" * 7000]
    assert text.count_tokens(texts, tokenizer, 258).sum() == 27_001
    assert text.windows(texts, tokenizer, 20_000).shape == (78, 256)
    assert max(sizes) <= 2500
    assert len(sizes) > 20


@needs_shared
@pytest.mark.parametrize("name", ["gpt2", "pythia"])
def test_pieces_of_a_long_document_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_folder(SHARED / "tokenizers" / name)
    document = (SHARED / "data" / "wikitext2-valid.txt").read_text("utf-8")[:200_000]
    whole = tokenizer.encode(document)
    monkeypatch.setattr(text, "PIECE_CHARACTERS", 1000)
    n = len(whole) // 16 * 16
    windows = text.windows([document], Tokenizer(tokenizer._tokenizer, None, []), len(whole), 16)
    assert np.array_equal(windows.ravel(), whole[:n])


@needs_shared
def test_the_oracles_windows() -> None:
    """A window is a BOS and the next 255 tokens of a stream of stories that each end with an EOS."""
    tokenizer = Tokenizer.from_folder(SHARED / "models" / "stories260K")
    windows = text.windows(text.documents(str(SHARED / "data" / "tinystories.jsonl")), tokenizer, 16 * 256)
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
    kept = text.kept_positions(windows, special_ids)
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
    kept = text.kept_positions(windows, (config["bos_token_id"], config["eos_token_id"]))
    assert np.array_equal(kept, np.load(SHARED / "oracle" / name / "kept.npy"))


# Counts


@given(st.lists(st.text(max_size=30)), st.integers(1, 40))
def test_counts_are_those_of_the_text(texts: list[str], batch: int) -> None:
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BATCH_CHARACTERS", batch)
        counts = text.count_tokens(texts, byte_tokenizer(), 300, seen.append)
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
    assert text.count_tokens(["z"], byte_tokenizer(), highest + 1).tolist() == [0] * highest + [1]
    check_error(lambda: text.count_tokens(["z"], byte_tokenizer(), highest), f"id {highest}", f"vocabulary of {highest}")


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, ">i8"])
def test_read_counts(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "counts.npy", np.array([3, 0, 1, 0, 0], dtype))
    for vocab_size, expected in [(5, [3, 0, 1, 0, 0]), (7, [3, 0, 1, 0, 0, 0, 0]), (3, [3, 0, 1])]:
        counts = text.read_counts(tmp_path / "counts.npy", vocab_size)
        assert counts.tolist() == expected
        assert counts.dtype == np.int64
    check_error(lambda: text.read_counts(tmp_path / "counts.npy", 2), "counts.npy counts the token 2", "vocabulary of 2")


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
    check_error(lambda: text.read_counts(tmp_path / "counts.npy", 5), "counts.npy", says)


def test_count_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "counts.npy"
    check_error(lambda: text.read_counts(path, 5), "counts.npy", "cannot be read", "No such file")
    for data in (b"", b"hello", b"\x93NUMPY\x01\x00"):
        path.write_bytes(data)
        check_error(lambda: text.read_counts(path, 5), "counts.npy cannot be read")
    np.savez(tmp_path / "counts.npz", np.ones(3, np.int64))
    check_error(lambda: text.read_counts(tmp_path / "counts.npz", 5), "counts.npz", "one-dimensional")


@needs_shared
@pytest.mark.parametrize(("name", "vocab_size", "n_counted"), [("gpt2-openwebtext", 50257, 50257), ("pythia-pile", 50304, 50277)])
def test_published_counts(name: str, vocab_size: int, n_counted: int) -> None:
    path = SHARED / "data" / "unigrams" / f"{name}.npy"
    counts = text.read_counts(path, vocab_size)
    assert counts.shape == (vocab_size,)
    assert np.array_equal(counts[:n_counted], np.load(path))
    assert not counts[n_counted:].any()
    check_error(lambda: text.read_counts(path, 50), "counts the token 50,")


# Digest


def test_digest() -> None:
    windows = np.arange(6).reshape(2, 3)
    same = [windows.astype(np.int32), windows.astype(">i4"), np.asfortranarray(windows)]
    other = [windows.reshape(3, 2), windows + 1, windows[:1]]
    assert {text.digest(array) for array in same} == {text.digest(windows)}
    assert text.digest(windows) not in {text.digest(array) for array in other}
    assert text.digest(windows) == "7eadaafe1c36d469e89127d4db6a65e85de807235d89f2112257cb61121ba2d0"

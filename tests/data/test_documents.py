"""Where documents come from: every kind of source, and a sentence for each thing a user can get wrong."""

import gzip
import itertools
import json
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import hub, point_at
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from refusals import refused

from jaxconf.data import documents

TEXTS = ["One.\nTwo\r\nthree", "", "naïve 🐈", "a" * 3000]


def json_lines(texts: Iterable[str]) -> bytes:
    return b"".join(json.dumps({"text": text, "other": 1}).encode() + b"\n" for text in texts)


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # without the time, which would give the tests other names in each process


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


def write_parquet(
    path: Path, texts: Sequence[str | None], column: str = "text", kind: pa.DataType | None = None
) -> None:
    table = pa.table({"id": list(range(len(texts))), column: pa.array(texts, kind or pa.string())})
    pq.write_table(table, path, row_group_size=2)


def read(source: object) -> list[str]:
    return list(documents.documents(str(source)))


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
    assert list(itertools.islice(documents.documents(str(tmp_path / "a.jsonl")), len(TEXTS))) == TEXTS


def test_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = {
        "argparse.py": "parse",
        "json/__init__.py": "",
        "json/decoder.py": "decode",
        "email/mime/text.py": "mail",
    }
    left_out = [
        "site-packages/x.py",
        "test/x.py",
        "json/tests/x.py",
        "idlelib/x.py",
        "lib2to3/x.py",
        "json/__pycache__/x.py",
    ]
    for name, content in library.items() | {(name, "left out") for name in left_out} | {("os.pyc", "left out")}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "latin.py").write_bytes(b"# \xe9")
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.get)
    assert read("stdlib") == ["decode", "", "mail", "parse"]


def test_this_standard_library_is_mixed() -> None:
    first = list(itertools.islice(documents.documents("stdlib"), 30))
    assert first == list(itertools.islice(documents.documents("stdlib"), 30))
    root = Path(sysconfig.get_path("stdlib"))
    of_top_level = {path.read_bytes().decode(errors="replace") for path in root.glob("*.py")}
    assert 0 < sum(document in of_top_level for document in first) < 30


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.tsv", b"x", ["a.tsv is not of a known kind", ".jsonl.zst", "convert"]),
        ("a.json", b"{}", ["line 1 of", "has no string"]),
        ("a.json", b'{\n "text": "a"\n}\n', ["a.json cannot be read: it is one JSON value", "jq"]),
        ("a.json", b'[{"text": "a"},\n {"text": "b"}]', ["a.json cannot be read: it is one JSON value"]),
        ("a.json", b'[{"text": "a"}, {"text": "b"}]', ["line 1 of", "is one JSON value"]),
        ("a.json", b'{"data": [{"text": "a"}], "test": 1}', ["line 1 of", 'nearest is "test"', "all are data, test"]),
        (
            "a.csv",
            b"id,txt\n1,a\n",
            ['a.csv has no column "text"', 'nearest is "txt"', "all are id, txt", ":column=txt"],
        ),
        ("a.csv", b"id,text\n1,a\n2\n", ["a.csv cannot be read", "Expected 2 columns, got 1"]),
        ("a.csv", b"text\ncaf\xe9\n", ["a.csv is not valid UTF-8"]),
        ("a.csv", b"", ["a.csv cannot be read", "mpty"]),
        ("a.txt", b"caf\xe9", ["a.txt is not valid UTF-8"]),
        ("a.jsonl", b'{"text": "a"}\nnope\n', ["line 2 of", "a.jsonl is not JSON"]),
        ("a.jsonl", b'{"text": "a"}\n\n{"txt": "b"}\n', ["line 3 of", "a.jsonl has no string"]),
        ("a.jsonl", b'{"text": 1}', ["line 1 of", "has no string"]),
        ("a.jsonl", b'{"body": "b"}', ["line 1 of", "has no string", "--text-column body"]),
        ("a.jsonl", b'["text"]', ["line 1 of", "has no string"]),
        ("a.jsonl", b'{"text": "caf\xe9"}', ["a.jsonl is not valid UTF-8"]),
        ("a.jsonl", b'{"text": "\\ud83d"}', ["line 1 of", "has half of a surrogate pair"]),
        ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", ["line 1 of", "is not JSON"]),
        ("a.jsonl.gz", gz(json_lines(TEXTS))[:-20], ["a.jsonl.gz cannot be read", "runcated", "whole"]),
        ("a.jsonl.zst", zstd(json_lines(TEXTS))[:-20], ["a.jsonl.zst cannot be read", "runcated", "whole"]),
        ("a.jsonl.gz", b"not gzip", ["a.jsonl.gz cannot be read"]),
        ("a.jsonl.zst", b"not zstd", ["a.jsonl.zst cannot be read"]),
        ("a.parquet", b"not parquet, not at all", ["a.parquet cannot be read"]),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, data: bytes, says: list[str]) -> None:
    (tmp_path / name).write_bytes(data)
    refused(lambda: read(tmp_path / name), str(tmp_path), *says)


def test_parquet_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, ["a"], column="content")
    refused(lambda: read(path), "a.parquet has no column", "id, content")
    pq.write_table(pa.table({"text": [1]}), path)
    refused(lambda: read(path), "row 1 of", "has no string")
    bad_utf8 = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xe9")]
    )
    pq.write_table(pa.table({"text": bad_utf8}), path)
    refused(lambda: read(path), "a.parquet is not valid UTF-8")
    path.write_bytes(path.read_bytes()[:-3])
    refused(lambda: read(path), "a.parquet cannot be read")


def test_a_models_own_text_needs_a_model() -> None:
    refused(lambda: documents.documents("own"), 'the text "own"', "no model is given")


def test_errors_of_a_source_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.md").write_text("")
    for source, says in [
        (tmp_path / "none.txt", "does not exist"),
        (tmp_path / "notes.md", "known kind"),
        (tmp_path, "has no file of a known kind"),
    ]:
        refused(lambda source=source: documents.documents(str(source)), str(source), says)  # type: ignore[misc]
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.get)
    refused(lambda: documents.documents("stdlib"), "no source files", str(tmp_path))


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
        texts = documents.documents("hf://datasets/owner/texts")
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
        refused(lambda: documents.documents("hf://datasets/owner/texts@v2"), "owner/texts has no revision v2")


def test_hub_stays_at_one_commit(tmp_path: Path, dataset: Path) -> None:
    """A push during a run must not mix two corpora: the rest of the first one is gone, and the run says so."""
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache"):
        texts = documents.documents("hf://datasets/owner/texts")
        assert next(texts) == "card"
        (dataset / "data" / "test.jsonl").write_bytes(json_lines(["changed"]))
        refused(lambda: list(texts), "owner/texts")
        assert read("hf://datasets/owner/texts/data/test.jsonl") == ["changed"]


def test_hub_offline(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache") as server:
        read("hf://datasets/owner/texts/data/test.jsonl")
        n_requests = len(server.requests)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert read("hf://datasets/owner/texts/data/test.jsonl") == ["one", "two"]
        refused(
            lambda: read("hf://datasets/owner/texts/data"),
            "owner/texts",
            "not all in the local cache",
            "HF_HUB_OFFLINE",
        )
        refused(
            lambda: documents.documents("hf://datasets/owner/other"),
            "owner/other is not in the local cache",
            "HF_HUB_OFFLINE",
        )
        monkeypatch.undo()
        assert len(server.requests) == n_requests


def test_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    with point_at("http://127.0.0.1:9", tmp_path / "cache"):
        refused(
            lambda: documents.documents("hf://datasets/owner/texts"),
            "owner/texts",
            "127.0.0.1:9",
            "check the name and the connection",
        )


def test_hub_gated(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache", token="right"):
        refused(lambda: read("hf://datasets/owner/texts"), "owner/texts is gated", "HF_TOKEN")
        monkeypatch.setenv("HF_TOKEN", "wrong")
        refused(lambda: read("hf://datasets/owner/texts"), "owner/texts is gated", "HF_TOKEN")
        monkeypatch.setenv("HF_TOKEN", "right")
        assert read("hf://datasets/owner/texts/data-card.txt") == ["card"]


def test_hub_names_that_do_not_exist(tmp_path: Path, dataset: Path) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}, "models/owner/model": {"main": dataset}}, tmp_path / "cache"):
        refused(lambda: documents.documents("hf://datasets/owner/model"), "no dataset owner/model")
        for source, says in [
            ("hf://datasets/owner/texts/dat", "no file of a known kind"),
            ("hf://datasets/owner/texts/README.md", "at README.md"),
            ("hf://owner/model", "not a dataset"),
            ("hf://datasets/", "give hf://datasets/OWNER/NAME"),
            ("hf://datasets/owner", "give hf://datasets/OWNER/NAME"),
        ]:
            refused(lambda source=source: documents.documents(source), says)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (HTTPError("broken pipe\nwhile reading"), "(broken pipe)"),
        (OSError(28, "No space left on device"), "(No space left on device)"),
    ],
)
def test_hub_download_that_fails(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, reason: str
) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise failure

    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache"):
        monkeypatch.setattr(documents, "hf_hub_download", fail)
        refused(lambda: read("hf://datasets/owner/texts"), "owner/texts cannot be fetched", reason)


def test_a_folder_never_contacts_the_hub(tmp_path: Path, dataset: Path) -> None:
    with hub({"datasets/owner/texts": {"main": dataset}}, tmp_path / "cache") as server:
        read(dataset)
        read(dataset / "data-card.txt")
        list(itertools.islice(documents.documents("stdlib"), 3))
        assert server.requests == []

"""The kinds of files that hold text: columns, rows without text, byte-order marks, and rows that are lines."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from refusals import refused

from jaxconf.data import text_files
from jaxconf.data.documents import documents
from jaxconf.models.errors import InputError

MARK = b"\xef\xbb\xbf"
SHARED = Path(__file__).parents[3] / "shared" / "data"
# As the hub has WikiText: a row per line, in which a blank line is an empty row.
WIKITEXT = ["", " = First = \n", "", " One . \n", " = 1 s and a k = \n", " = = Section = = \n", "", " Two . \n", ""]
WIKITEXT += [" = Second article = \n", "", " Three . \n"]
ARTICLES = [
    " = First = \n\n One . \n = 1 s and a k = \n = = Section = = \n\n Two . \n",
    " = Second article = \n\n Three . \n",
]


def write(path: Path, rows: Sequence[str | bytes | None], column: str = "text") -> Path:
    """Write a file of the kind that its name says, with a column of numbers beside the rows."""
    if path.name.endswith(".csv"):
        pc.write_csv(pa.table({"id": range(len(rows)), column: rows}), path)
    elif path.name.endswith(".parquet"):
        pq.write_table(pa.table({"id": range(len(rows)), column: rows}), path)
    else:
        lines = "".join(json.dumps({"id": i, column: row}) + "\n" for i, row in enumerate(rows)).encode()
        packed = {"gz": "gzip", "zst": "zstd"}.get(path.name.rpartition(".")[2])
        path.write_bytes(pa.compress(lines, packed, asbytes=True) if packed in ("gzip", "zstd") else lines)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.json.zst", "a.jsonl", "a.csv", "a.parquet"])
def test_a_column_is_named_and_rows_without_text_are_counted(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ['naïve, "two"\nlines', None, "", "b" * 3000, None], "body, all=1")
    read = documents(f"{path}:column=body, all=1")
    assert list(read) == ['naïve, "two"\nlines', "", "b" * 3000]
    assert read.facts == {"rows_skipped": 2}
    wrong = f"{path}:column=bodi"
    refused(lambda: list(documents(wrong)), str(path), '"bodi"', 'the nearest is "body, all=1"', "id, body, all=1")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_rows_that_are_lines_are_joined_at_titles(tmp_path: Path, name: str) -> None:
    read = documents(str(write(tmp_path / name, WIKITEXT)))
    assert list(read) == ARTICLES
    assert read.facts == {"rows_joined_at": "titles"}
    bare = documents(str(write(tmp_path / name, [row.strip("\n") for row in WIKITEXT])))
    assert list(bare) == ARTICLES


@pytest.mark.parametrize(
    ("rows", "joined"),
    [
        (["one\n", "two\n", "\n", " \n", "three\n", ""], ["one\ntwo\n", "three\n"]),
        (["one\n", "two\n"], None),  # no blank rows: each row is a document
        (["one\n", "", "two"], None),
        (["one\n", "", "two\nlines\n"], None),
        (["tweet", "", "tweet"], None),
        (["", ""], None),
    ],
)
def test_only_rows_that_are_lines_are_joined(tmp_path: Path, rows: list[str], joined: list[str] | None) -> None:
    read = documents(str(write(tmp_path / "a.parquet", rows)))
    assert list(read) == (rows if joined is None else joined)
    assert read.facts == ({} if joined is None else {"rows_joined_at": "blank rows"})


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_wikitext_has_its_sixty_articles(tmp_path: Path) -> None:
    lines = (SHARED / "wikitext2-test.txt").read_text("utf-8").split("\n")
    rows = [f"{line}\n" if line.strip() else "" for line in lines]
    found = list(documents(str(write(tmp_path / "a.parquet", rows))))
    assert len(found) == 60
    assert all(text.startswith(" = ") for text in found)
    assert "".join(found).split() == " ".join(lines).split()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", MARK + "naïve".encode()),
        ("a.jsonl", MARK + b'{"text": "na\\u00efve"}\n'),
        ("a.csv", MARK + "text,id\nnaïve,1\n".encode()),
    ],
)
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert list(documents(str(tmp_path / name))) == ["naïve"]


def test_lines_of_files_that_were_put_together_may_each_have_a_mark(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes((MARK + b'{"text": "a"}\n') * 2 + MARK + b"\n")
    assert list(documents(str(tmp_path / "a.jsonl"))) == ["a", "a"]


def test_binary_columns_are_text_if_they_are_utf_8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["naïve".encode(), None, MARK + b"b"])
    assert list(documents(str(path))) == ["naïve", "b"]
    write(path, [b"a", b"caf\xe9"])
    refused(lambda: list(documents(str(path))), "row 2 of", 'not UTF-8 in the column "text"', "--text-column")


def test_real_tables(tmp_path: Path) -> None:
    path = SHARED / "pararel-statements.csv"
    if not path.is_file():
        pytest.skip("needs ../shared/data")
    assert list(documents(f"{path}:column=statement")) == pd.read_csv(path)["statement"].tolist()


def test_csv_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "CSV_BLOCK", 64)
    rows = [f"{i}\n" * 8 + "end" for i in range(20)]
    path = write(tmp_path / "a.csv", rows)
    assert list(documents(str(path))) == rows
    write(path, [*rows, "a" * 200])
    refused(lambda: list(documents(str(path))), "a row of", "more than 64 bytes", ".jsonl or .parquet")


def test_plain_text_has_no_column(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    refused(lambda: documents(f"{tmp_path}/a.txt:column=body"), "a.txt is plain text")
    refused(lambda: documents(f"{tmp_path}/a.txt:split=train"), "a.txt has no subsets or splits")
    refused(lambda: documents("stdlib:column=body"), "has no columns")


def test_files_that_describe_a_data_set_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "dataset_infos.json").write_text('{\n "default": {}\n}')
    write(tmp_path / "z.json", ["a"])
    assert list(documents(str(tmp_path))) == ["a"]
    with pytest.raises(InputError, match="one JSON value"):
        list(documents(str(tmp_path / "dataset_infos.json")))

"""The documents of one file of text: plain text, JSON lines, CSV or Parquet; and the rows of one of tables."""

import contextlib
import dataclasses
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from jaxconf.models.errors import InputError, first_line, listed, nearest

TEXT = "text"  # the column that holds the text, unless another is given
SHOWN = 8  # columns of a table that an error names
CSV_BLOCK = 2**24  # bytes; no row of a CSV file may have more
FIRST_ROWS = 1000  # rows that decide whether those of a file are lines
NOT_LINES = 'it is one JSON value and not an object on each line; write one a line, for example with jq -c ".[]"'


@dataclasses.dataclass
class Reading:
    """What was done to the rows that were read so far, beside giving their text."""

    skipped: int = 0  # rows that hold no text
    joined: str = ""  # where rows that are lines were joined to documents: between them, at TITLES or at BLANKS

    @property
    def facts(self) -> dict[str, Any]:
        """The facts `rows_skipped` and `rows_joined_at` of what was done; none of what was not."""
        facts = {"rows_skipped": self.skipped, "rows_joined_at": self.joined}
        return {name: value for name, value in facts.items() if value}


TITLES, BLANKS = "titles", "blank rows"


def read_file(path: Path, column: str | None, reading: Reading) -> Iterator[str]:
    """The documents of a file of a known kind.

    `column`: what holds the text in tables and in JSON lines, by default TEXT; plain text has none. `reading` is
    brought up to date. Raises InputError, during iteration, for a file that cannot be read.
    """
    read = next(reader for ending, reader in READERS.items() if path.name.endswith(ending))
    with _readable(path):
        rows = _present(read(path, column or TEXT), reading)
        yield from rows if read is _read_text else _documents(rows, reading)


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a table or of JSON lines: where each is, such as "line 3 of FILE", and its columns.

    The columns of a CSV file hold text. Raises InputError, during iteration, for a file that cannot be read, and for
    one that is neither a table nor JSON lines.
    """
    with _readable(path):
        if path.name.endswith(".parquet"):
            with pq.ParquetFile(path) as file:
                rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(batch_size=1024))
                yield from ((f"row {number} of {path}", row) for number, row in enumerate(rows, 1))
        elif path.name.endswith(".csv"):
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            for number, row in enumerate(frame.to_dict("records"), 1):
                yield f"row {number} of {path}", {str(name): value for name, value in row.items()}
        elif path.name.endswith(".txt"):
            raise InputError(f"the file {path} is plain text, which has no columns; give a table or JSON lines")
        else:
            for where, row in _json_lines(path, "what is asked for"):
                if not isinstance(row, dict):
                    raise InputError(f"{where} cannot be read: {NOT_LINES}")
                yield where, row


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises InputError, which names the file, for what goes wrong while it is read within the block."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"the file {path} is not valid UTF-8; convert it to UTF-8") from error
    except (OSError, pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        if "straddling object" in str(error):
            raise InputError(
                f"a row of {path} has more than {CSV_BLOCK:,} bytes; convert the file to .jsonl or .parquet"
            ) from error
        raise InputError(f"the file {path} cannot be read ({first_line(error)}); check that it is whole") from error


def is_known(name: str) -> bool:
    """Whether a file's name is that of a kind that can be read."""
    return name.endswith(tuple(READERS))


def _present(rows: Iterator[str | None], reading: Reading) -> Iterator[str]:
    for row in rows:
        if row is None:
            reading.skipped += 1
        else:
            yield row


# Rows that are lines


def _documents(rows: Iterator[str], reading: Reading) -> Iterator[str]:
    """The rows, or the documents that they are the lines of, as in WikiText: a row for each line of the text."""
    first, where = _first_rows(rows)
    rows = itertools.chain(first, rows)
    if not where:
        yield from rows
        return
    reading.joined = where
    document: list[str] = []
    for begins, row in _beginnings(rows) if where == TITLES else ((_is_blank(row), row) for row in rows):
        if begins and document:
            yield from _joined(document)
            document = []
        document.append(row)
    yield from _joined(document)


def _first_rows(rows: Iterator[str]) -> tuple[list[str], str]:
    """Rows from the start, as few as decide it, and where the rows are to be joined; empty if they are not lines.

    They are lines if the first that is not blank is a title, or if all end with their only line break and some are
    blank.
    """
    first: list[str] = []
    for row in itertools.islice(rows, FIRST_ROWS):
        first.append(row)
        if _is_blank(row):
            continue
        if _is_title(row) and len(first) == 1 + sum(map(_is_blank, first)):
            return first, TITLES
        if row.find("\n") != len(row) - 1:
            return first, ""
    if any(begins for begins, _ in _beginnings(iter(first))):
        return first, TITLES
    texts = [row for row in first if not _is_blank(row)]
    return first, BLANKS if 0 < len(texts) < len(first) else ""


def _beginnings(rows: Iterator[str]) -> Iterator[tuple[bool, str]]:
    """Each row, and whether it is a title between blank rows, which begins a document.

    A line of mathematics may look like a title, but stands in a paragraph.
    """
    padded = itertools.chain(["", *itertools.islice(rows, 1)], rows, [""])
    before, row = next(padded), next(padded)
    for after in padded:
        yield _is_title(row) and _is_blank(before) and _is_blank(after), row
        before, row = row, after


def _is_blank(row: str) -> bool:
    return not row or row.isspace()


def _is_title(row: str) -> bool:
    """Whether a row is the title of an article, as in WikiText: " = Title = "; sections have more signs."""
    return re.fullmatch(r" ?= [^=\n](?:[^\n]*[^=\n])? = ?\n?", row) is not None


def _joined(lines: Sequence[str]) -> Iterator[str]:
    """The document of the lines, without blank lines at its ends; none if all are blank."""
    texts = [place for place, line in enumerate(lines) if not _is_blank(line)]
    if texts:
        yield "".join(line if line.endswith("\n") else f"{line}\n" for line in lines[texts[0] : texts[-1] + 1])


# The kinds of files


def _read_text(path: Path, column: str) -> Iterator[str]:
    yield path.read_bytes().decode("utf-8-sig")


def _read_json_lines(path: Path, column: str) -> Iterator[str | None]:
    for where, record in _json_lines(path, f'a "{column}"'):
        yield _text_of_line(record, where, column)


def _json_lines(path: Path, wanted: str) -> Iterator[tuple[str, Any]]:
    """Where each line is that is not blank, and its value. `wanted`: what each should have, for error messages."""
    with pa.input_stream(str(path)) as stream:  # decompresses .gz and .zst
        for number, line in enumerate(io.BufferedReader(stream), 1):
            # Files that were joined may have the mark of the byte order at the head of any line.
            decoded = line.decode("utf-8-sig")
            if _is_blank(decoded):
                continue
            try:
                record = json.loads(decoded)
            except (ValueError, RecursionError) as error:
                if number == 1 and _goes_on(decoded.strip()):
                    raise InputError(f"the file {path} cannot be read: {NOT_LINES}") from error
                raise InputError(
                    f"line {number} of {path} is not JSON; give an object with {wanted} on each line"
                ) from error
            yield f"line {number} of {path}", record


def _goes_on(line: str) -> bool:
    """Whether a line that is not JSON begins a value that ends on a later line."""
    return line[0] == "[" or (line[0] == "{" and line[-1] != "}")


def _text_of_line(record: Any, where: str, column: str) -> str | None:
    if isinstance(record, list) and any(isinstance(entry, dict) for entry in record):
        raise InputError(f"{where} cannot be read: {NOT_LINES}")
    text = record.get(column) if isinstance(record, dict) else None
    if isinstance(record, dict) and column in record and text is None:
        return None
    if not isinstance(text, str):
        lacks = isinstance(record, dict) and column not in record and len(record) > 0
        remedy = _instead(column, list(record)) if lacks else "give an object with one on each line"
        raise InputError(f'{where} has no string "{column}"; {remedy}')
    if not _is_unicode(text):
        raise InputError(f"{where} has half of a surrogate pair in its text; repair or remove it")
    return text


def _read_csv(path: Path, column: str) -> Iterator[str | None]:
    read = pc.ReadOptions(block_size=CSV_BLOCK)
    parse = pc.ParseOptions(newlines_in_values=True)
    with pc.open_csv(path, read, parse) as file:
        _check_column(path, column, file.schema.names)
    # An empty cell is a row without text, and "" is an empty text. Bytes are decoded below, for one sentence on that.
    convert = pc.ConvertOptions(
        include_columns=[column],
        column_types={column: pa.binary()},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with pc.open_csv(path, read, parse, convert) as file:
        for row in itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in file):
            yield None if row is None else row.decode()


def _read_parquet(path: Path, column: str) -> Iterator[str | None]:
    with pq.ParquetFile(path) as file:
        _check_column(path, column, file.schema_arrow.names)
        batches = file.iter_batches(batch_size=1024, columns=[column])
        rows = itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches)
        for number, text in enumerate(rows, 1):
            where = f"row {number} of {path}"
            if isinstance(text, bytes):
                try:
                    yield text.decode("utf-8-sig")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f'{where} has bytes that are not UTF-8 in the column "{column}"; convert them, or give '
                        "a column of text with --text-column"
                    ) from error
            elif text is None or isinstance(text, str):
                yield text
            else:
                raise InputError(
                    f'{where} has no string in the column "{column}" but {type(text).__name__}; give a column of text '
                    "with --text-column"
                )


def _check_column(path: Path, column: str, columns: Sequence[str]) -> None:
    if column not in columns:
        raise InputError(f'the file {path} has no column "{column}"; {_instead(column, columns)}')


def _instead(column: str, known: Sequence[str]) -> str:
    """What to give in place of a column that there is not."""
    if not known:
        return "it has none; give another file"
    close = nearest(column, known)
    return (
        f'the nearest is "{close}", and all are {listed(known, SHOWN)}; name the column that holds the text, such as '
        f"--text-column {close}, or :column={close} behind the file"
    )


READERS: dict[str, Callable[[Path, str], Iterator[Any]]] = {
    ".txt": _read_text,
    **{f".{name}{packed}": _read_json_lines for name in ("jsonl", "json") for packed in ("", ".gz", ".zst")},
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
KINDS = ", ".join(READERS)


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode the text. It cannot encode half of a surrogate pair, which JSON escapes can contain."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

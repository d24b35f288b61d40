"""The HTML that pages are made of: filled templates, tables, lists and cards.

Arguments are escaped here, except those whose description says that they are HTML.
"""

import base64
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from jaxconf.results.words import number


def styled_page(template: Traversable, **parts: str) -> str:
    """A page in the style of page.css: the template with `parts`, which are HTML, in place of its placeholders.

    Its script may have theme.js in place of `theme`.
    """
    style, theme = ((files("jaxconf.report") / name).read_text("utf-8") for name in ("page.css", "theme.js"))
    return filled(template, style=style, theme=theme, **parts)


def filled(template: Traversable, **parts: str) -> str:
    """The template with `parts`, which are HTML, in place of its placeholders."""
    return Template(template.read_text("utf-8")).substitute(parts)


def inert_json(data: Any) -> str:
    """JSON in which an HTML parser finds no markup."""
    inert = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
    return json.dumps(data, allow_nan=False).translate(inert)


def paragraphs(sentences: Iterable[str]) -> str:
    """A paragraph for each sentence."""
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def entries(pairs: Iterable[tuple[str, str]]) -> str:
    """The entries (name, text) of a description list."""
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in pairs)


def facts(found: Mapping[str, object]) -> str:
    """The facts of a result, as the entries of a description list."""
    return entries((name, _words(value)) for name, value in found.items())


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {of}" for name, of in value.items())
    return number(value) if isinstance(value, float) else str(value)


def table(heads: Iterable[str], rows: Iterable[str], **given: str) -> str:
    """A table that scrolls by itself if the page is too narrow for it. `heads` are made by `head`, `rows` by `row`."""
    inner = f"<thead>{row(heads)}</thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="wide"><table{attributes(given)}>{inner}</table></div>'


def row(cells: Iterable[str], **given: str) -> str:
    """A row of a table; its cells are made by `row_head`, `text` and `measured`."""
    return f"<tr{attributes(given)}>{''.join(cells)}</tr>"


def attributes(given: Mapping[str, str]) -> str:
    """The attributes of a tag, with a space before each.

    An underscore at the end of a name is dropped, so that words that Python reserves can be names, as in `class_`.
    """
    return "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in given.items())


def head(name: str, hint: str | None = None) -> str:
    """The head of a column; `hint` is shown while the pointer is on it."""
    title = {} if hint is None else {"title": hint}
    return f'<th scope="col"{attributes(title)}>{escape(name)}</th>'


def row_head(name: object) -> str:
    """The head of a row."""
    return f'<th scope="row">{escape(str(name))}</th>'


def text(words: object) -> str:
    """A cell with text in it."""
    return f"<td>{escape(str(words))}</td>"


def measured(record: Mapping[Any, Any], column: str, intervals: bool = True) -> str:
    """A cell with the number that a row has in a column, and with its interval if there is one (`_lo`, `_hi`)."""
    value = record[column]
    if column.startswith("is_"):
        return f'<td data-value="{int(value)}">{"yes" if value else "no"}</td>'
    span = ""
    if intervals and f"{column}_lo" in record:
        interval = f"{number(record[f'{column}_lo'])} to {number(record[f'{column}_hi'])}"
        span = f' <span class="interval">{interval}</span>'
    return f'<td data-value="{value}">{number(value)}{span}</td>'


def frame_table(frame: pd.DataFrame, first: str, columns: Sequence[str]) -> str:
    """A table of `columns`, numbers with their intervals (`_lo`, `_hi`); the column `first` heads its rows."""

    def cell(record: Mapping[Any, Any], column: str) -> str:
        return text(record[column]) if isinstance(record[column], str) else measured(record, column)

    records = frame.to_dict("records")
    rows = (row([row_head(record[first]), *(cell(record, column) for column in columns)]) for record in records)
    return table([head(first), *map(head, columns)], rows)


def card(heading: str, content: str, caption: str = "", kind: str = "") -> str:
    """A card with `content` between its heading and its caption, all HTML."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="card{kind}"><h3>{heading}</h3>{content}{below}</figure>'


def picture(image: Path, heading: str, alt: str, caption: str = "", broad: bool = False) -> str:
    """A card with a PNG file in it; a `broad` one takes the width of the page."""
    data = base64.b64encode(image.read_bytes()).decode()
    content = f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
    return card(escape(heading), content, escape(caption), " broad" * broad)


def pictures(images: Iterable[Path], captions: Mapping[str, tuple[str, str]], broad: Collection[str] = ()) -> str:
    """A card for each PNG file.

    `captions`: the name of the file without its ending → heading and caption; `broad`: the names of those that take the
    width of the page.
    """
    return "".join(
        picture(image, heading, how, how, broad=image.stem in broad)
        for image in images
        for heading, how in [captions[image.stem]]
    )

"""Pages whose figures are pictures: one frame for all of them, in which everything stands that they need to open offline."""

import base64
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import pandas as pd

from jaxconf.models.files import replacing
from jaxconf.report.page import cell
from jaxconf.results.neuron_table import number

PAPER = "“Confidence Regulation Neurons in Language Models” (Stolfo et al., 2024)"


def write_page(path: Path, template: Traversable, kind: str, title: str, above: str, source: str = PAPER, **parts: str) -> Path:
    """Writes the page `path`, whole or not at all, and gives its path. `template`: what stands in the frame; `kind`: which page it is; `title` and the
    line `above` it are text, `parts` what the template asks for, as HTML; `source`: the paper.
    """
    frame, body = (Template(file.read_text("utf-8")) for file in (files("jaxconf.report") / "frame.html", template))
    html = frame.substitute(
        style=files("jaxconf.report").joinpath("page.css").read_text("utf-8"),
        kind=kind,
        title=escape(title),
        above=escape(above),
        source=escape(source),
        body=body.substitute(parts),
    )
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def picture(image: Path, heading: str, alt: str, caption: str = "", broad: bool = False) -> str:
    """A card with a PNG file in it."""
    data = base64.b64encode(image.read_bytes()).decode()
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="card{" broad" if broad else ""}"><h3>{escape(heading)}</h3>'
        f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">{below}</figure>'
    )


def rows(frame: pd.DataFrame, first: str, columns: list[str]) -> str:
    """A table with the column `first` as its rows' names; below a figure its interval, where `frame` has one (`_lo` and `_hi`)."""
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(str(row[first]))}</th>{"".join(cell(row, column) for column in columns)}</tr>'
        for row in frame.to_dict("records")
    )
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">{escape(first)}</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def facts(found: dict[str, object]) -> str:
    """What a run states, as the entries of a description list."""
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(_words(value))}</dd></div>" for name, value in found.items())


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {of}" for name, of in value.items())
    return number(value) if isinstance(value, float) else str(value)

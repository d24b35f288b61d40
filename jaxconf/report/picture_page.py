"""Pages whose figures are PNG images. They share one frame, and each holds everything that it needs to open offline."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from jaxconf.report.markup import filled, styled_page
from jaxconf.report.play.page import link
from jaxconf.results.words import model_title

PAPER = "“Confidence Regulation Neurons in Language Models” (Stolfo et al., 2024)"


def study_page(
    template: Traversable, kind: str, found: Mapping[str, Any], above: str, source: str = PAPER, **parts: str
) -> str:
    """The page of a study of a model, which its heading names. `found`: the facts. The others are as in `picture_page`.

    Beside the page of a study of the bundled model lies the page to play with (`save_study`), and it links to that.
    """
    return picture_page(template, kind, model_title(found), above, source, link(found), **parts)


def picture_page(
    template: Traversable, kind: str, title: str, above: str, source: str = PAPER, links: str = "", **parts: str
) -> str:
    """The HTML of a page.

    `template`: the content of the frame. `kind`: the kind of page, for the browser's title. `title`: the heading.
    `above`: a line above the heading. `source`: the paper. `links`: HTML of links to other pages.
    `parts`: HTML for the placeholders of the template.
    """
    return styled_page(
        files("jaxconf.report") / "picture_page.html",
        kind=kind,
        title=escape(title),
        above=escape(above),
        source=escape(source),
        links=f"<p>{links}</p>" if links else "",
        body=filled(template, **parts),
    )

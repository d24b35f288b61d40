"""Pages whose figures are pictures: one frame for all of them, which holds everything that it needs to open offline."""

from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

from jaxconf.report.markup import filled, styled_page

PAPER = "“Confidence Regulation Neurons in Language Models” (Stolfo et al., 2024)"


def picture_page(template: Traversable, kind: str, title: str, above: str, source: str = PAPER, **parts: str) -> str:
    """The HTML of a page.

    `template`: what stands in the frame; `kind`: which page it is; `title`, and `above` it a line; `source`: the paper;
    `parts`: what the template asks for, as HTML.
    """
    return styled_page(
        files("jaxconf.report") / "picture_page.html",
        kind=kind,
        title=escape(title),
        above=escape(above),
        source=escape(source),
        body=filled(template, **parts),
    )

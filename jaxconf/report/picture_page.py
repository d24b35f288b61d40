"""Pages whose figures are PNG images. They share one frame, and each holds everything that it needs to open offline."""

from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

from jaxconf.report.markup import filled, styled_page

PAPER = "“Confidence Regulation Neurons in Language Models” (Stolfo et al., 2024)"


def picture_page(template: Traversable, kind: str, title: str, above: str, source: str = PAPER, **parts: str) -> str:
    """The HTML of a page.

    `template`: the content of the frame. `kind`: the kind of page, for the browser's title. `title`: the heading.
    `above`: a line above the heading. `source`: the paper. `parts`: HTML for the placeholders of the template.
    """
    return styled_page(
        files("jaxconf.report") / "picture_page.html",
        kind=kind,
        title=escape(title),
        above=escape(above),
        source=escape(source),
        body=filled(template, **parts),
    )

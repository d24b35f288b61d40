"""What pages were made with before `markup` and `picture_page`."""

from importlib.resources.abc import Traversable
from pathlib import Path

from jaxconf.models.files import replacing
from jaxconf.report.markup import facts as facts
from jaxconf.report.markup import frame_table as rows  # noqa: F401
from jaxconf.report.markup import picture as picture
from jaxconf.report.picture_page import PAPER, picture_page


def write_page(
    path: Path, template: Traversable, kind: str, title: str, above: str, source: str = PAPER, **parts: str
) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(picture_page(template, kind, title, above, source, **parts), encoding="utf-8")
    return path

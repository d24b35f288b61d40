"""Pages with interactive figures (Plotly). Each holds everything that it needs to open offline."""

import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from jaxconf.report.markup import inert_json, styled_page


def interactive_page(
    template: Traversable, figures: Mapping[str, go.Figure], data: Mapping[str, Any], /, **parts: str
) -> str:
    """A page in the style of page.css whose script draws figures with interactive.js, which follows theme.js.

    The template has the placeholders `plotly`, `data` and `drawing` beside those of `parts`, which are HTML. `figures`:
    the id of an element → the figure that `draw(id)` draws there. `data`: what else the page's script needs.
    """
    drawn = {name: json.loads(plotly.io.to_json(figure, validate=False)) for name, figure in figures.items()}
    drawing = (files("jaxconf.report") / "interactive.js").read_text("utf-8")
    return styled_page(
        template, plotly=get_plotlyjs(), drawing=drawing, data=inert_json({"figures": drawn, **data}), **parts
    )

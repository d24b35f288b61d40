"""What a neuron table shows in a notebook: itself as HTML, and its figures by name."""

import re
from html import unescape

import plotly.graph_objects as go
import pytest
from matplotlib.figure import Figure
from planted_table import ENTROPY, FREQUENCY, TABLES, planted_table

from jaxconf.report.figures import FIGURES
from jaxconf.report.plots import plots
from jaxconf.report.table_plots import TablePlots
from jaxconf.results.neuron_table import MOST_SHOWN

NAMES = [name for name in vars(TablePlots) if not name.startswith("_") and name != "table"]


def heading(figure: Figure) -> str:
    return figure.get_suptitle()


@pytest.mark.usefixtures("drawn_quickly")
def test_every_figure_of_the_report_is_a_method():
    table = planted_table()
    drawn = {heading(getattr(table.plot, name)()) for name in NAMES} | {heading(table.plot.loss_changes("frequency"))}
    assert drawn == {heading(draw(table)) for name, draw in FIGURES.items() if not name.endswith("_means")}


def test_a_figure_is_also_the_interactive_one_of_the_report():
    table = planted_table()
    found = [getattr(table.plot, name)(interactive=True) for name in NAMES]
    found.append(table.plot.loss_changes("frequency", interactive=True))
    assert all(isinstance(figure, go.Figure) for figure in found)
    axes = sorted(str(figure.layout) for figure in found)
    assert axes == sorted(str(figure.layout) for figure in plots(table).values())


def test_hovering_over_a_neuron_names_it():
    table = planted_table()
    figure = table.plot.mediation(interactive=True)
    found = [text for trace in figure.data if trace.text for text in trace.text]
    assert {f"<b>{name}</b>" for name in ENTROPY} <= {text.split("<br>")[0] for text in found}
    counts = table.plot.entropy_and_frequency(interactive=True).data[0]
    assert counts.text is None  # a cell counts positions and is no neuron


def test_a_notebook_shows_a_figure_as_a_picture():
    assert planted_table().plot.null_space()._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", TABLES)
def test_a_notebook_shows_the_verdict_and_the_named_neurons(name):
    table = TABLES[name]()
    shown = table._repr_html_()
    assert all(sentence in unescape(shown) for sentence in table.verdict())
    rows = re.findall(r"<tr>\s*<th>(.*?)</th>", shown)
    named = [list((found if len(found := table.members(kind)) else table.nearest(kind)).index) for kind in
             ("entropy", "frequency")]  # fmt: skip
    assert rows == [neuron for names in named for neuron in names[:MOST_SHOWN]]
    if name == "ordinary":
        assert rows == [*ENTROPY, *FREQUENCY]


def test_names_and_sentences_are_shown_as_text():
    table = planted_table()
    table.frame["name"] = [f"<script>{name}" for name in table.names]
    assert "<script>" not in table._repr_html_()
    assert "&lt;script&gt;3.5" in table._repr_html_()

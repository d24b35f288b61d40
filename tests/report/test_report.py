"""Figures, report and terminal summary: what they show. `test_drawing.py` draws the figures."""

import json
import re
from functools import cache
from html import unescape
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from planted_table import ENTROPY, FREQUENCY, TABLES, planted_table, without_figures
from plotly.offline import get_plotlyjs
from rich.console import Console

from jaxconf.analysis.metrics import COLUMNS
from jaxconf.report import page as report
from jaxconf.report.figures import FIGURES
from jaxconf.report.page import write_report
from jaxconf.report.plots import plots
from jaxconf.report.shown import MOST_POINTS, boxes, drawn, others, shown
from jaxconf.report.style import floor_of, on_log_axis
from jaxconf.report.terminal import print_summary

pytestmark = pytest.mark.usefixtures("drawn_quickly")

HOSTILE = "</script><img src=x onerror=alert(1)>$100 {0} <!--"

each_name = pytest.mark.parametrize("name", TABLES)
each_table = pytest.mark.parametrize("make", TABLES.values(), ids=TABLES.keys())


@cache
def texts(name, plant=True):
    """All words in a figure of the planted table."""
    table = planted_table(plant=plant)
    table.facts["model"] = "folder/a$b$"
    figure = FIGURES[name](table)
    every = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return " ".join([*(text.get_text() for text in every), figure.get_suptitle()])


def page_of(table, folder):
    """The report without the source of plotly.js, which it must hold once."""
    html = write_report(table, folder).read_text(encoding="utf-8")
    assert html.count(get_plotlyjs()) == 1
    return html.replace(get_plotlyjs(), "")


@cache
def report_of(name):
    """A table of TABLES with its report, and the names of the files beside it."""
    table = TABLES[name]()
    with TemporaryDirectory() as folder:
        html = page_of(table, folder)
        return table, html, [path.name for path in Path(folder).iterdir()]


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text outside its scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.inside = [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text += data


def test_points_of_one_colour_have_no_colour_bar():
    assert len(FIGURES["figure_2e"](planted_table()).axes) == 2
    assert len(FIGURES["figure_2e"](without_figures(0.0)).axes) == 1


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_names_the_model(name):
    assert "a$b$, layer 3" in texts(name)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("2a", "entropy"), ("2c", "entropy"), ("2e", "entropy"), ("3b", "frequency"), ("3c", "frequency")],
)
def test_a_figure_without_neurons_says_so(name, rule):
    sentence = f"no neuron meets the {rule} rule; the nearest (6)"
    assert sentence in texts(f"figure_{name}", plant=False)
    assert sentence not in texts(f"figure_{name}")


@pytest.mark.parametrize(("name", "labels"), [("1", ENTROPY), ("2a", ENTROPY), ("2e", ENTROPY), ("3b", FREQUENCY)])
def test_named_neurons_are_labelled(name, labels):
    assert all(label in texts(f"figure_{name}").split() for label in labels)


def test_comparison_neurons_are_as_many_and_none_of_the_named():
    table = planted_table()
    chosen, _ = shown(table, "entropy")
    drawn_at_random = others(table, "entropy", chosen)
    assert chosen == ENTROPY
    assert len(drawn_at_random) == 2
    assert drawn_at_random == others(table, "entropy", chosen)
    draws = set()
    for table.facts["seed"] in range(50):
        draws |= set(others(table, "entropy", chosen))
    assert len(draws) > 20
    assert not draws & set(ENTROPY)


def test_boxes_compare_the_total_with_the_frozen_effect():
    table = planted_table()
    frame = table.to_pandas()
    (_, total, first), (_, frozen, second), *_ = boxes(table, "frequency")
    assert (total, frozen) == ("total", "frequency frozen")
    assert first.tolist() == frame.loc[FREQUENCY, "loss_abs_delta"].tolist()
    assert second.tolist() == frame.loc[FREQUENCY, "loss_abs_delta_freq_frozen"].tolist()


def test_zeros_and_low_shares_stay_on_the_picture():
    frame = planted_table().frame
    values = frame["loss_delta"].where(frame.index != 2, np.nan).where(frame.index != 3, 0.0)
    drawable = on_log_axis(values)
    assert drawable[3] == values[values > 0].min() / 2
    assert np.isnan(drawable[2])
    assert -1 <= floor_of(frame["ln_mediated"] - 5) < 0


@each_name
def test_report_loads_nothing_from_outside(name):
    _, html, written = report_of(name)
    assert not re.search(r"https?:|@import|url\(", html)
    for tag, attributes in Page(html).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    # Browsers enforce it too.
    assert "default-src 'none'" in html
    assert written == ["report.html"]


def test_report_offers_no_upload():
    _, html, _ = report_of("ordinary")
    assert 'plotlyServerURL: ""' in html
    assert 'modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]' in html


def test_report_escapes_hostile_names(tmp_path):
    table = planted_table()
    table.facts |= {"model": HOSTILE, "data": HOSTILE, "device": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    table.positions["token"] = table.positions["target"] = HOSTILE
    table.cosine_neurons = [HOSTILE, HOSTILE]
    html = page_of(table, tmp_path)
    assert "<img" not in html
    assert html.count("</script>") == 3
    assert [tag for tag, _ in Page(html).tags if tag in ("script", "img")] == ["script"] * 3
    assert HOSTILE in Page(html).text


def test_report_data_are_json_with_a_hover_text_for_every_neuron():
    _, html, _ = report_of("ordinary")
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    data = json.loads(embedded.group(1), parse_constant=pytest.fail)
    assert data["figures"].keys() == FIGURES.keys() - {"figure_2c_means", "figure_3c_means"}  # files alone
    assert len(data["hover"]) == 60
    assert data["hover"][17].startswith("<b>3.17</b><br>w_norm 4<br>")


def test_tokens_are_escaped_in_hover_texts():
    table = planted_table()
    table.positions["token"] = "<b>bold</b>"
    (sample,) = [trace for trace in plots(table)["figure_3a"].data if trace.type == "scatter"]
    assert "&lt;b&gt;bold" in sample.text[0]
    assert "<b>" not in sample.text[0]


def test_every_point_of_a_neuron_knows_its_row():
    table = planted_table()
    frame = table.frame
    for trace in plots(table)["figure_2a"].data:
        np.testing.assert_array_equal(trace.x, frame["w_norm"].iloc[list(trace.customdata)])
        np.testing.assert_array_equal(trace.y, frame["logit_var"].iloc[list(trace.customdata)])


@each_name
def test_report_has_every_section_and_every_column(name):
    table, html, _ = report_of(name)
    text = Page(html).text
    for sentence in [
        *table.verdict(),
        *table.rules.describe(),
        *COLUMNS.values(),
        *(how for _, how in report._captions(table).values()),
    ]:
        assert sentence in text


def test_report_tells_of_every_named_neuron_with_intervals():
    table, html, _ = report_of("ordinary")
    named = html[html.index('id="named"') : html.index('id="rules"')]
    assert re.findall(r'<th scope="row">([\d.]+)</th>', named) == [*ENTROPY, *FREQUENCY]
    by_rule = html[html.index('id="rules"') : html.index('id="all"')]
    assert re.findall(r'<th scope="row">([\d.]+)</th>', by_rule) == list(table.by_rule().index)
    assert '>0.6 <span class="interval">0.54 to 0.66</span>' in named


def test_report_shows_the_nearest_where_no_neuron_is_named():
    table, html, _ = report_of("no neuron named")
    named = html[html.index('id="named"') : html.index('id="all"')]
    assert "No entropy neurons; the nearest to the rule" in named
    assert re.findall(r'<th scope="row">([\d.]+)</th>', named)[:6] == list(table.nearest("entropy").index)


def test_report_table_holds_the_strongest_neurons(tmp_path):
    table = planted_table(neurons=300)
    html = page_of(table, tmp_path)
    listed = re.findall(r'<th scope="row">([\d.]+)</th>', html[html.index('id="all"') :])
    strongest = table.to_pandas().sort_values("loss_abs_delta", ascending=False)
    assert listed == list(strongest.index[:200])
    assert "200 of 300 neurons" in unescape(html)


def test_a_wide_layer_is_thinned_but_keeps_the_named_neurons():
    table = planted_table(neurons=4 * MOST_POINTS)
    names = drawn(table)
    assert len(names) == len(set(names)) == MOST_POINTS
    assert {*ENTROPY, *FREQUENCY} <= set(names)
    assert table.to_pandas()["loss_abs_delta"].idxmax() in names


def test_a_failing_report_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "report.html").write_bytes(b"old")

    def fail(self, text, encoding):
        self.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(type(tmp_path), "write_text", fail)
    monkeypatch.setattr(report, "plots", lambda table: {})
    with pytest.raises(OSError, match="disk full"):
        write_report(planted_table(plant=False), tmp_path)
    assert [(left.name, left.read_bytes()) for left in tmp_path.iterdir()] == [("report.html", b"old")]


@each_table
def test_terminal_summary_fits_in_80_columns_and_states_the_verdict(make):
    table = make()
    table.facts["model"] = "[red]a[/] " + "long/name" * 20
    out = StringIO()
    print_summary(table, Console(file=out, width=80))
    text = out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "[red]a[/]" in text
    for sentence in table.verdict():
        assert sentence in " ".join(text.split())


def test_terminal_summary_lists_the_named_neurons():
    out = StringIO()
    print_summary(table := planted_table(), Console(file=out, width=80))
    rows = [line.split()[0] for line in out.getvalue().splitlines() if re.match(r"3\.\d+ ", line)]
    assert rows == [*ENTROPY, *FREQUENCY, *table.by_rule().index]

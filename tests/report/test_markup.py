"""The HTML that pages are made of."""

from pathlib import Path

import pandas as pd
import pytest

from jaxconf.report.markup import (
    entries,
    facts,
    frame_table,
    head,
    measured,
    paragraphs,
    picture,
    pictures,
    row,
    row_head,
    table,
    text,
)

HOSTILE = '<b>"&'
ESCAPED = "&lt;b&gt;&quot;&amp;"


def test_text_is_escaped_everywhere(tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(b"png")
    made = [
        paragraphs([HOSTILE]),
        entries([(HOSTILE, HOSTILE)]),
        facts({HOSTILE: HOSTILE}),
        head(HOSTILE, HOSTILE),
        row_head(HOSTILE),
        text(HOSTILE),
        row([], id=HOSTILE),
        picture(image, HOSTILE, HOSTILE, HOSTILE),
        frame_table(pd.DataFrame({HOSTILE: [HOSTILE], "x": [1.0]}), HOSTILE, ["x"]),
    ]
    assert not [html for html in made if HOSTILE in html or ESCAPED not in html]


def test_facts_read_as_words():
    found = facts({"mesh": {"data": 2, "model": 1}, "tuned": ["a", "b"], "loss": 1.23456, "k": 3, "none": None})
    words = ["data 2, model 1", "a, b", "1.23", "3", "None"]
    assert [part.partition("</dd>")[0] for part in found.split("<dd>")[1:]] == words


def test_a_frame_has_cells_of_text_and_of_numbers():
    frame = pd.DataFrame({"set": ["a"], "ablation": ["<clip>"], "x": [0.5], "x_lo": [0.25], "x_hi": [1.0]})
    html = frame_table(frame, "set", ["ablation", "x"])
    assert '<th scope="row">a</th><td>&lt;clip&gt;</td><td data-value="0.5">0.5' in html
    assert "0.25 to 1" in html


def test_a_table_is_made_of_heads_and_rows():
    html = table([head("a"), head("b", "hint")], [row([row_head(1), text("x")], id="first")], class_="texts")
    assert html == (
        '<div class="wide"><table class="texts"><thead>'
        '<tr><th scope="col">a</th><th scope="col" title="hint">b</th></tr></thead><tbody>'
        '<tr id="first"><th scope="row">1</th><td>x</td></tr></tbody></table></div>'
    )


@pytest.mark.parametrize(
    ("record", "intervals", "cell"),
    [
        ({"x": 0.12345}, True, '<td data-value="0.12345">0.123</td>'),
        ({"x": float("nan")}, True, '<td data-value="nan">n/a</td>'),
        (
            {"x": 1.0, "x_lo": 0.5, "x_hi": 2.0},
            True,
            '<td data-value="1.0">1 <span class="interval">0.5 to 2</span></td>',
        ),
        ({"x": 1.0, "x_lo": 0.5, "x_hi": 2.0}, False, '<td data-value="1.0">1</td>'),
    ],
)
def test_a_number_shows_with_its_interval(record, intervals, cell):
    assert measured(record, "x", intervals) == cell


def test_whether_a_neuron_meets_a_rule_reads_yes_or_no():
    assert measured({"is_x": True}, "is_x") == '<td data-value="1">yes</td>'
    assert measured({"is_x": False}, "is_x") == '<td data-value="0">no</td>'


def test_pictures_have_the_captions_of_their_files(tmp_path):
    images = [tmp_path / f"{name}.png" for name in ("one", "two")]
    for image in images:
        image.write_bytes(b"png")
    html = pictures(images, {"two": ("Second", "how"), "one": ("First", "that")}, broad={"two"})
    assert html.index("First") < html.index("Second")
    assert html.count('class="card"') == html.count('class="card broad"') == 1
    assert html.index("that</figcaption>") < html.index('class="card broad"') < html.index("how</figcaption>")
    assert html.count("data:image/png;base64,cG5n") == 2


def test_no_other_file_makes_tables():
    rooms = Path(__file__).parents[2] / "jaxconf"
    makers = {str(path.relative_to(rooms)) for path in rooms.rglob("*.py") if "<thead>" in path.read_text("utf-8")}
    assert makers <= {"report/markup.py"}

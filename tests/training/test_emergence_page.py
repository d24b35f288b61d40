"""The page of a track, and its interactive figures: what they hold, whatever was measured."""

import json
import re

import numpy as np
import pytest
from planted_track import CHANCE, LN_MEDIATED, RHO, STEPS, WITH_EFFECTS, planted_rows, write, write_in_world

from jaxconf.report.style import ENTROPY, FREQUENCY, NORMAL
from jaxconf.training.emergence_page import write_emergence_page
from jaxconf.training.emergence_plots import curve_plots, moving
from jaxconf.training.events import event_lines

NAMES = {f"3.{neuron}" for neuron in range(6)}


@pytest.fixture
def planted(tmp_path):
    (tmp_path / "run").mkdir()
    return write_in_world(tmp_path / "run", planted_rows())


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def point_of(figure, data, name):
    """Place, colour and size of a neuron in the data of a frame."""
    at = list(figure.data[0].ids).index(name)
    return data.x[at], data.y[at], data.marker.color[at], data.marker.size[at]


def test_every_neuron_is_the_same_point_in_every_frame(planted):
    figure = moving(planted)
    assert [frame.name for frame in figure.frames] == [str(step) for step in WITH_EFFECTS]
    assert set(figure.data[0].ids) == NAMES
    for index, frame in enumerate(figure.frames):
        neurons, chance = frame.data
        assert chance.x == (CHANCE[STEPS.index(WITH_EFFECTS[index])],) * 2
        for neuron in range(5):
            x, y, *_ = point_of(figure, neurons, f"3.{neuron}")
            rho = RHO[neuron, STEPS.index(WITH_EFFECTS[index])]
            assert (x, y) == (rho, max(LN_MEDIATED[neuron, index], -0.1))
        assert point_of(figure, neurons, "3.5")[:2] == (None, None)


def test_neurons_that_meet_a_rule_at_the_step_are_coloured(planted):
    figure = moving(planted)
    colours = [[point_of(figure, frame.data[0], f"3.{neuron}")[2] for neuron in range(5)] for frame in figure.frames]
    assert colours == [
        [NORMAL] * 5,
        [NORMAL, ENTROPY, NORMAL, FREQUENCY, NORMAL],
        [ENTROPY, ENTROPY, NORMAL, NORMAL, NORMAL],
    ]
    rings = dict(zip(figure.data[0].ids, figure.data[0].marker.line.width, strict=True))
    assert {name for name, width in rings.items() if width} == {"3.0", "3.1"}
    assert figure.data[0].x == figure.frames[-1].data[0].x  # it begins as at the last step


def test_points_grow_with_the_change_of_entropy(tmp_path):
    rows = list(planted_rows())
    rows[2]["entropy_abs_delta"] = np.array([1e-4, 1e-3, 1e-2, 1e-1, 0.0, np.nan])
    figure = moving(write(tmp_path, rows))
    sizes = [point_of(figure, figure.frames[1].data[0], f"3.{neuron}")[3] for neuron in range(6)]
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3] == 18
    assert sizes[4:] == [4, 4]


def test_the_curves_are_those_of_the_track_with_a_line_at_each_event(planted):
    figure = curve_plots(planted)
    ranges = next(trace for trace in figure.data if trace.name == "range")
    np.testing.assert_allclose(ranges.y, [0, 0, 0.6, 0.5, 0.9])
    assert [shape.x0 for shape in figure.layout.shapes] == [0, 1, 2, 3]
    one = [trace for trace in figure.data if trace.name == "3.1"]
    assert [list(trace.customdata) for trace in one] == [STEPS, WITH_EFFECTS, WITH_EFFECTS, STEPS]
    np.testing.assert_array_equal(one[0].y, RHO[1])
    words = [annotation.text for annotation in figure.layout.annotations]
    assert words[0].startswith("accuracy by level of noise ε<br>")
    assert words[-3:] == ["a", "b–e", "f"]


def test_the_page_holds_the_steps_the_neurons_and_the_events(planted, tmp_path):
    path = write_emergence_page(planted, tmp_path / "new" / "folder")
    assert [file.name for file in path.parent.iterdir()] == ["emergence.html"]
    html = path.read_text()
    data = data_of(html)
    assert [step["step"] for step in data["steps"]] == WITH_EFFECTS
    assert [step["label"] for step in data["steps"]] == ["Step 0", "Step 10", "Step 1,000"]
    assert data["marker"] == "shapes[3]"
    frames = data["figures"]["neurons"]["frames"]
    assert [frame["name"] for frame in frames] == ["0", "10", "1000"]
    assert all(len(frame["data"][0]["x"]) == 6 for frame in frames)
    assert set(data["figures"]["neurons"]["data"][0]["ids"]) == NAMES
    assert all(line in html for line in event_lines(planted))
    assert 'max="2" value="2"' in html
    assert "What the entropy neurons were before" in html


def test_the_page_loads_nothing_from_outside(planted, tmp_path):
    planted.facts["model"] = "</script><img src=x onerror=alert(1)>$100"
    html = write_emergence_page(planted, tmp_path).read_text()
    assert html.count("</script>") == 3
    assert "default-src 'none'" in html
    own = re.sub(r"<script>.*?</script>", "", html, count=1, flags=re.DOTALL)  # without Plotly itself
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import|<img|<link""", own)


@pytest.mark.parametrize(
    "rows",
    [
        lambda: planted_rows(effects=False, losses=False),
        lambda: list(planted_rows())[:1],
        lambda: list(planted_rows())[-1:],
        lambda: planted_rows(rho=np.full_like(RHO, np.nan), ln_mediated=np.full_like(LN_MEDIATED, np.nan)),
    ],
    ids=["weights only", "one step", "one late step", "all dead"],
)
def test_the_page_is_written_whatever_was_measured(rows, tmp_path):
    e = write(tmp_path, rows())
    html = write_emergence_page(e, tmp_path).read_text()
    effects = e.neurons["loss_abs_delta"].notna().any()
    assert set(data_of(html)["figures"]) == ({"curves", "neurons"} if effects else {"curves"})
    assert ('id="at"' in html) == effects
    assert ("Effects were not measured" in html) == (not effects)

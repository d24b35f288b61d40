"""The canvas of pictures, their axes and labels, and their files."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from jaxconf.report.style import (
    STYLE,
    canvas,
    floor_of,
    grid_of,
    guide,
    label_points,
    log_axes,
    model_name,
    on_log_axis,
    save_figures,
    short,
    styled,
)


def test_a_canvas_has_the_heading_and_the_panels():
    figure, panels = canvas(r"$\frac$", "Subject", "a note", 2, 3, (6, 4), count=5, sharex=True)
    assert figure.get_suptitle() == "Subject: $\\frac$\na note"
    assert len(panels) == len(figure.axes) == 5
    assert panels[0].get_shared_x_axes().joined(panels[0], panels[4])
    figure.draw_without_rendering()  # a dollar sign is no formula
    assert len(canvas("m", "s", "n")[1]) == 1


@pytest.mark.parametrize(("count", "most", "grid"), [(1, 3, (1, 1)), (3, 3, (1, 3)), (4, 3, (2, 3)), (7, 3, (3, 3))])
def test_a_grid_has_room_for_all_panels(count, most, grid):
    assert grid_of(count, most) == grid


def test_names_are_short_enough_for_a_heading():
    assert short("a" * 36) == "a" * 36
    assert short("b" + "a" * 36) == "…" + "a" * 35
    assert short("abcdef", 4) == "…def"
    assert model_name({"model": "x" * 40}) == "…" + "x" * 35
    assert model_name({}) == "unnamed model"


def test_a_style_holds_only_while_a_picture_is_drawn():
    outside = mpl.rcParams["legend.fontsize"]
    seen = styled(lambda: mpl.rcParams["legend.fontsize"])()
    assert seen == STYLE["legend.fontsize"] != outside == mpl.rcParams["legend.fontsize"]


def test_axes_are_logarithmic_where_there_is_a_positive_value():
    _, (axes,) = canvas("m", "s", "n")
    log_axes(axes, x=pd.Series([0.0, np.nan]), y=pd.Series([0.0, 2.0]))
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")


def test_zeros_and_low_shares_stay_on_the_picture():
    values = pd.Series([0.4, 0.0, np.nan, 2.0])
    assert on_log_axis(values).tolist()[:2] == [0.4, 0.2]
    assert np.isnan(on_log_axis(values)[2])
    assert on_log_axis(pd.Series([0.0])).tolist() == [0.0]
    assert floor_of(pd.Series(np.linspace(-5, 1, 100))) == -1
    assert floor_of(pd.Series([0.5, 0.9])) == -0.1
    assert floor_of(pd.Series([np.nan])) == -1


def test_a_guide_lies_where_it_is_asked_for():
    _, (axes,) = canvas("m", "s", "n")
    guide(axes, x=0.0, y=2.0, width=0.6, line="-")
    upright, level = axes.lines
    assert upright.get_xdata() == [0, 0]
    assert level.get_ydata() == [2, 2]
    assert {line.get_linewidth() for line in axes.lines} == {0.6}


def test_labels_cover_neither_each_other_nor_the_points():
    figure, (axes,) = canvas("m", "s", "n")
    names = [f"3.{n}" for n in range(10)]
    random = np.random.default_rng(0)
    x, y = (pd.Series(random.normal(0.5, 0.02, 10), names) for _ in range(2))
    x["3.3"] = np.nan
    axes.scatter(x, y)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label_points(figure, axes, x, y, names, "red")
    assert [text.get_text() for text in axes.texts] == [name for name in names if name != "3.3"][:8]
    figure.draw_without_rendering()
    boxes = [mpl.text.Text.get_window_extent(text) for text in axes.texts]
    overlaps = sum(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])
    points = axes.transData.transform(np.column_stack([x, y]))
    covered = sum(box.contains(*point) for box in boxes for point in points)
    assert overlaps + covered <= 2  # some room is needed for the most crowded


def test_a_name_beside_its_point_has_no_line_to_it_and_lies_off_the_bars():
    figure, (axes,) = canvas("m", "s", "n")
    x, y = pd.Series([0.4], ["0.8"]), pd.Series([0.5], ["0.8"])
    axes.errorbar(x, y, xerr=[0.35], fmt="none")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label_points(figure, axes, x, y, ["0.8"], "red")
    figure.draw_without_rendering()
    (label,) = axes.texts
    assert label.arrow_patch is None
    box, height = label.get_window_extent(), axes.transData.transform((0, 0.5))[1]
    assert not box.y0 <= height <= box.y1


def test_log_ticks_are_plain_digits_on_a_short_axis():
    figure, (axes,) = canvas("m", "s", "n")
    log_axes(axes, x=pd.Series([0.03, 0.6]), y=pd.Series([1e-6, 1.0]))
    axes.set(xlim=(0.03, 0.6), ylim=(1e-6, 1))
    figure.draw_without_rendering()
    shown = [text.get_text() for text in axes.get_xticklabels() if 0.03 <= text.get_position()[0] <= 0.6]
    assert [words for words in shown if words] == ["0.05", "0.1", "0.2", "0.5"]
    assert all("10^" in tick.get_text() for tick in axes.get_yticklabels() if tick.get_text())


def test_pictures_are_written_whole_or_not_at_all(tmp_path):
    def fail(subject):
        raise OSError("disk full")

    figures = {"first": lambda subject: canvas(subject, "s", "n")[0], "second": fail}
    with pytest.raises(OSError, match="disk full"):
        save_figures(figures, "m", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["first.png"]
    (path,) = save_figures({"first": lambda subject: Figure()}, "m", str(tmp_path / "new"))
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")

    class Half(Figure):
        def savefig(self, file, **_):
            file.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_figures({"first": lambda subject: Half()}, "m", tmp_path / "new")
    assert [(left.name, left.read_bytes()) for left in (tmp_path / "new").iterdir()] == [("first.png", before)]

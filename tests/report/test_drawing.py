"""The report's figures and that of a grid drawn as pictures, whatever the table."""

import pandas as pd
import pytest
from parameters import marked
from planted_table import TABLES, planted_table

from jaxconf.report.figures import FIGURES
from jaxconf.report.style import save_figures
from jaxconf.training.grid_table import OUTCOMES, grid_figure

pytestmark = pytest.mark.command


# The ordinary table is drawn by the next test.
@pytest.mark.parametrize(
    "name", marked(list(TABLES)[1:], quick=["one neuron", "nothing measured", "all zero", "components"])
)
def test_every_figure_is_drawn_whatever_the_table(name):
    table = TABLES[name]()
    for draw in FIGURES.values():
        draw(table).draw_without_rendering()


def test_every_figure_is_saved_as_a_picture(tmp_path):
    paths = save_figures(FIGURES, planted_table(), tmp_path)
    assert [path.name for path in paths] == [
        f"figure_{name}.png"
        for name in ("1", "2a", "2c", "2d", "2e", "3a", "3b", "3c", "2c_means", "3c_means", "nulls")
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert len(list(tmp_path.iterdir())) == 11


def test_a_model_name_is_no_formula():
    table = planted_table()
    table.facts["model"] = r"$\frac$"
    FIGURES["figure_3a"](table).draw_without_rendering()


def test_a_failing_drawing_leaves_no_half_picture(tmp_path):
    def fail(_):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_figures({"one": FIGURES["figure_3a"], "other": fail}, planted_table(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]


def test_the_figure_of_a_grid_is_drawn():
    table = pd.DataFrame({"width": [16, 16, 32], **{key: [0.5, 0.25, None] for key in OUTCOMES}}, dtype=float)
    grid_figure(table, ["width"]).draw_without_rendering()

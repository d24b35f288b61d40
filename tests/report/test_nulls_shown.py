"""Nulls and intervals in the figures of an analysis."""

import numpy as np
import pandas as pd
import pytest
from planted_table import ENTROPY, FREQUENCY, planted_table

from jaxconf.report.figures import FIGURES
from jaxconf.report.plots import plots
from jaxconf.report.shown import exceeded


def test_exceeded_is_the_share_of_values_that_are_at_least_as_large():
    values = pd.Series([0.3, np.nan, -1.0, 0.5, 0.3])
    across, up = exceeded(values)
    assert up[0] == 1
    for value, share in zip(across[[0, 1, 3]], up[[0, 1, 3]], strict=True):
        assert share == (values.dropna() >= value).mean()
    assert [len(x) for x in exceeded(pd.Series(dtype=float))] == [0, 0]


@pytest.mark.parametrize(
    ("name", "x", "y", "kind", "named"),
    [
        ("figure_2e", "rho", "ln_mediated", "entropy", ENTROPY),
        ("figure_3b", "kl_freq_abs_delta", "freq_mediated", "frequency", FREQUENCY),
    ],
)
def test_the_page_shows_the_nulls_behind_and_the_intervals_of_named_neurons(name, x, y, kind, named):
    table = planted_table()
    first, *others = plots(table)[name].data
    assert first.name == "nulls"
    np.testing.assert_array_equal(first.x, table.nulls[x])
    (points,) = (trace for trace in others if trace.legendgroup == kind)
    rows = table.to_pandas().loc[named]
    np.testing.assert_allclose(np.asarray(points.y) + points.error_y.array, rows[f"{y}_hi"])
    np.testing.assert_allclose(np.asarray(points.y) - points.error_y.arrayminus, rows[f"{y}_lo"])


def test_the_curves_of_neurons_and_nulls_end_at_their_largest_shares():
    table = planted_table()
    curves = {(trace.xaxis or "x", trace.name): trace for trace in plots(table)["figure_nulls"].data}
    for axis, column in (("x", "ln_mediated"), ("x2", "freq_mediated")):
        assert curves[axis, "nulls"].x[-1] == table.nulls[column].max()
        assert curves[axis, f"neurons, {column}"].x[-1] == table.frame[column].max()
        assert curves[axis, f"neurons, {column}"].y[-1] == pytest.approx(1 / len(table.frame))


def test_a_table_without_nulls_says_so():
    table = planted_table()
    table.nulls = pd.DataFrame()
    assert "there were no nulls" in FIGURES["figure_nulls"](table).get_suptitle()
    assert plots(table)["figure_2e"].data[0].name == "neurons"

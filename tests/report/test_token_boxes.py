"""The boxes of effects at single positions, against the numbers that they are made from."""

import numpy as np
import pandas as pd
import pytest
from planted_table import ENTROPY, planted_table

from jaxconf.report.figures import FIGURES
from jaxconf.report.plots import plots
from jaxconf.report.shown import boxed, token_boxes


def table_with_changes():
    table = planted_table()
    random = np.random.default_rng(0)
    chosen, rest = boxed(table, "entropy")
    frames = [
        pd.DataFrame({"neuron": name, "loss_abs_delta": random.exponential(scale, 100)})
        for name, scale in zip([*chosen, *rest], [4, 2, 1, 0.5], strict=True)
    ]
    changes = pd.concat(frames, ignore_index=True)
    changes["loss_abs_delta_ln_frozen"] = changes["loss_abs_delta"] / 3
    changes["loss_abs_delta_freq_frozen"] = changes["loss_abs_delta"]
    table.token_changes = changes
    return table


def test_there_is_a_pair_of_boxes_for_each_named_neuron_and_one_for_the_others():
    table = table_with_changes()
    (first, *_), (second, *_), (rest, *_) = groups = token_boxes(table, "entropy")
    assert [first, second, rest] == [*ENTROPY, "2 random others"]
    for _, total, frozen in groups:
        np.testing.assert_allclose(total, 3 * frozen)
    assert [len(total) for _, total, _ in groups] == [100, 100, 200]


@pytest.mark.command
def test_the_figure_and_the_page_show_the_quartiles():
    table = table_with_changes()
    medians = [values.median() for _, *pair in token_boxes(table, "entropy") for values in pair]
    (axes,) = FIGURES["figure_2c"](table).axes
    drawn = [
        line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1 and line.get_color() == "#222b38"
    ]
    assert all(any(np.isclose(median, y) for y in drawn) for median in medians)
    total, frozen = plots(table)["figure_2c"].data
    np.testing.assert_allclose(np.ravel([total.median, frozen.median], order="F"), medians)


def test_without_such_effects_the_means_are_shown():
    table = planted_table()
    assert token_boxes(table, "entropy") == []
    assert "single positions" not in FIGURES["figure_2c"](table).get_suptitle()

"""The figures of a track beside the best possible predictions, and of the order of events."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from planted_track import (
    BEST_ENTROPY,
    ENTROPY,
    LN_MEDIATED,
    STEPS,
    planted_optimum,
    planted_rows,
    write,
    write_in_world,
)

from jaxconf.report.optimum_figures import optimum_sets
from jaxconf.report.style import ENTROPY as RED
from jaxconf.report.style import INK, NORMAL
from jaxconf.training.events_figure import emergence_events
from jaxconf.training.figures import FIGURES, save_emergence_figures
from jaxconf.training.optimum_figures import OF_OPTIMUM, emergence_optimum, emergence_optimum_sets


@pytest.fixture
def planted(tmp_path):
    (tmp_path / "run").mkdir()
    return write_in_world(tmp_path / "run", planted_rows())


def lines_of_colour(axes, colour):
    return [np.array(line.get_data()).T.tolist() for line in axes.lines if line.get_color() == colour]


@pytest.mark.usefixtures("drawn_quickly")
def test_the_figures_of_the_optimum_are_drawn_only_if_it_is_known(planted, tmp_path):
    def names(e, folder):
        return {path.stem for path in save_emergence_figures(e, tmp_path / folder)}

    assert names(planted, "with") == {*FIGURES, *OF_OPTIMUM}
    (tmp_path / "plain").mkdir()
    assert names(write(tmp_path / "plain", planted_rows()), "without") == set(FIGURES)


@pytest.mark.command
def test_the_figures_are_drawn_with_and_without_an_optimum(planted, tmp_path):
    for draw in OF_OPTIMUM.values():
        draw(planted).draw_without_rendering()
    emergence_events(planted).draw_without_rendering()
    (tmp_path / "plain").mkdir()
    emergence_events(write(tmp_path / "plain", planted_rows())).draw_without_rendering()


def test_each_level_has_its_entropy_and_its_best_in_one_colour(planted):
    (axes,) = emergence_optimum(planted).axes
    model = {line.get_label(): line for line in axes.lines if line.get_linestyle() == "-"}
    best = {line.get_color(): line for line in axes.lines if line.get_linestyle() == "--"}
    assert list(model) == ["ε = 0.9", "ε = 0.5", "ε = 0.1"]
    for level, line in enumerate(reversed(model.values())):
        assert line.get_xdata().tolist() == STEPS
        assert line.get_ydata().tolist() == [entropies[level] for entropies in ENTROPY]
        assert best[line.get_color()].get_ydata().tolist() == [BEST_ENTROPY[level]] * 5


def test_the_sets_are_those_of_the_last_step_with_effects(planted):
    figure = emergence_optimum_sets(planted)
    assert "some/model, layer 3, step 1,000\n" in figure.get_suptitle()
    assert "1 entropy neuron ablated together, beside 3 random sets" in figure.get_suptitle()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["entropy set, mean-ablated", "entropy set, doubled"]
    unablated = np.column_stack([BEST_ENTROPY, ENTROPY[-1]])
    for axes, change in zip(figure.axes, (0.5, -0.5), strict=True):
        np.testing.assert_allclose(lines_of_colour(axes, INK), [unablated])
        np.testing.assert_allclose(lines_of_colour(axes, RED), [unablated + np.array([0, change])])
        np.testing.assert_allclose(
            lines_of_colour(axes, NORMAL), [unablated + np.array([0, more]) for more in (0.02, 0.03, 0.04)]
        )
    assert "a perfect model" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_without_sets_only_the_model_is_drawn(planted):
    sets = planted_optimum().query("step == 100")
    figure = optimum_sets(sets, "some model")
    (axes,) = figure.axes
    assert "no neuron was named, so nothing is ablated" in figure.get_suptitle()
    np.testing.assert_allclose(lines_of_colour(axes, INK), [np.column_stack([BEST_ENTROPY, ENTROPY[3]])])
    plt.close(figure)


def test_the_events_stand_in_every_panel_and_in_the_heading(planted):
    figure = emergence_events(planted)
    assert len(figure.axes) == 8
    for axes in figure.axes:
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [1, 10, 100]
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b–e", "f"]
    heading = figure.get_suptitle()
    assert "a  step 1: the first neuron has rho above chance\nb  step 10: the chain is learnt\n" in heading
    assert "in colour: 2 entropy neurons of the last step with effects" in heading
    rho = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("ρ"))
    assert [text.get_text() for text in rho.get_legend().get_texts()] == ["3.1", "3.0"]


def test_without_an_optimum_the_events_have_the_panels_of_the_weights_and_effects(tmp_path):
    figure = emergence_events(write(tmp_path, planted_rows(ln_mediated=LN_MEDIATED / 10)))
    assert [axes.get_title(loc="left").split(",")[0] for axes in figure.axes] == [
        *("smallest singular value / median", "ln_mediated", "number of neurons", "mean |change of entropy|"),
        "ρ",
    ]
    assert "no neuron ever meets the entropy rule, so all are grey" in figure.get_suptitle()

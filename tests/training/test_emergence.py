"""What is measured over a training run: the file, when neurons meet a criterion, calibration, figures and summary."""

import dataclasses
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from matplotlib.colors import to_rgba
from parameters import marked
from planted_table import planted_table
from planted_track import CHANCE, FACTS, LN_MEDIATED, NEURONS, RHO, STEPS, WEIGHTS, WITH_EFFECTS, planted_rows, write
from refusals import check_error

from jaxconf.analysis.calibration import expected_calibration_error
from jaxconf.analysis.emergence import first_steps
from jaxconf.report.style import ENTROPY, FREQUENCY, NORMAL
from jaxconf.training import figures as emergence_figures
from jaxconf.training.emergence import FILE, Emergence, append
from jaxconf.training.events import event_lines
from jaxconf.training.figures import (
    FIGURES,
    emergence_first,
    emergence_rho,
    emergence_series,
    emergence_spectrum,
    save_emergence_figures,
)
from jaxconf.training.summary import summary_lines

PANELS = [
    "loss, nats per token",
    "mean entropy of predictions, nats",
    "expected calibration error (0 to 1)",
    "‖w_out‖: median, 5% to 95%",
    "LogitVar: median, 5% to 95%",
    "largest ln_mediated",
    "of 6 neurons",
]


def without_effect_columns(rows):
    return ({name: value for name, value in row.items() if name not in NEURONS or name in WEIGHTS} for row in rows)


TRACKS = {
    "ordinary": planted_rows,
    "weights only": lambda: planted_rows(effects=False, losses=False),
    "no columns of effects": lambda: without_effect_columns(planted_rows(effects=False, losses=False)),
    "one step": lambda: list(planted_rows())[:1],
    "one late step": lambda: list(planted_rows())[-1:],
    "all dead": lambda: planted_rows(rho=np.full_like(RHO, np.nan), ln_mediated=np.full_like(LN_MEDIATED, np.nan)),
}
each_track = pytest.mark.parametrize("rows", TRACKS.values(), ids=TRACKS.keys())


@pytest.fixture
def planted(tmp_path):
    (tmp_path / "run").mkdir()
    return write(tmp_path / "run", planted_rows())


def words(figure):
    return " ".join([figure.get_suptitle(), *(text.get_text() for axes in figure.axes for text in axes.texts)])


def named_lines(axes):
    """Label → data [2 S] of the lines in an axes that have a label."""
    return {line.get_label(): np.array(line.get_data()) for line in axes.lines if not line.get_label().startswith("_")}


def lines_of_colour(axes, colour):
    return np.array([line.get_ydata() for line in axes.lines if line.get_color() == colour])


# The file.


def test_what_is_appended_is_loaded_again(planted, tmp_path):
    assert planted.facts == FACTS
    assert planted.steps["step"].tolist() == STEPS
    assert planted.steps["loss"].tolist() == [5, 4, 3, 2, 1]
    np.testing.assert_array_equal(planted.singular_values[1], np.geomspace(8, 1, 5) / 2)
    assert list(planted.neurons)[:2] == ["step", "neuron"]
    assert planted.neurons["neuron"].tolist() == list(range(6)) * 5
    np.testing.assert_array_equal(planted.neurons["rho"], RHO.T.ravel())
    by_step = planted.neurons.set_index("step")
    np.testing.assert_array_equal(by_step.loc[10, "ln_mediated"], LN_MEDIATED[:, 1])
    assert by_step.loc[10, "is_entropy_neuron"].tolist() == [False, True, False, False, False, False]
    assert by_step.loc[100, "ln_mediated"].isna().all()
    assert not by_step.loc[100, "is_entropy_neuron"].any()
    assert by_step["is_entropy_neuron"].dtype == bool


def test_a_resumed_run_replaces_the_steps_it_measures_again(planted, tmp_path):
    row = {**list(planted_rows())[2], "loss": 9.0}
    append(tmp_path / "run", row, {**FACTS, "k": 3})
    again = Emergence.load(tmp_path / "run")
    assert again.steps["step"].tolist() == [0, 1, 10]
    assert again.steps["loss"].tolist() == [5, 4, 9]
    assert len(again.neurons) == 18
    assert again.facts["k"] == 3
    assert [path.name for path in (tmp_path / "run").iterdir()] == [FILE]


def test_the_folder_and_the_file_load_alike(planted, tmp_path):
    from_file = Emergence.load(str(tmp_path / "run" / FILE))
    assert from_file.steps.equals(planted.steps)
    assert from_file.neurons.equals(planted.neurons)


def test_a_file_that_is_no_track_is_refused(planted, tmp_path):
    check_error(lambda: Emergence.load(tmp_path / "nowhere"), "nowhere does not exist", "tracked training run")
    check_error(lambda: Emergence.load(tmp_path), f"{FILE} does not exist")
    (tmp_path / "text").write_text("no parquet")
    (tmp_path / "empty").touch()
    planted.steps.to_parquet(tmp_path / "foreign")
    planted_table().save(tmp_path / "analysis")
    for name in ("text", "empty", "foreign", "analysis/neurons.parquet"):
        check_error(
            lambda name=name: Emergence.load(tmp_path / name),
            f"{name} is not a track of jaxconf",
            "tracked training run",
        )
    pq.write_table(pq.read_table(tmp_path / "run" / FILE).slice(0, 0), tmp_path / "rowless")
    check_error(lambda: Emergence.load(tmp_path / "rowless"), "rowless holds no measured step")


# The analysis.


@given(npst.arrays(bool, st.tuples(st.integers(1, 8), st.integers(0, 5))), st.data())
def test_first_steps_are_those_of_a_loop(holds, data):
    steps = sorted(data.draw(st.sets(st.integers(0, 10**6), min_size=len(holds), max_size=len(holds))))
    expected = [
        next((float(step) for step, held in zip(steps, column, strict=True) if held), np.nan) for column in holds.T
    ]
    np.testing.assert_array_equal(first_steps(np.array(steps), holds), expected)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 20))
def test_calibration_error_is_that_of_its_definition(predictions, bins):
    error = 0.0
    for index in range(bins):
        inside = [(c, y) for c, y in predictions if index <= c * bins < index + 1 or (c == 1 and index == bins - 1)]
        if inside:
            confidence, accuracy = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            error += len(inside) / len(predictions) * abs(accuracy - confidence)
    confidence, correct = map(np.array, zip(*predictions, strict=True))
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(error, abs=1e-12)


def test_a_calibrated_model_has_no_error_and_a_sure_wrong_one_all_of_it():
    confidence = np.repeat([0.25, 0.75], 4)
    correct = np.array([1, 0, 0, 0, 1, 1, 1, 0], bool)
    assert expected_calibration_error(confidence, correct) == pytest.approx(0)
    assert expected_calibration_error(np.ones(3), np.zeros(3, bool)) == 1


# The figures.


@pytest.mark.command
@pytest.mark.parametrize(
    ("name", "track"),
    marked(
        itertools.product(FIGURES, TRACKS),
        quick=[  # the ordinary ones are drawn where they are saved
            ("emergence_spectrum", "one late step"),
            ("emergence_rho", "one step"),
            ("emergence_first", "all dead"),
            ("emergence_series", "weights only"),
        ],
    ),
)
def test_every_figure_is_drawn_whatever_was_measured(name, track, tmp_path):
    e = write(tmp_path, TRACKS[track]())
    e.facts["model"] = r"$\frac$"
    figure = FIGURES[name](e)
    figure.draw_without_rendering()
    assert r"$\frac$, layer 3" in figure.get_suptitle()


@each_track
def test_every_figure_is_made_whatever_was_measured(rows, tmp_path):
    e = write(tmp_path, rows())
    for name, figure in FIGURES.items():
        made = figure(e)
        assert "some/model, layer 3" in made.get_suptitle(), name
        assert made.axes, name
        plt.close(made)


@pytest.mark.command
def test_every_figure_is_saved(planted, tmp_path):
    paths = save_emergence_figures(planted, tmp_path / "new" / "folder")
    names = [f"emergence_{name}.png" for name in ("spectrum", "rho", "first", "series", "events")]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(names)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_a_failing_drawing_leaves_no_half_figure(planted, tmp_path, monkeypatch):
    def fail(_):
        raise OSError("disk full")

    monkeypatch.setitem(emergence_figures.FIGURES, "emergence_rho", fail)
    with pytest.raises(OSError, match="disk full"):
        save_emergence_figures(planted, tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["emergence_spectrum.png"]


def test_the_spectrum_shows_the_null_space_apart(planted):
    (axes,) = emergence_spectrum(planted).axes
    np.testing.assert_array_equal(lines_of_colour(axes, ENTROPY), planted.singular_values[:, 3:].T)
    np.testing.assert_array_equal(lines_of_colour(axes, NORMAL), planted.singular_values[:, :3].T)
    assert all(line.get_xdata().tolist() == STEPS for line in axes.lines)
    assert "the 2 smallest of 5 singular values" in axes.figure.get_suptitle()


def test_the_step_axis_is_logarithmic_and_shows_step_0(planted):
    (axes,) = emergence_spectrum(planted).axes
    axes.figure.draw_without_rendering()
    assert axes.get_xlim()[0] < 0
    assert axes.get_xlim()[1] > 1000
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "10", "100", "1k"]
    places = axes.transData.transform([(step, 1.0) for step in STEPS])[:, 0]
    np.testing.assert_allclose(np.diff(places)[1:], np.diff(places)[-1])
    assert places[1] - places[0] > 10


def test_a_zero_singular_value_is_no_point_of_a_log_axis(tmp_path):
    rows = list(planted_rows())
    rows[4]["singular_values"] = np.array([4.0, 3.0, 2.0, 1.0, 0.0])
    (axes,) = emergence_spectrum(write(tmp_path, rows)).axes
    np.testing.assert_array_equal(lines_of_colour(axes, ENTROPY)[-1][-2:], [0.25, np.nan])
    assert axes.get_ylim()[0] > 0


def test_rho_is_drawn_for_every_neuron_beside_chance_and_entropy_neurons_by_name(planted):
    figure = emergence_rho(planted)
    (axes,) = figure.axes
    np.testing.assert_array_equal(lines_of_colour(axes, NORMAL), RHO)
    lines = named_lines(axes)
    assert list(lines) == ["chance", "3.1", "3.0", "entropy rule met"]
    np.testing.assert_array_equal(lines["chance"], [STEPS, CHANCE])
    np.testing.assert_array_equal(lines["3.1"], [STEPS, RHO[1]])
    np.testing.assert_array_equal(lines["3.0"], [STEPS, RHO[0]])
    np.testing.assert_array_equal(lines["entropy rule met"], [[10, 1000, 1000], [0.7, 0.6, 0.8]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(lines)
    assert figure.get_suptitle().endswith("\n2 entropy neurons")


@pytest.mark.parametrize(
    ("change", "named", "note"),
    [
        (
            {"ln_mediated": LN_MEDIATED / 10},
            ["3.3", "3.1", "3.0"],
            "no neuron meets the entropy rule; named: largest final ln_mediated",
        ),
        ({"effects": False}, ["3.3", "3.1", "3.0"], "effects were not measured; named: largest final rho"),
        ({"rho": RHO / 10}, [], "no neuron meets the entropy rule; none is above chance at the end"),
    ],
)
def test_without_entropy_neurons_the_nearest_are_named(change, named, note, tmp_path):
    ln_mediated = change.get("ln_mediated", LN_MEDIATED).copy()
    ln_mediated[2, 2] = 0.0  # neuron 2 is above chance, and by this the least of the four in both respects
    figure = emergence_rho(write(tmp_path, planted_rows(**{**change, "ln_mediated": ln_mediated})))
    assert list(named_lines(figure.axes[0])) == ["chance", *named]
    assert note in figure.get_suptitle()


def test_first_steps_are_placed_by_both_criteria(planted):
    figure = emergence_first(planted)
    axes, sums = figure.axes
    never = 4000
    red = {
        tuple(dots.get_offsets()[0])
        for dots in axes.collections
        if dots.get_facecolor()[0][:3].tolist() == list(to_rgba(ENTROPY)[:3])
    }
    every = {tuple(dots.get_offsets()[0]) for dots in axes.collections}
    assert red == {(10, 1000), (10, 10)}
    assert every - red == {(10, 0), (1000, never), (never, 10)}
    assert (
        "both: 3 (ρ first 1, same step 1, ln_mediated first 1), only ρ: 1, only ln_mediated: 1, of 6 neurons"
        in words(figure)
    )
    assert "with measured effects (3)" in words(figure)
    assert {"3.0", "3.1", "ρ first: 1", "ln_mediated first: 1"} == {text.get_text() for text in axes.texts}
    assert "no neuron meets" not in words(figure)
    assert axes.get_xticklabels()[-1].get_text() == axes.get_yticklabels()[-1].get_text() == "never"
    lines = named_lines(sums)
    assert all(line[0].tolist() == WITH_EFFECTS for line in lines.values())
    assert {label: line[1].tolist() for label, line in lines.items()} == {
        "ρ above chance: 4": [0, 3, 4],
        "ln_mediated ≥ 0.3: 4": [1, 3, 4],
        "entropy rule: 2": [0, 1, 2],
        "frequency rule: 1": [0, 1, 1],
    }


def test_neurons_at_one_point_are_counted_there(tmp_path):
    axes = emergence_first(
        write(tmp_path, planted_rows(rho=RHO[[3, 3, 3, 3, 4, 5]], ln_mediated=LN_MEDIATED / 10))
    ).axes[0]
    assert [dots.get_offsets()[0].tolist() for dots in axes.collections] == [[1000, 4000]]
    assert [(text.get_text(), text.get_position()) for text in axes.texts if text.get_text() == "4"] == [
        ("4", (1000, 4000))
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rho": RHO / 10, "ln_mediated": LN_MEDIATED / 10}, "no neuron meets either criterion"),
        ({"ln_mediated": LN_MEDIATED / 10}, "no neuron meets both criteria"),
        ({"effects": False}, "effects were not measured"),
    ],
)
def test_the_figure_of_first_steps_says_what_it_lacks(change, sentence, tmp_path):
    figure = emergence_first(write(tmp_path, planted_rows(**change)))
    assert sentence in words(figure)
    assert "ρ first: " not in [text.get_text()[:9] for text in figure.axes[0].texts]


def test_without_effects_all_steps_are_judged(tmp_path):
    axes, sums = emergence_first(write(tmp_path, planted_rows(effects=False))).axes
    assert {tuple(dots.get_offsets()[0]) for dots in axes.collections} == {(1, 4000), (10, 4000), (100, 4000)}
    assert {label: line.tolist() for label, line in named_lines(sums).items()} == {
        "ρ above chance: 4": [STEPS, [0, 1, 3, 4, 4]]
    }


def test_series_show_what_was_measured(planted):
    panels = {axes.get_title(loc="left"): axes for axes in emergence_series(planted).axes}
    assert list(panels) == PANELS
    data = [named_lines(axes) for axes in panels.values()]
    expected = [
        {"training": [STEPS[1:], [4.1, 3.1, 2.1, 1.1]], "held-out": [STEPS, [5, 4, 3, 2, 1]]},
        {"entropy": [STEPS, [4.5, 3.5, 2.5, 1.5, 0.5]]},
        {"ece": [STEPS, [0, 0.1, 0.2, 0.3, 0.4]]},
        {"median": [STEPS, [2.5, 3.5, 4.5, 5.5, 6.5]]},
        {"median": [STEPS, [0.025, 1.025, 2.025, 3.025, 4.025]]},
        {"of all neurons": [WITH_EFFECTS, [0.45, 0.9, 0.5]], "of those above chance": [WITH_EFFECTS[1:], [0.4, 0.5]]},
        {
            "above chance": [STEPS, [0, 1, 3, 4, 4]],
            "entropy rule": [WITH_EFFECTS, [0, 1, 2]],
            "frequency rule": [WITH_EFFECTS, [0, 1, 0]],
        },
    ]
    for found, wanted in zip(data, expected, strict=True):
        assert found.keys() == wanted.keys()
        for name, line in wanted.items():
            np.testing.assert_allclose(found[name], line)
    assert panels["of 6 neurons"].lines[2].get_color() == FREQUENCY


def test_the_band_of_the_norms_is_of_quantiles(planted):
    axes = emergence_series(planted).axes[PANELS.index("‖w_out‖: median, 5% to 95%")]
    corners = axes.collections[0].get_paths()[0].vertices
    last = corners[corners[:, 0] == 1000, 1]
    assert (last.min(), last.max()) == pytest.approx((4.25, 8.75))


@pytest.mark.parametrize("track", ["weights only", "no columns of effects"])
def test_what_was_not_measured_has_no_panel(track, tmp_path):
    figure = emergence_series(write(tmp_path, TRACKS[track]()))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [PANELS[3], PANELS[4], PANELS[6]]
    assert list(named_lines(figure.axes[2])) == ["above chance"]


# The summary.


def test_the_summary_tells_what_was_planted(planted):
    assert summary_lines(planted) == [
        "Measured steps: 5, the last 1,000; with effects: 3.",
        "Neurons with rho above chance at the end: 4 of 6; the first rose above it at step 1.",
        "Largest ln_mediated: 0.9, of neuron 3.4 at step 10, whose rho is not above chance there.",
        "2 entropy neurons at one step or more; the first step of each: 3.1 (step 10), 3.0 (step 1,000).",
        "1 frequency neuron at one step or more; the first step of each: 3.3 (step 10).",
        "Neurons that met both criteria, rho above chance and ln_mediated ≥ 0.3: 3; 1 met the one for rho first, 1 the "
        "one for ln_mediated, 1 both at once.",
        *event_lines(planted),
    ]


def test_the_summary_is_as_short_as_what_was_measured(tmp_path):
    e = write(tmp_path, planted_rows(effects=False, rho=RHO / 10))
    assert summary_lines(e) == [
        "Measured steps: 5, the last 1,000; with effects: 0.",
        "Neurons with rho above chance at the end: 0 of 6; none was above it at any step.",
        "No neuron ever has rho above chance.",
        "The null space never opens.",
    ]


def test_the_summary_states_the_token_counts_and_doubts_too_few(planted):
    about = {"counts": "a.npy", "counts_tokens": 4096, "counts_types": 99, "counts_smoothing": "add-one"}

    def lines(cosine: float) -> list[str]:
        facts = planted.facts | about | {"counts_cosine": cosine}
        return summary_lines(dataclasses.replace(planted, facts=facts))

    *others, stated, doubt = lines(0.42)
    assert all(part in stated for part in ("a.npy", "4,096 tokens of 99 types", "add-one smoothing", "0.420"))
    assert all(part in doubt for part in ("uncertain", "4,096 tokens", "0.42"))
    assert lines(0.9) == [*others, lines(0.9)[-1]]


@each_track
def test_the_summary_is_written_whatever_was_measured(rows, tmp_path):
    lines = summary_lines(write(tmp_path, rows()))
    assert len(lines) >= 2
    assert not any("nan" in line for line in lines)

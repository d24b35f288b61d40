"""The order of events in a track: each event against a track in which it is planted, and the neurons that are followed.

Letters: S measured step, n neuron.
"""

import dataclasses

import numpy as np
import pytest
from planted_track import LN_MEDIATED, RHO, STEPS, planted_rows, write, write_in_world

from jaxconf.training.events import DEFINITIONS, NEVER, WORDS, event_lines, events, followed, followed_neurons
from jaxconf.training.summary import summary_lines


@pytest.fixture
def planted(tmp_path):
    return write_in_world(tmp_path, planted_rows())


def with_values(e, level, step, **values):
    """The track with other unablated predictions at a level and a step."""
    optimum = e.optimum.copy()
    here = (optimum["level"] == level) & (optimum["step"] == step) & (optimum["kind"] == "none")
    assert here.sum() == 1
    for name, value in values.items():
        optimum.loc[here, name] = value
    return dataclasses.replace(e, optimum=optimum)


def with_smallest(e, values):
    """The track with other smallest singular values [S], where the median is 1."""
    return dataclasses.replace(e, singular_values=np.column_stack([np.full(5, 2), np.ones(5), np.array(values)]))


def step_of(e, name):
    return events(e).loc[name, ["step", "after", "judged"]].tolist()


def test_every_event_has_its_words(planted):
    assert list(events(planted).index) == list(WORDS) == list(NEVER) == list(DEFINITIONS)


def test_the_chain_is_learnt_at_the_planted_accuracy_of_the_lowest_level(planted):
    assert step_of(planted, "chain") == [10, 1, 5]
    assert step_of(with_values(planted, 0, 1, accuracy=0.81), "chain") == [1, 0, 5]
    assert step_of(with_values(planted, 1, 1, accuracy=0.99), "chain") == [10, 1, 5]


def test_the_levels_are_separated_where_the_entropies_rise_over_half_the_best_range(planted):
    assert step_of(planted, "levels") == [100, 10, 5]
    assert step_of(with_values(planted, 1, 10, entropy=2.5), "levels") == [10, 1, 5]  # they rise, by 1.2 of 2
    assert step_of(with_values(planted, 2, 100, entropy=2.99), "levels") == [1000, 100, 5]  # by less than 1 of 2


def test_the_first_neuron_rises_above_chance_at_any_step(planted):
    assert step_of(planted, "rho") == [1, 0, 5]


def test_the_norm_mediates_only_for_a_neuron_above_chance_at_a_step_with_effects(planted, tmp_path):
    assert step_of(planted, "mediation") == [10, 0, 3]  # at step 0 neuron 2 has a large share, but no rho
    (tmp_path / "low").mkdir()
    ln_mediated = LN_MEDIATED.copy()
    ln_mediated[1, 1] = 0.29
    assert step_of(write(tmp_path / "low", planted_rows(ln_mediated=ln_mediated)), "mediation") == [1000, 10, 3]


def test_named_neurons_come_at_the_first_step_at_which_a_rule_is_met(planted):
    assert step_of(planted, "entropy") == [10, 0, 3]
    assert step_of(planted, "frequency") == [10, 0, 3]


def test_the_null_space_opens_below_half_of_the_first_share(planted):
    assert step_of(with_smallest(planted, [0.4, 0.3, 0.2, 0.19, 0.3]), "null_space") == [100, 10, 5]
    scaled = with_smallest(planted, [0.4, 0.3, 0.2, 0.19, 0.3])
    scaled = dataclasses.replace(scaled, singular_values=scaled.singular_values * np.array([[1, 9, 2, 5, 3]]).T)
    assert step_of(scaled, "null_space") == [100, 10, 5]


def test_what_never_happens_has_no_step(tmp_path):
    never = [np.nan, np.nan]
    e = write_in_world(tmp_path, planted_rows(rho=RHO / 10, ln_mediated=LN_MEDIATED / 10))
    optimum = e.optimum.assign(accuracy=0.1, entropy=1.0)
    found = events(dataclasses.replace(e, optimum=optimum)).drop("frequency")
    np.testing.assert_array_equal(found[["step", "after"]], [never] * 6)
    assert found["judged"].tolist() == [5, 5, 5, 5, 3, 3]


def test_what_was_not_measured_is_not_judged(tmp_path):
    found = events(write(tmp_path, planted_rows(effects=False)))
    assert found["judged"].to_dict() == {
        **{"chain": 0, "levels": 0, "rho": 5, "null_space": 5},
        **{"mediation": 0, "entropy": 0, "frequency": 0},
    }
    assert found["step"].notna().sum() == 1


def test_an_event_that_holds_from_the_first_step_on_is_after_none(tmp_path):
    found = events(write(tmp_path, planted_rows(rho=RHO + 1)))
    assert found.loc["rho", "step"] == 0
    assert np.isnan(found.loc["rho", "after"])


def test_the_summary_tells_the_events_in_order(planted):
    lines = event_lines(planted)
    assert lines == [
        "Step 1: the first neuron has rho above chance (not yet at step 0).",
        "Step 10: the chain is learnt (not yet at step 1).",
        "Step 10: the first neuron with rho above chance acts through the norm (not yet at step 0).",
        "Step 10: the first neuron meets the entropy rule (not yet at step 0).",
        "Step 10: the first neuron meets the frequency rule (not yet at step 0).",
        "Step 100: the entropies separate the levels of noise (not yet at step 10).",
        "The null space never opens.",
    ]
    said = summary_lines(planted)
    assert [line for line in said if line in lines] == lines
    assert any(line.startswith("The best possible predictions have a loss of 2 nats") for line in said)
    assert any(line.startswith("With 1 entropy neuron mean-ablated, ") for line in said)


def test_final_entropy_neurons_are_followed_by_identity(planted):
    assert followed_neurons(planted) == (["3.1", "3.0"], True)
    found = followed(planted)
    assert found["neuron"].tolist() == ["3.1"] * 5 + ["3.0"] * 5
    assert found["step"].tolist() == STEPS * 2
    np.testing.assert_array_equal(found["rho"], [*RHO[1], *RHO[0]])
    assert found["above_chance"].tolist() == [False, False, True, True, True, False, True, True, True, True]
    np.testing.assert_array_equal(found["ln_mediated"][:5], [0, np.nan, 0.4, np.nan, 0.4])
    np.testing.assert_array_equal(found["temperature_r2"], [0.1] * 5 + [0.0] * 5)
    assert found["is_entropy_neuron"].tolist() == [False, False, True, False, True, False, False, False, False, True]


def test_neurons_that_were_entropy_neurons_are_followed_if_none_is_at_the_end(tmp_path):
    ln_mediated = LN_MEDIATED.copy()
    ln_mediated[:2, 2] = 0.0
    assert followed_neurons(write(tmp_path, planted_rows(ln_mediated=ln_mediated))) == (["3.1"], False)


@pytest.mark.parametrize("change", [{"effects": False}, {"ln_mediated": LN_MEDIATED / 10}])
def test_without_entropy_neurons_none_is_followed(change, tmp_path):
    assert followed(write(tmp_path, planted_rows(**change))).empty

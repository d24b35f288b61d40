"""The tables of the study of emergence, and how it judges what was expected."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from emergence_questions import QUESTIONS, Cell
from emergence_study import held, kept_section, line, rewritten, settings, summary, through_norm
from emergence_unnormed import measured

from jaxconf.analysis.unembedding import Spectrum
from jaxconf.results.optimum import ABLATED, ABLATED_FROZEN, UNABLATED
from jaxconf.training.config import TrackConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.run import check

BASE = pd.DataFrame({"entropy": [3, 4, 5, 6, 3, 4, 5, 6]})


def seeds(*entropy: int) -> pd.DataFrame:
    return pd.DataFrame({"entropy": entropy})


@pytest.mark.parametrize(
    ("expected", "entropy", "said"),
    [
        ("some", (0, 0, 0, 0, 1, 1, 1, 1), "yes"),
        ("some", (0, 0, 0, 0, 0, 1, 1, 1), "no"),
        ("none", (0,) * 8, "yes"),
        ("none", (0, 0, 0, 0, 0, 0, 0, 1), "no"),
        ("more", (9,) * 8, "yes"),
        ("more", (0,) * 8, "no, the opposite"),
        ("more", (3, 4, 5, 6, 3, 4, 5, 6), "not shown"),
        ("fewer", (0,) * 8, "yes"),
        ("fewer", (9,) * 8, "no, the opposite"),
        ("same", (3, 4, 5, 6, 3, 4, 5, 6), "not contradicted"),
        ("same", (0,) * 8, "no"),
    ],
)
def test_what_was_expected_is_judged_by_the_seeds(expected, entropy, said):
    assert held(Cell("cell", expected), seeds(*entropy), BASE).partition(" (p = ")[0] == said


def test_a_row_has_every_seed_and_the_exact_interval():
    found = pd.DataFrame({"entropy": [0, 2], "frequency": [1, 0], "above_chance": [3, 5], "through_norm": [None, 0.5]})
    found = found.assign(first_step=[None, 630.0], excess_loss=[0.1, 0.3])
    cells = line(Cell("a cell", "none"), found, BASE).strip("| ").split(" | ")
    assert cells[:8] == ["a cell", "1 of 2 (0.01–0.99)", "0, 2", "1, 0", "–, 630", "4", "–, 0.50", "0.200"]
    assert cells[8].endswith("**no**")


def test_the_share_that_passes_the_norm_is_what_vanishes_when_it_is_frozen():
    rows = [(UNABLATED, "none", level, 1.0) for level in (0, 1)]
    rows += [(ABLATED, "set", 0, 1.4), (ABLATED, "set", 1, 0.8), (ABLATED, "random", 0, 9.0)]
    rows += [(ABLATED_FROZEN, "set", 0, 1.0), (ABLATED_FROZEN, "set", 1, 0.85)]
    optimum = pd.DataFrame(rows, columns=["how", "kind", "level", "entropy"]).assign(step=7, set="entropy")
    e = Emergence(pd.DataFrame({"step": [0, 7]}), pd.DataFrame(), None, {}, optimum)
    assert through_norm(e) == pytest.approx(1 - 0.15 / 0.6)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_setting_can_be_trained(question):
    for cell in question.cells:
        config, world = settings(cell)
        check(config, TrackConfig(), 250)
        assert config.vocab_size == len(world.tokens)


def test_a_table_in_a_page_is_written_anew_between_its_markers():
    text = "before\n<!-- a -->\nold\n<!-- b -->\nafter\n"
    anew = rewritten(text, "<!-- a -->", "<!-- b -->", ["| x |", "| y |"])
    assert anew == "before\n<!-- a -->\n\n| x |\n| y |\n\n<!-- b -->\nafter\n"
    assert rewritten(anew, "<!-- a -->", "<!-- b -->", ["| x |", "| y |"]) == anew
    with pytest.raises(AssertionError, match="no lines"):
        rewritten("without markers", "<!-- a -->", "<!-- b -->", [])


def test_the_short_table_keeps_the_rows_of_settings_that_were_not_run():
    some, none = seeds(1, 0, 2, 3), seeds(0, 0, 0, 0)
    earlier = "## What was found\n\n| base | 1 of 1 | yes |\n| tied: untied | 2 of 2 | no |\n"
    shown = summary({"base": {"base": some}, "range": {"one ε": none}}, earlier)
    assert [row.split(" | ")[:2] for row in shown[2:]] == [
        ["| base", "3 of 4 (0.19–0.99)"],
        ["| range: one ε", "0 of 4 (0.00–0.60)"],
        ["| tied: untied", "2 of 2"],
    ]


def test_a_section_that_was_not_measured_anew_is_kept_as_it_was():
    text = "# page\n\n## first\n\n| a |\n\n## second\n\nwords\n\n| b |\n"
    assert kept_section(text, "## first") == ["", "## first", "", "| a |"]
    assert kept_section(text, "## second") == ["", "## second", "", "words", "", "| b |"]
    assert kept_section(text, "## third") == kept_section(text, "## fir") == []


def test_how_many_neurons_share_the_work_of_an_unnormed_model(tmp_path, monkeypatch):
    """One neuron alone, and all as much; the write of neuron 0 lies in the largest singular direction."""
    config = SimpleNamespace()
    vectors = np.eye(12)
    writes = np.eye(12)[[0, 11, 11, 11, 11, 11]]
    monkeypatch.setattr("emergence_unnormed.jaxconf.load", lambda _: SimpleNamespace(config=config, params=None))
    monkeypatch.setattr("emergence_unnormed.readout", lambda *_: SimpleNamespace(w_out=writes))
    monkeypatch.setattr("emergence_unnormed.spectrum", lambda *_: Spectrum(np.ones(12), vectors))
    for change, sharing in (([1.0, 0, 0, 0, 0, 0], 1), ([0.2] * 6, 6)):
        neurons = pd.DataFrame({"step": 7, "entropy_abs_delta": change, "cos_freq": -0.5, "temperature_r2": 0.3})
        neurons = neurons.assign(rho=0.1, logit_var=0.02)
        e = Emergence(pd.DataFrame({"step": [7], "rho_chance": [0.4]}), neurons, None, {})
        monkeypatch.setattr("emergence_unnormed.Emergence.load", lambda _, e=e: e)
        found = measured(tmp_path)
        assert found["sharing"] == pytest.approx(sharing)
        assert (found["chance"], found["cos_freq"], found["logit_var"]) == (0.4, 0.5, 1)
        assert (found["largest"], found["of_all"]) == (0, 0)  # medians: of six writes only one lies there

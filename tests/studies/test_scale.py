"""The page that compares many analyses: tables with planted neurons, as if of models of several sizes and steps."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_table import ENTROPY, FREQUENCY, planted_table

from jaxconf.results.neuron_table import NeuronTable
from jaxconf.studies.scale.figures import against_scale, against_steps, line_colours, ranges
from jaxconf.studies.scale.page import scale_page
from jaxconf.studies.scale.summary import METRICS, named_neurons, summaries

SIZES, STEPS = {"a/small": 14_000_000, "a/large": 2_800_000_000}, (0, 1000, 143000)


def analyses() -> tuple[dict[str, NeuronTable], dict[str, float]]:
    """Two models at three steps with two ablations; the neurons are planted from step 1000 on."""
    tables, steps = {}, {}
    for model, size in SIZES.items():
        for step in STEPS:
            for ablation in ("mean", "zero"):
                table = planted_table(plant=step > 0)
                table.facts |= {"model": model, "revision": f"step{step}", "data": "text", "ablation": ablation}
                table.facts |= {"parameters": size, "loss": 9.0 - np.log10(1 + step)}
                name = f"{len(tables):04d}-{model[2:]}"
                tables[name], steps[name] = table, float(step)
    return tables, steps


@pytest.fixture(scope="module")
def found() -> tuple[pd.DataFrame, pd.DataFrame]:
    tables, steps = analyses()
    of = summaries(tables, steps)
    return of, named_neurons(tables, of)


def test_a_summary_says_what_was_planted(found: Any) -> None:
    of, _ = found
    later = of[of["step"] > 0]
    assert (later["entropy neurons"] == len(ENTROPY)).all()
    assert (later["frequency neurons"] == len(FREQUENCY)).all()
    assert (later["largest rho"] == 0.8).all()
    assert (later["largest ln_mediated"] == 0.6).all()
    first = of[of["step"] == 0]
    assert (first[["entropy neurons", "frequency neurons"]] == 0).all(axis=None)
    assert first["largest ln_mediated"].isna().all()  # no rho is above chance


def test_named_neurons_are_followed_to_where_they_are_not_named(found: Any) -> None:
    _, named = found
    assert set(named["neuron"]) == {*ENTROPY, *FREQUENCY}
    counts = named.groupby(["model", "ablation", "kind", "neuron"])["named"].agg(["sum", "size"])
    assert (counts["sum"] == 2).all()
    assert (counts["size"] == 3).all()
    assert (named["named"] == (named["step"] > 0)).all()


def test_figures_have_a_line_for_all_that_is_different(found: Any) -> None:
    of, _ = found
    scale, steps = against_scale(of), against_steps(of)
    assert list(scale) == list(METRICS)
    for metric, figure in scale.items():
        assert len(figure.data) == 2 * 3  # ablations, steps
        assert all(list(line.x) == sorted(SIZES.values()) for line in figure.data)
        for line in figure.data:
            where = (of[list(line.meta["where"])] == pd.Series(line.meta["where"])).all(axis=1)
            np.testing.assert_allclose(
                np.array(line.y, float), of[where].sort_values("parameters")[metric], rtol=1e-3, atol=1e-6
            )
    assert list(steps) == list(SIZES)
    for model, figure in steps.items():
        assert len(figure.data) == 2
        assert {line.line.color for line in figure.data} == set(line_colours(of).values())
        for line in figure.data:
            assert np.all(np.diff(line.x) > 0)
            assert line.meta["where"]["model"] == model
            assert list(line.y) == line.meta["values"]["entropy neurons"] == [0, 2, 2]
            np.testing.assert_allclose(line.meta["values"]["loss"], 9 - np.log10(1 + np.array(STEPS)), rtol=1e-3)
    for metric, (low, high) in ranges(of).items():
        assert low < of[metric].min() <= of[metric].max() < high


def test_what_there_is_only_one_of_is_not_drawn(found: Any) -> None:
    of, _ = found
    assert against_scale(of[of["model"] == "a/small"]) == {}
    assert against_scale(of.assign(parameters=np.nan)) == {}
    assert against_steps(of[of["step"] == 1000]) == {}
    assert against_steps(of.assign(step=np.nan)) == {}


def test_the_page_has_filters_and_a_row_for_each_analysis(found: Any) -> None:
    of, named = found
    page = scale_page("several", "A sweep", of, named, ["something is <uncertain>"], "cells/{}/report.html")
    for cell in of["cell"]:
        assert f'<a href="cells/{cell}/report.html">' in page
    assert page.count("<tr id=") == len(of)
    assert re.findall(r'<select id="(\w+)"', page) == ["model", "revision", "ablation", "metric"]
    assert page.count('class="named entropy"') == 2 * 2 * 2 * len(ENTROPY)  # models, ablations, later steps
    assert page.count('class="named frequency"') == 2 * 2 * 2 * len(FREQUENCY)
    assert "something is &lt;uncertain&gt;" in page


def test_a_page_of_one_analysis(found: Any) -> None:
    of, named = found
    page = scale_page("one", "A sweep", of.head(1), named.iloc[:0], [], "cells/{}/report.html")
    assert page.count("There is nothing to draw") == 2
    assert "No analysis names a neuron." in page
    assert re.findall(r'<select id="(\w+)"', page) == ["metric"]

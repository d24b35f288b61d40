"""Sites of several runs: steps of a track, in files and in a real browser."""

import numpy as np
import pytest
from browser import browser
from planted_pages import planted_run
from planted_table import planted_table
from planted_track import FACTS, LN_MEDIATED, RHO, STEPS, WITH_EFFECTS, planted_rows, write
from site_data import data_of

from jaxconf.results.words import number
from jaxconf.training.browse import browse

ROWS = "document.querySelectorAll('[aria-label=\"One neuron\"] tbody tr')"
CELLS = f"return [...{ROWS}].map(row => [...row.cells].map(cell => cell.textContent))"


def test_the_steps_of_a_track_are_runs_without_pages(tmp_path):
    (tmp_path / "track").mkdir()
    write(tmp_path / "track", planted_rows())
    index = browse(tmp_path / "track")
    assert index == tmp_path / "track" / "site" / "index.html"
    heads = data_of(index.parent / "data" / "site.js")["runs"]
    assert [head["key"] for head in heads] == [f"step-{step}" for step in STEPS]
    assert [head["loss"] for head in heads] == [5.0 - i for i in range(5)]
    for i, step in enumerate(STEPS):
        run = data_of(index.parent / "data" / f"step-{step}" / "run.js")
        assert run["names"] == [f"{FACTS['layer']}.{neuron}" for neuron in range(6)]
        assert set(run["pages"]) == {-1}
        known = [None if np.isnan(value) else value for value in RHO[:, i]]
        assert run["values"]["rho"] == known
        if step in WITH_EFFECTS:
            of = LN_MEDIATED[:, WITH_EFFECTS.index(step)]
            assert run["values"]["ln_mediated"] == [None if np.isnan(value) else value for value in of]
            assert [i for i, kinds in enumerate(run["kinds"]) if "frequency" in kinds] == [3] * (step == 10)
        else:
            assert set(run["values"]["ln_mediated"]) == {None}


def test_a_neuron_of_one_run_has_its_row_in_all_runs_of_that_shape(tmp_path):
    planted_run(tmp_path / "one", planted_table(), 2)
    other = planted_table(plant=False)
    other.frame["loss_abs_delta"] = other.frame["loss_abs_delta"].to_numpy()[::-1]
    pages = planted_run(tmp_path / "two", other, 2)
    wide = planted_table()
    wide.facts["d_model"] = 64
    planted_run(tmp_path / "wide", wide, 2)
    index = browse([tmp_path / name for name in ("one", "two", "wide")], neurons=2, out=tmp_path / "site")
    one, two, third = (data_of(index.parent / "data" / name / "run.js") for name in ("one", "two", "wide"))
    assert set(one["names"]) == set(two["names"]) > set(third["names"])
    assert {name for name, page in zip(two["names"], two["pages"], strict=True) if page >= 0} == set(pages.names)


@pytest.mark.command
def test_a_reader_moves_through_the_runs_and_follows_a_neuron(tmp_path):
    from selenium.webdriver.common.keys import Keys

    first, second = planted_table(), planted_table()
    second.frame.loc[5, "rho"] = 0.123
    planted_run(tmp_path / "before", first)
    planted_run(tmp_path / "after", second)
    index = browse([tmp_path / "before", tmp_path / "after"], neurons=9, out=tmp_path / "site")
    with browser() as page:
        page.open(index)
        page.heading("Comparison")
        assert page.texts("[aria-label='Table of runs'] tbody th") == ["before", "after"]
        page.until("return document.querySelector('#run')")
        assert page.text("output") == "after (2 of 2)"
        page.run("document.querySelector('#run').focus()")
        page.press(Keys.ARROW_LEFT)
        assert page.text("output") == "before (1 of 2)"
        page.heading("Comparison")  # an arrow key moves the slider and nothing else
        page.until('return document.querySelector(\'[aria-label="Run by run"] circle[data-name="3.5"]\')')
        page.click("[aria-label='Run by run'] circle[data-name='3.5']")
        page.heading("Comparison: neuron 3.5")
        heads = page.texts("[aria-label='One neuron'] thead th")
        for row, table in zip(page.run(CELLS), (first, second), strict=True):
            own = table.to_pandas().loc["3.5"]
            assert row[2:] == [number(own[column]) for column in heads[2:]]
        assert len(page.texts("[aria-label='One neuron'] .chart")) == 2
        page.click("[aria-label='One neuron'] tbody tr:nth-child(2) a")
        page.heading("Neuron 3.5")
        assert page.driver.current_url.endswith("#/after/3.5")
        page.driver.back()
        page.heading("Comparison: neuron 3.5")
        assert page.text("output") == "before (1 of 2)"  # the slider is where it was left
        assert page.errors() == []


def test_a_track_and_a_run_together(tmp_path):
    (tmp_path / "track").mkdir()
    write(tmp_path / "track", planted_rows(effects=False, losses=False))
    planted_run(tmp_path / "run", planted_table(), 1)
    index = browse([tmp_path / "track", tmp_path / "run"], neurons=1, out=tmp_path / "site")
    assert len(data_of(index.parent / "data" / "site.js")["runs"]) == len(STEPS) + 1

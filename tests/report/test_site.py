"""The site as files: its numbers are those of the tables, its tokens are text, and it replaces nothing but a site."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from planted_pages import HOSTILE, planted_run
from planted_table import ENTROPY, TABLES, planted_table
from refusals import check_error
from site_data import data_of

from jaxconf.report.passages.passage import visible
from jaxconf.report.site.data import INDEX
from jaxconf.report.site.write import write_site
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.training.browse import browse


def test_numbers_of_the_site_are_those_of_the_tables(tmp_path):
    table = planted_table()
    table.nulls.loc[0, "rho"] = table.frame.loc[5, "rho"]  # a null that is as large as a neuron
    pages = planted_run(tmp_path / "run", table)
    index = write_site([tmp_path / "run"], tmp_path / "site")
    assert index == tmp_path / "site" / "index.html"
    run, frame = data_of(tmp_path / "site/data/run/run.js"), table.to_pandas()
    assert sorted(run["names"]) == sorted(pages.names)
    assert set(ENTROPY) <= set(run["names"])
    for name in INDEX:
        assert run["values"][name] == frame.loc[run["names"], name].tolist()
    assert run["verdict"] == table.verdict()
    for place, name in enumerate(pages.names):
        page = data_of(tmp_path / f"site/data/run/{place}.js")
        assert page["name"] == name
        for column, (value, low, high, rank, of, median, extreme, large, nulls) in page["values"].items():
            assert value == frame.loc[name, column]
            assert rank == 1 + (frame[column] > value).sum()
            assert of == len(frame)
            if f"{column}_lo" in frame:
                assert (low, high) == (frame.loc[name, f"{column}_lo"], frame.loc[name, f"{column}_hi"])
            if column in table.nulls:
                known = table.nulls[column]
                assert (large, nulls) == ((known >= value).sum(), len(known))
                np.testing.assert_allclose((median, extreme), known.quantile([0.5, 0.99]))
        shown = pages.passages[pages.passages["neuron"] == name]
        of_passages = page["passages"]["each"]
        for column in ("activation", "loss", "entropy"):
            found = [value for passage in of_passages for value in passage[column]]
            expected = [None if np.isnan(x) else float(f"{x:.3g}") for x in shown[column]]
            assert found == expected
        words = [page["passages"]["words"][i] for passage in of_passages for i in passage["tokens"][:-1]]
        assert words == [visible(token) for token in shown["token"]]


def test_many_cosines_are_joined_without_changing_their_norm(tmp_path):
    table = planted_table()
    table.singular_values = np.ones(1024)
    pages = planted_run(tmp_path / "run", table, 2)
    write_site([tmp_path / "run"], tmp_path / "site", 2)
    for place, cosines in enumerate(pages.neurons["cosines"]):
        found = data_of(tmp_path / f"site/data/run/{place}.js")["cosines"]
        np.testing.assert_allclose(found, np.sqrt((cosines.reshape(512, 2) ** 2).mean(1)), rtol=1e-3)


def test_tokens_never_reach_the_page_as_markup(tmp_path):
    planted_run(tmp_path / "run", planted_table())
    write_site([tmp_path / "run"], tmp_path / "site")
    for file in (tmp_path / "site").rglob("*"):
        if file.suffix in (".html", ".css", ".js"):
            text = file.read_text("utf-8")
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(|@import", text)
            assert set(re.findall(r"https?://[^\"'/]*", text)) <= {"http://www.w3.org"}  # the name of SVG
        if file.parent.parent.name == "data":
            text.encode("ascii")
    html = (tmp_path / "site/index.html").read_text("utf-8")
    assert "default-src 'none'" in html
    assert not any(token in html for token in HOSTILE[:8])


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_every_table_has_a_site(make, tmp_path):
    table = make()
    if "component" in table.frame:
        table.frame["component"] = "neuron"
    if len(table.singular_values) == 0:
        table.singular_values = np.ones(4)
    planted_run(tmp_path / "run", table)
    write_site([tmp_path / "run"], tmp_path / "site", 2)
    run = data_of(tmp_path / "site/data/run/run.js")
    assert len(run["names"]) >= min(2, len(table.frame))


def test_a_site_replaces_an_older_site_and_nothing_else(tmp_path):
    planted_run(tmp_path / "run", planted_table())
    write_site([tmp_path / "run"], tmp_path / "site")
    shutil.copytree(tmp_path / "run", tmp_path / "again" / "run")
    write_site([tmp_path / "run", tmp_path / "again" / "run"], tmp_path / "site", 1)
    assert sorted(path.name for path in (tmp_path / "site/data").iterdir()) == ["run", "run-2", "site.js"]
    assert not (tmp_path / "site/data/run/11.js").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    check_error(lambda: write_site([tmp_path / "run"], tmp_path / "mine"), "holds other files than a site")
    check_error(lambda: browse(tmp_path / "run", out=tmp_path / "mine" / "thesis.tex"), "is a file")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "all of it"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_mistakes_of_browse(tmp_path):
    table = planted_table()
    planted_run(tmp_path / "run", table, 3)
    check_error(lambda: browse([]), "no run is given")
    heads = TABLES["components"]()
    heads.frame["component"] = "head"
    heads.save(tmp_path / "heads")
    check_error(lambda: browse(tmp_path / "heads"), "the table has no neurons")
    check_error(lambda: browse(tmp_path / "nowhere"), "does not exist; give the folder of a finished analysis")
    check_error(lambda: browse(tmp_path / "run", neurons=-2), "neurons is -2")
    check_error(lambda: browse(tmp_path / "run", neurons="all"), "no pages and no windows.npy")
    assert browse(tmp_path / "run", neurons=3) == tmp_path / "run" / "site" / "index.html"
    for name in ("windows", "kept"):
        np.save(tmp_path / "run" / f"{name}.npy", np.zeros((1, 4), int))
    table.facts["model"] = str(tmp_path / "gone")
    table.save(tmp_path / "run")
    check_error(lambda: browse(tmp_path / "run", neurons="all"), "its model cannot be loaded for them", "gone")
    assert NeuronTable.load(tmp_path / "run").facts["model"].endswith("gone")
    assert pd.read_parquet(tmp_path / "run" / "pages.parquet")["name"].nunique() >= 3

"""The headings of pages: the model's name without its path, which stands among the facts."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from planted_table import planted_table

from jaxconf.report.markup import facts as facts_in_html
from jaxconf.report.page import write_report
from jaxconf.report.picture_page import study_page
from jaxconf.report.run import save_study
from jaxconf.report.shown import title
from jaxconf.results.run_folder import PLAY

PATH = "/srv/models/tiny"


def heading(html: str) -> str:
    [found] = re.findall("<h1><small>.*?</small>(.*?)</h1>", html)
    return found


@dataclass
class Study:
    facts: dict[str, Any] = field(default_factory=dict)


def test_a_report_names_the_model_and_keeps_its_path_among_the_facts(tmp_path: Path) -> None:
    table = planted_table()
    table.facts |= {"model": PATH, "revision": None}
    html = write_report(table, tmp_path).read_text("utf-8")
    assert heading(html) == title(table) == f"tiny, {table.where}"
    assert f"<title>tiny, {table.where}:" in html
    assert html.count(PATH) == html.count(f"<dd>{PATH}</dd>") == 1


@pytest.mark.parametrize(("model", "name", "plays"), [(PATH, "tiny", False), ("bundled", "bundled", True)])
def test_a_study_names_the_model_and_has_the_page_to_play_with_beside_it(
    model: str, name: str, plays: bool, tmp_path: Path
) -> None:
    template = tmp_path / "template.html"
    template.write_text("<dl>$facts</dl>", "utf-8")

    def page(found: Study, images: object) -> str:
        return study_page(template, "study", found.facts, "above", facts=facts_in_html(found.facts))

    study = Study({"model": model, "revision": None})
    html = save_study(study, "study", ["verdict"], {}, page, tmp_path / "out").read_text("utf-8")
    assert heading(html) == name
    assert f"<dd>{model}</dd>" in html
    assert (f'href="{PLAY}"' in html) == (tmp_path / "out" / PLAY).is_file() == plays

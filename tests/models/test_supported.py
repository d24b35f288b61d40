"""The list of supported models against the code and against what the parity tests last measured."""

import json
from pathlib import Path

import cases

from jaxconf.cli import main
from jaxconf.models import supported
from jaxconf.models.families import FAMILIES


def test_every_family_was_measured_and_is_near():
    measured = json.loads(supported.MEASURED.read_text())["cases"]
    assert {name: case["model_type"] for name, case in measured.items()} == {
        name: hf["model_type"] for name, hf in cases.CASES.items()
    }
    rows = supported.supported()
    assert [row.model_type for row in rows] == list(FAMILIES)
    assert all(row.cases and row.error is not None and 0 < row.error <= 1e-4 for row in rows)
    assert len({row.what for row in rows}) == len(rows)


def test_the_page_is_what_the_code_writes():
    assert (Path(__file__).parents[2] / "docs" / "models.md").read_text() == supported.page()


def test_the_command_lists_them_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main(["models"])
    said = capsys.readouterr().out
    for row in supported.supported():
        [line] = [line for line in said.splitlines() if line.startswith(f"{row.model_type} ")]
        assert row.what in line
        assert f"{row.error:.1e}" in line

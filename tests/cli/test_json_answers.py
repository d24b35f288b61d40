"""The results of commands as JSON, for programs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import refusal, run
from planted_table import planted_table

import jaxconf
from jaxconf.cli.common import answer, answering, say, say_result, speaking, terminal


@pytest.fixture
def written(tmp_path: Path) -> Path:
    planted_table(positions=20).save(tmp_path / "run")
    return tmp_path / "run"


def test_without_json_the_result_is_shown_and_with_it_printed(capsys):
    numbers = {"one": np.float32(1), "none": float("nan"), "where": Path("a/b"), "rows": [{"n": np.int64(3)}]}

    def result(as_json: bool) -> tuple[str, str]:
        with answering(as_json):
            console = terminal()
            answer(console, lambda: numbers, lambda: say(console, "shown"))
        return capsys.readouterr()

    assert result(False) == ("shown\n", "")
    out, err = result(True)
    assert json.loads(out) == {"one": 1.0, "none": None, "where": "a/b", "rows": [{"n": 3}]}
    assert err == ""


def test_all_else_goes_to_standard_error(capsys):
    with answering(True), speaking("tokens", quiet=False) as (console, progress):
        say(console, "a sentence on the way")
        progress("activations", 1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "a sentence on the way" in err
    assert "activations: 1 of 2" in err


def test_a_study_answers_with_its_facts_and_its_page(tmp_path, capsys):
    (tmp_path / "steer.json").write_text(json.dumps({"verdict": ["It is so."], "tokens": 64}))
    with answering(True):
        say_result(terminal(), ["It is so."], tmp_path / "steer.html")
    page = {"page": str(tmp_path / "steer.html")}
    assert json.loads(capsys.readouterr().out) == {**page, "verdict": ["It is so."], "tokens": 64}


def test_commands_on_a_finished_run(written, capsys, monkeypatch):
    monkeypatch.setattr("jaxconf.report.run._draw", lambda table, folder: None)
    run("report", written, "--json")
    assert json.loads(capsys.readouterr().out) == json.loads((written / "summary.json").read_text())
    run("export", written, "--json")
    assert json.loads(capsys.readouterr().out) == {"folder": str(written / "csv"), "format": "csv"}
    shutil.rmtree(written / "csv")
    said = refusal(capsys, "export", written / "nowhere", "--json")
    assert "does not exist; give the folder of a finished analysis" in said
    assert capsys.readouterr().out == ""


def test_the_families(capsys):
    run("models", "--json")
    rows = json.loads(capsys.readouterr().out)["families"]
    assert rows == [row._asdict() for row in jaxconf.supported()]


def test_a_plan_is_in_bytes_and_seconds(tmp_path, capsys):
    (tmp_path / "s.toml").write_text('models = ["bundled"]\nablations = ["mean", "zero"]\n')
    devices = {"count": 2, "memory": 16e9, "flops": 1e12, "exponentials": 1e9}
    options = "--plan --devices 2 --device-memory 16GB --flops 1e12 --exponentials 1e9"
    run("sweep", tmp_path / "s.toml", *options.split(), "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["devices"] == devices
    (needs,) = found["needs"]
    assert (needs["model"], needs["cells"]) == ("bundled", 2)
    assert needs["peak"] == needs["weights"] + needs["unembedding"] + needs["working"]
    assert needs["seconds"] == needs["seconds_forward"] + needs["seconds_effects"]

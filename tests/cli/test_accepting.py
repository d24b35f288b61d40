"""--accept, in every command that takes a model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import options_of, refusal, run
from hub import hub
from hub_models import HF, NAME, TEXT, build
from hub_models import text as hub_text
from refusals import check_error

import jaxconf
from jaxconf.cli.main import COMMANDS
from jaxconf.measure.inputs import accepted_by
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.measure.run import run as analyze
from jaxconf.studies.comparison.models import choose
from jaxconf.sweeps.definition import narrowed, read_sweep
from jaxconf.sweeps.definition import options_of as options_of_cell

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Three folders, of which the first has no unknown attribute, the second one, and the third two."""
    folders = [build(tmp_path / f"model{seed}", seed) for seed in range(3)]
    for folder, more in zip(folders, ({}, {"note": 1}, {"note": 1, "mark": 2}), strict=True):
        (folder / "config.json").write_text(json.dumps(HF | more))
    return [str(folder) for folder in folders]


def test_every_command_that_takes_a_model_takes_it() -> None:
    taking = {name for name, command in COMMANDS.items() if "accept" in options_of(command)}
    studies = {"induction", "compare", "universal", "copying", "carry", "steer", "tasks"}
    assert taking == {"analyze", *studies, "unigram", "track"}


def test_a_command_accepts(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("".join(TEXT))
    arguments = ["unigram", models[2], "--out", tmp_path / "counts.npy", "--data", tmp_path / "text.txt"]
    assert "--accept mark,note" in refusal(capsys, *arguments)
    assert "no attribute 'nota'" in refusal(capsys, *arguments, "--accept", "mark,nota")
    run(*arguments, "--accept", "mark,note")
    run(*arguments, "--accept", "mark", "--accept", "note", "--force")
    assert np.load(tmp_path / "counts.npy").sum() > 0


@pytest.mark.command
def test_what_was_accepted_is_a_fact_of_the_run(models: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(TEXT))
    given: dict[str, Any] = {"data": str(tmp_path / "text.txt"), "tokens": 160, "bootstrap_draws": 10, "nulls": 0}
    options = AnalyzeOptions(model=models[1], accept=("note",), out=tmp_path / "run", **given)
    assert analyze(options).facts["accepted"] == ["note"]
    assert "Accepted in config.json" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_models_that_are_compared_accept_what_they_have(models: list[str]) -> None:
    check_error(lambda: choose(models[0], models[1:]), "'note' to 1", "--accept note")
    chosen = choose(models[0], models[1:], ["note,mark"])
    assert [one.accept for one in chosen] == [(), ("note",), ("note", "mark")]
    lm = chosen[2].loaded(jaxconf.load, lambda what, done, total: None)
    assert lm.accepted == ("note", "mark")
    assert accepted_by([(lm, None), (models[1], None)], "note") == [(), ("note",)]
    check_error(lambda: choose(models[0], models[1:], "other"), "none of 3", "'other'")


def test_cells_accept_what_their_models_have(models: list[str], tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(f"models = {json.dumps(models)}\nlayers = [0, 1]\n[options]\naccept = ['note', 'mark']\n")
    cells = [options_of_cell(cell, tmp_path) for cell in narrowed(read_sweep(file)).values()]
    assert [cell.accept for cell in cells] == [()] * 2 + [("note",)] * 2 + [("note", "mark")] * 2
    file.write_text(f"models = {json.dumps(models)}\n")
    assert narrowed(read_sweep(file)) == read_sweep(file)


@pytest.mark.command
def test_revisions_accept_what_they_have(models: list[str], tmp_path: Path) -> None:
    names = {"step1": Path(models[0]), "step2": Path(models[1])}
    how: dict[str, Any] = {"data": hub_text, "out": tmp_path / "out"}
    with hub({f"models/{NAME}": names}, tmp_path / "cache"):
        check_error(lambda: jaxconf.track(NAME, list(names), **how), "--accept note")
        check_error(lambda: jaxconf.track(NAME, list(names), accept="other", **how), "none of 2", "'other'")
        e = jaxconf.track(NAME, list(names), accept="note", **how)
    assert e.steps["revision"].tolist() == list(names)
    assert e.facts["accepted"] == ["note"]

"""`jaxconf.track`: it does what the command does, for a run, a grid and the revisions of a hub model."""

from pathlib import Path

import pandas as pd
import pytest
from hub import hub
from hub_models import NAME, build
from hub_models import text as hub_text
from planted_track import planted_rows, write
from refusals import check_error

import jaxconf
from jaxconf.training.emergence import FILE
from jaxconf.training.figures import FIGURES

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")


def drawn(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.png")}


def test_a_run_is_drawn_beside_its_track(tmp_path: Path):
    for name in ("folder", "file"):
        run = tmp_path / name
        run.mkdir()
        expected = write(run, planted_rows())
        e = jaxconf.track(run if name == "folder" else run / FILE)
        pd.testing.assert_frame_equal(e.neurons, expected.neurons)
        assert drawn(run) == set(FIGURES)


def test_revisions_are_measured_and_drawn(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with hub({f"models/{NAME}": {"step3": build(tmp_path / "model", 0)}}, tmp_path / "cache"):
        e = jaxconf.track(NAME, ["step3"], data=hub_text)
        in_another = jaxconf.track(NAME, ["step3"], data=hub_text, out=tmp_path / "another", k=2)
    assert e.steps["revision"].tolist() == ["step3"]
    assert (e.facts["k"], in_another.facts["k"]) == (1, 2)
    for folder in (tmp_path / "runs" / "name", tmp_path / "another"):
        assert (folder / FILE).is_file()
        assert drawn(folder) == set(FIGURES)


def test_what_is_no_track_is_refused(tmp_path: Path):
    check_error(lambda: jaxconf.track(tmp_path / "nowhere"), "no folder", "nowhere", "--revisions")
    check_error(lambda: jaxconf.track(tmp_path), f"{FILE} does not exist", "tracked training run")
    check_error(lambda: jaxconf.track(tmp_path, ["step0"]), "local folder")

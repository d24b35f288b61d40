"""Run folders: what may be written, what appears whole, and what is left of an older result."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from refusals import check_error

from jaxconf.models.errors import InputError
from jaxconf.report.figures import FIGURES
from jaxconf.report.run import draw
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.run_folder import (
    NEURONS,
    PLAY,
    POSITIONS,
    SPECTRUM,
    SUMMARY,
    appearing,
    claim,
    staging,
    swapped,
    writable,
)

pytestmark = pytest.mark.usefixtures("drawn_quickly")

RECORDED = Path(__file__).parents[1] / "support" / "recorded" / "run_folder"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_with_a_result_is_claimed_only_by_force(tmp_path):
    with claim(tmp_path, "result.json", force=False):
        (tmp_path / "result.json").touch()
    check_error(
        lambda: claim(tmp_path, "result.json", force=False).__enter__(), "result.json exists already", "--force"
    )
    with claim(tmp_path, "result.json", force=True):
        pass


@pytest.mark.parametrize("filled", [False, True])
def test_a_folder_that_was_made_for_nothing_goes(tmp_path, filled):
    folder = tmp_path / "deep" / "run"

    def work():
        with writable(folder):
            assert folder.is_dir()
            if filled:
                (folder / "part").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert folder.exists() == filled


def test_a_folder_that_stays_empty_goes_with_the_parents_made_for_it(tmp_path: Path) -> None:
    with writable(tmp_path / "runs" / "model"):
        assert (tmp_path / "runs" / "model").is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    with writable(tmp_path / "runs" / "model"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    with writable(tmp_path / "runs" / "model" / "deeper"):
        (tmp_path / "runs" / "model" / "kept").touch()
    assert [path.name for path in (tmp_path / "runs" / "model").iterdir()] == ["kept"]


def test_what_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def claimed(folder: Path, mark: str, force: bool = False) -> None:
        with claim(folder, mark, force):
            raise AssertionError

    check_error(lambda: claimed(tmp_path / "file", "mark"), "file is a file, not a folder", "--out")
    check_error(lambda: claimed(tmp_path / "file" / "run", "mark"), "file is a file, not a folder", "--out")
    check_error(lambda: claimed(tmp_path, "file"), "file exists already", "--force")
    (tmp_path / "folder").mkdir()
    check_error(lambda: claimed(tmp_path, "folder", True), "folder is a folder", "--out")


def test_staged_files_appear_together_and_the_mark_last(tmp_path, monkeypatch):
    moved = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (moved.append(target.name), replace(self, target))[1])
    with staging(tmp_path / "run", "b.json") as there:
        for name in ("a", "b.json", "c"):
            (there / name).write_text("new")
        assert not [path for path in (tmp_path / "run").iterdir() if path != there]
    assert moved == ["a", "c", "b.json"]
    assert names(tmp_path / "run") == ["a", "b.json", "c"]


def test_a_failing_block_leaves_the_older_result_as_it_was(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "optional_b").write_text("old")

    def work():
        with staging(tmp_path, "a", "optional_*") as there:
            (there / "a").write_text("new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        work()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "optional_b": "old"}


def test_optional_files_of_an_older_result_go(tmp_path):
    for name in ("a", "optional_b", "optional_c", "of_another"):
        (tmp_path / name).write_text("old")
    with staging(tmp_path, "a", "optional_*") as there:
        (there / "a").write_text("new")
        (there / "optional_c").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "new",
        "optional_c": "new",
        "of_another": "old",
    }


def test_a_folder_appears_when_it_is_complete_or_not_at_all(tmp_path):
    with appearing(tmp_path / "a" / "b") as there:
        (there / "file").write_text("whole")
        assert list((tmp_path / "a" / "b").iterdir()) == []
    assert (tmp_path / "a" / "b" / "file").read_text() == "whole"
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "c" / "d") as there:
        (there / "file").write_text(str(1 // 0))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    for taken in (tmp_path / "a" / "b", tmp_path / "a" / "b" / "file"):
        with pytest.raises(InputError, match="exists already"), appearing(taken):
            pass
    with pytest.raises(InputError, match="cannot be written"), appearing(tmp_path / "d"):
        (tmp_path / "d" / "file").write_text("of another")
    assert [path.read_text() for path in (tmp_path / "d").iterdir()] == ["of another"]


@pytest.mark.parametrize("step", [1, 2])
def test_a_folder_that_is_not_replaced_stays(tmp_path, monkeypatch, step):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "file").write_text("old")
    replace, calls = Path.replace, []

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == step:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), swapped(tmp_path / "site") as there:
        (there / "file").write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"site"}
    assert (tmp_path / "site" / "file").read_text() == "old"


def test_a_run_folder_that_version_0_1_0_wrote_is_read_and_drawn(tmp_path):
    shutil.copytree(RECORDED, tmp_path, dirs_exist_ok=True)
    table = draw(tmp_path)
    assert names(tmp_path) == sorted(
        [NEURONS, POSITIONS, SPECTRUM, SUMMARY, "report.html", PLAY, *(f"{name}.png" for name in FIGURES)]
    )
    assert "1 entropy neuron in layer 1: 1.176." in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert table.summary() == json.loads((RECORDED / SUMMARY).read_text(encoding="utf-8"))


def test_a_run_folder_that_version_0_1_0_wrote_stays_as_it_is_when_it_is_saved_again(tmp_path):
    old = NeuronTable.load(RECORDED)
    old.save(tmp_path)
    assert (tmp_path / SUMMARY).read_bytes() == (RECORDED / SUMMARY).read_bytes()
    new = NeuronTable.load(tmp_path)
    pd.testing.assert_frame_equal(new.frame, old.frame)
    pd.testing.assert_frame_equal(new.positions, old.positions)
    assert new.facts == old.facts

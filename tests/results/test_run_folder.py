"""Folders that commands write to."""

from pathlib import Path

from refusals import check_error

from jaxconf.results.run_folder import claim, writable


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
    check_error(lambda: claimed(tmp_path / "file" / "run", "mark"), "run cannot be written", "--out")
    check_error(lambda: claimed(tmp_path, "file"), "file exists already", "--force")
    (tmp_path / "folder").mkdir()
    check_error(lambda: claimed(tmp_path, "folder", True), "folder is a folder", "--out")

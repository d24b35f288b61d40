"""The cells of a sweep as files: every cell finishes once, whatever becomes of the processes that run it."""

import functools
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from refusals import check_error
from sweeps import RECORDED, begun, endings, fails, results, square, squares

from jaxconf.models.errors import InputError
from jaxconf.runtime.lock import locked
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.resume import RESUME
from jaxconf.sweeps.cells import LOCK, Run, attempt, call_off, lost, opened, statuses, time_left
from jaxconf.sweeps.definition import define, defined
from jaxconf.sweeps.run import run_in_turn, sweep_status


def quiet(what: str, done: int, total: int) -> None:
    pass


def in_turn(runs: dict[str, Run], folder: Path, tries: int = 3) -> list[str]:
    said: list[str] = []
    run_in_turn(runs, folder, tries, quiet, said.append)
    return said


def test_failures_are_recorded_and_tried_again_after_the_others(tmp_path: Path) -> None:
    folder, ran = begun(tmp_path), []

    def run(name: str, place: Path, progress: Progress) -> None:
        ran.append(name)
        assert not place.exists()  # nothing is left of what failed
        square(int(name), 0, place, progress)
        if name == "01" and ran.count("01") < 3:
            raise InputError("there is no such model; give another")
        if name == "02":
            raise RuntimeError("out of luck")
        if name == "03" and ran.count("03") < 2:
            raise SystemExit(1)

    runs = {name: functools.partial(run, name) for name in squares(4)}
    said = in_turn(runs, folder)
    found = statuses(runs, folder, 3)
    assert [status.state for status in found.values()] == ["finished", "finished", "failed", "finished"]
    assert (found["02"].attempts, found["02"].message) == (3, "RuntimeError: out of luck")
    assert found["01"].attempts == 3
    assert ran == ["00", "01", "02", "03", "01", "02", "03", "01", "02"]
    assert said.count("01: failed, there is no such model; give another") == 2
    assert said.count("03: failed, SystemExit: 1") == 1
    assert results(folder) == {"00": 0, "01": 1, "03": 9}
    assert in_turn(runs, folder) == []  # and nothing is done again
    assert statuses(runs, folder, 3) == found


def test_a_cell_that_is_called_off_keeps_its_windows(tmp_path: Path) -> None:
    folder, runs = begun(tmp_path), squares(1)
    seen: list[int] = []

    def stop(what: str, done: int, total: int) -> None:
        seen.append(done)
        if done == 2:
            assert call_off(folder, runs) == {"00"}

    assert attempt(folder, "00", 1, runs["00"], stop) == ""
    assert seen == [0, 1, 2]
    assert (statuses(runs, folder, 1)["00"].state, endings(folder, "begun")) == ("waiting", [])
    (before,) = (folder / "attempts").glob(f".00.*.work/{RESUME}")
    stamps = {file.name: file.stat().st_mtime_ns for file in before.iterdir()}
    assert sorted(stamps) == ["0.npz", "1.npz", "2.npz"]
    assert attempt(folder, "00", 2, runs["00"]).startswith("finished")
    after = folder / "cells" / "00" / RESUME
    assert {name: (after / name).stat().st_mtime_ns for name in stamps} == stamps


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_waits_for_the_window_and_a_second_one_does_not(tmp_path: Path) -> None:
    for presses, kept in ((1, 2), (2, 1)):
        folder, said = begun(tmp_path / str(presses)), []

        def run(place: Path, progress: Progress, presses: int = presses) -> None:
            (place / RESUME).mkdir(parents=True)
            for window in range(4):
                progress("windows", window, 4)
                for _ in range(presses if window == 1 else 0):
                    handler = signal.getsignal(signal.SIGINT)
                    signal.raise_signal(signal.SIGINT)
                    while signal.getsignal(signal.SIGINT) is handler:  # so that two are not taken as one
                        time.sleep(0.001)
                (place / RESUME / f"{window}.npz").touch()

        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run_in_turn({"00": run, "01": run}, folder, 3, quiet, said.append)
        assert signal.getsignal(signal.SIGINT) is before
        assert sum("Ctrl-C again" in line for line in said) == (presses == 1)
        assert len(list(folder.glob(f"attempts/.00.1.work/{RESUME}/*.npz"))) == kept
        found = statuses(["00", "01"], folder, 1)
        assert [(status.state, status.attempts) for status in found.values()] == [("waiting", 0), ("waiting", 0)]


def test_deaths_count_after_the_first(tmp_path: Path) -> None:
    folder, runs = begun(tmp_path), squares(1)
    for number, state in ((1, "waiting"), (2, "waiting"), (3, "failed")):
        (folder / "attempts" / f"00.{number}.begun").touch()
        assert lost(folder, runs)
        found = statuses(runs, folder, 2)["00"]
        assert (found.state, found.deaths) == (state, number)
    assert found.message == "3 workers died at this cell; does it need more memory?"
    assert not lost(folder, runs)


def test_a_death_after_which_more_is_finished_does_not_count(tmp_path: Path) -> None:
    folder, runs = begun(tmp_path), squares(1)
    record, windows = folder / "attempts" / "00.1.begun", folder / "attempts" / ".00.1.work" / RESUME / "a"
    windows.mkdir(parents=True)
    for age, deaths in ((-10, 0), (10, 1)):
        record.touch()
        (windows / "0.npz").touch()
        os.utime(windows / "0.npz", (time.time() - age,) * 2)
        assert lost(folder, runs)
        found = statuses(runs, folder, 1)["00"]
        assert (found.state, found.deaths) == ("waiting", deaths)


def test_who_was_thought_dead_stops_and_loses_nothing(tmp_path: Path) -> None:
    """Another worker is given the cell while the first is still at it; both go on until one has finished."""
    folder, runs, said = begun(tmp_path), squares(1), []

    def late(place: Path, progress: Progress) -> None:
        (place / RESUME).mkdir(parents=True)
        (place / RESUME / "0.npz").write_text("first")
        os.utime(place / RESUME / "0.npz", (1, 1))
        said.append(attempt(folder, "00", 2, runs["00"]))  # which only finds that the worker before is gone
        said.append(attempt(folder, "00", 2, runs["00"]))
        progress("windows", 1, 4)

    assert attempt(folder, "00", 1, late) == ""
    assert said[0] == ""
    assert said[1].startswith("finished")
    assert (folder / "cells" / "00" / RESUME / "0.npz").read_text() == "first"
    assert results(folder) == {"00": 0}
    assert statuses(runs, folder, 3)["00"].state == "finished"


def test_two_that_finish_a_cell_make_it_once(tmp_path: Path) -> None:
    folder, runs = begun(tmp_path), squares(1)

    def late(place: Path, progress: Progress) -> None:
        square(7, 0, place, progress)
        shutil.copytree(place, folder / "cells" / "00")
        (folder / "cells" / "00" / "run").write_text("0")

    assert attempt(folder, "00", 1, late) == ""
    assert results(folder) == {"00": 0}
    assert statuses(runs, folder, 3)["00"].state == "finished"
    assert attempt(folder, "00", 2, fails) == ""  # a finished cell is not begun


def test_what_runs_does_so_while_a_command_has_the_folder(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    (folder / "attempts" / "00.1.begun").write_text(json.dumps({"process": "host:1"}))
    assert statuses(["00"], folder, 3)["00"].state == "waiting"
    with locked(folder / LOCK):
        found = statuses(["00"], folder, 3)["00"]
        assert (found.state, found.worker) == ("running", "host:1")
        begun_at = time.time()
        assert lost(folder, ["00"])
        in_turn(squares(1), folder)
        left = time_left(statuses(squares(4), folder, 3), folder)
        assert left == pytest.approx(3 * (time.time() - begun_at), abs=0.5)
    assert time_left(statuses(squares(4), folder, 3), folder) is None


def test_a_folder_holds_one_sweep(tmp_path: Path) -> None:
    one, other = {"a": {"model": "a"}}, {"b": {"model": "b"}}
    check_error(lambda: defined(tmp_path), "holds no sweep")
    check_error(lambda: defined(tmp_path / "nowhere"), "there is no folder")
    define(one, tmp_path)
    define(one, tmp_path)
    check_error(lambda: define(other, tmp_path), "another definition", "--out")
    assert defined(tmp_path) == one


def test_a_sweep_of_the_version_before_is_read_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    shutil.copytree(RECORDED, out)
    found = sweep_status(out, tries=2)
    assert [status.state for status in found.values()] == ["finished", "finished", "failed", "failed"]
    assert [status.attempts for status in found.values()] == [1, 1, 2, 2]
    assert [status.message for status in found.values()][2:] == [
        "layer is 3; give a number from 0 to 0, last or all"
    ] * 2
    assert [status.state for status in sweep_status(out).values()][2:] == ["waiting", "waiting"]
    assert (out / "queue").is_dir()


def test_a_half_done_sweep_of_the_version_before_is_finished(tmp_path: Path) -> None:
    """Its workers died at three cells, one of which has windows; one cell was given back, one was not begun."""
    folder = tmp_path / "sweep"
    shutil.copytree(RECORDED, folder)
    names = list(defined(folder))
    for file in (folder / "queue").glob("*.failed"):
        file.unlink()
    (folder / "queue" / f"{names[3]}.3.given").touch()
    windows = folder / "queue" / f"{names[3]}.2.work" / RESUME
    windows.mkdir(parents=True)
    (windows / "0.npz").write_text("kept")
    runs: dict[str, Run] = {name: functools.partial(square, number, 0) for number, name in enumerate(names)}
    before = {name: sorted(path.name for path in (folder / "cells" / name).iterdir()) for name in names[:2]}
    opened(folder)
    assert lost(folder, runs)
    assert [status.deaths for status in statuses(runs, folder, 3).values()][2:] == [2, 2]
    in_turn(runs, folder)
    assert [status.state for status in statuses(runs, folder, 3).values()] == ["finished"] * 4
    assert {name: sorted(path.name for path in (folder / "cells" / name).iterdir()) for name in names[:2]} == before
    assert (folder / "cells" / names[2] / "run").read_text() == "4"
    assert (folder / "cells" / names[3] / RESUME / "0.npz").read_text() == "kept"
    assert not (folder / "queue").exists()
    assert {path.suffix for path in (folder / "attempts").iterdir()} == {".claim", ".begun", ".died", ".given"}

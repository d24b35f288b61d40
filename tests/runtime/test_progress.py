"""The progress of a job where there is no terminal."""

import io
import re
import time

import pytest
from rich.console import Console

from jaxconf.runtime import progress as module
from jaxconf.runtime.progress import EVERY, Log, duration, logged, progress


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


def lines(file: io.StringIO) -> list[str]:
    """What was written since the last call, as lines, each of which is whole and plain."""
    text = file.getvalue()
    file.seek(0)
    file.truncate()
    assert not text or text.endswith("\n")
    assert text.replace("\n", "").isprintable()
    return text.splitlines()


def test_a_stage_begins_with_a_line_and_has_one_every_thirty_seconds(clock: Clock, file: io.StringIO) -> None:
    log = Log(file, clock)
    log.report("loading the model", 0, 0)
    assert lines(file) == ["loading the model"]
    clock.now += EVERY - 1
    log.remind()
    assert lines(file) == []
    clock.now += 1
    log.remind()
    assert lines(file) == ["loading the model: 30 s so far"]
    log.report("effects", 0, 16384)
    assert lines(file) == ["effects: 0 of 16,384"]
    for _ in range(6):
        clock.now += 10
        log.report("effects", int(clock.now - 1030) * 100, 16384)
    assert lines(file) == [
        "effects: 3,000 of 16,384, 100/s, 30 s so far, 2.2 min left",
        "effects: 6,000 of 16,384, 100/s, 60 s so far, 1.7 min left",
    ]
    log.report("token counts", 50, 0)
    clock.now += 2 * EVERY
    log.report("token counts", 80, 0)
    assert lines(file) == ["token counts: 50", "token counts: 80, 0.5/s, 60 s so far"]


def test_a_stage_that_starts_again_is_a_new_one(clock: Clock, file: io.StringIO) -> None:
    log = Log(file, clock)
    log.report("activations", 256, 512)
    clock.now += 1
    log.report("activations", 512, 512)
    log.report("activations", 256, 512)
    assert lines(file) == ["activations: 256 of 512", "activations: 256 of 512"]


def test_what_was_done_before_the_stage_does_not_count_in_its_rate(clock: Clock, file: io.StringIO) -> None:
    log = Log(file, clock)
    log.report("effects", 9000, 10000)
    clock.now += EVERY
    log.report("effects", 9300, 10000)
    assert lines(file)[1] == "effects: 9,300 of 10,000, 10/s, 30 s so far, 70 s left"


def test_nothing_reported_is_still_logged(file: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)
    with logged(file) as report:
        report("compiling", 0, 0)
        until = time.monotonic() + 10
        while file.getvalue().count("\n") < 3 and time.monotonic() < until:
            time.sleep(0.01)
    found = lines(file)
    assert found[0] == "compiling"
    assert len(found) >= 3
    assert all(re.fullmatch(r"compiling: [\d.e-]+ s so far", line) for line in found[1:])
    time.sleep(0.1)
    assert lines(file) == []  # it ends with the block


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("quiet", ["", "progress", "console"])
def test_bars_in_a_terminal_lines_elsewhere(terminal: bool, quiet: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, quiet=quiet == "console", width=100)
    with progress(console, "tokens", quiet == "progress") as report:
        report("effects", 0, 10)
    log = capsys.readouterr().err
    assert log == ("effects: 0 of 10\n" if not terminal and not quiet else "")
    assert ("\x1b" in out.getvalue()) == (terminal and not quiet)
    assert ("effects" in out.getvalue()) == (terminal and not quiet)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.51, "0.51 s"), (99, "99 s"), (100, "1.7 min"), (6000, "1.7 h"), (400_000, "5 days")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words

"""The progress of a long job: bars in a terminal, and log lines where there is no terminal."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import rich.progress
from rich.console import Console

Progress = Callable[[str, int, int], None]
"""Called with the stage of a job, how much of it is done, and how much there is in all (0: unknown). A stage begins
at its first call.
"""

EVERY = 30.0  # seconds after which a log gets another line


@contextlib.contextmanager
def progress(console: Console, unit: str, quiet: bool = False) -> Iterator[Progress]:
    """Show the progress within the block: as bars where the console is a terminal, else as lines on standard error.

    Nothing is shown if `quiet` is true or the console is quiet. `unit`: the unit of the rates beside the bars.
    """
    if quiet or console.quiet:
        yield lambda what, done, total: None
        return
    with bars(console, unit) if console.is_terminal else logged(sys.stderr) as report:
        yield report


@contextlib.contextmanager
def bars(console: Console, unit: str) -> Iterator[Progress]:
    """A bar for each stage, with its rate in `unit` per second, its time and the time left.

    The bars disappear when the block ends.
    """
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TextColumn("{task.fields[rate]}"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as shown:
        tasks: dict[str, rich.progress.TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total or None, rate="")
            speed = shown.tasks[tasks[what]].speed
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            shown.update(tasks[what], completed=done, total=total or None, rate=rate)

        yield report


@contextlib.contextmanager
def logged(file: TextIO) -> Iterator[Progress]:
    """Write a line to `file` at the start of each stage, and then every EVERY seconds, even if nothing is reported."""
    log, stop = Log(file), threading.Event()

    def watch() -> None:
        while not stop.wait(log.due()):
            log.remind()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield log.report
    finally:
        stop.set()
        thread.join()


class Log:
    """Writes the lines of `logged`; safe to call from several threads. `clock`: gives the time in seconds."""

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock, self._lock = file, clock, threading.Lock()
        self._what, self._done, self._total = "", 0, 0
        self._begun = self._written = clock()
        self._first = 0  # how much was done when the stage began

    def report(self, what: str, done: int, total: int) -> None:
        """Take a report; this method is a `Progress`."""
        with self._lock:
            starts, now = what != self._what or done < self._done, self._clock()
            self._what, self._done, self._total = what, done, total
            if starts:
                self._begun, self._first = now, done
            if starts or now >= self._written + EVERY:
                self._write(now)

    def due(self) -> float:
        """Seconds until another line should be written."""
        return max(0.0, self._written + EVERY - self._clock())

    def remind(self) -> None:
        """Write a line if it is time for one."""
        with self._lock:
            if (now := self._clock()) >= self._written + EVERY:
                self._write(now)

    def _write(self, now: float) -> None:
        self._written = now
        if self._what:
            print(self._line(), file=self._file, flush=True)

    def _line(self) -> str:
        seconds, parts = self._written - self._begun, []
        if self._total:
            parts.append(f"{self._done:,} of {self._total:,}")
        elif self._done:
            parts.append(f"{self._done:,}")
        rate = (self._done - self._first) / seconds if seconds > 0 else 0.0
        if rate:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if seconds > 0:
            parts.append(f"{duration(seconds)} so far")
        if rate and self._total:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        return f"{self._what}: {', '.join(parts)}" if parts else self._what


def duration(seconds: float) -> str:
    """A time with two significant digits, such as 45 s, 4.2 min or 17 h, or in whole days."""
    for unit, length in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < 99.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:,.0f} days"

"""Run folders: which folder a command may write to, and how a finished result gets there whole."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxconf.models.errors import InputError
from jaxconf.runtime.hosts import first, told, told_json

NEURONS = "neurons.parquet"  # a folder with this file is the run folder of an analysis
POSITIONS = "positions.parquet"
NULLS = "nulls.parquet"
TOKEN_CHANGES = "token_changes.parquet"
SPECTRUM = "spectrum.npz"
SUMMARY = "summary.json"
SETS = "sets.parquet"  # the table of `jaxconf.ablate_sets`, if that was asked for
OPTIMUM = "optimum.parquet"  # the table of `jaxconf.measure.optimum`, if the best possible predictions are known
OPTIMUM_NEURONS = "optimum_neurons.parquet"  # and that of the neurons
PAGES = "pages.parquet"  # what the pages of single neurons show (`jaxconf.results.pages`), if they were asked for
PASSAGES = "passages.parquet"  # and the text on them
SITE = "site"  # the folder of these pages
PLAY = "play.html"  # the page on which the bundled model runs, which its reports link to
COMPONENTS = "components.parquet"  # of a track: the components other than neurons, if any were measured
PER_TOKEN = "per_token.parquet"  # the table of `jaxconf.per_token`, if that was asked for
RESULT = (
    NEURONS, POSITIONS, NULLS, TOKEN_CHANGES, SETS, OPTIMUM, OPTIMUM_NEURONS, PER_TOKEN, PAGES, PASSAGES, SPECTRUM,
    SUMMARY, "windows.npy", "kept.npy", "figure_*.png", "report.html", PLAY, f"{SITE}/*", f"{SITE}/**/*",
)  # fmt: skip
"""Patterns of the files of an analysis in its run folder, which other commands may share."""


@contextlib.contextmanager
def claim(folder: Path, mark: str, force: bool) -> Iterator[None]:
    """As `writable`, but unless `force` is true the folder must not yet hold `mark`, the file that makes it a result.

    Raises InputError if the folder holds that file, or cannot be written.
    """

    def check() -> bytes:
        try:
            if (folder / mark).is_dir():
                raise InputError(f"{folder / mark} is a folder; give another --out")
            if (folder / mark).exists() and not force:
                raise InputError(f"{folder / mark} exists already; give another --out, or --force to replace it")
        except OSError as error:
            raise _unwritable(folder, "--out", error) from error
        return b""

    told(check)
    with writable(folder):
        yield


@contextlib.contextmanager
def writable(folder: Path, option: str = "--out") -> Iterator[None]:
    """Makes `folder` and checks that it can be written, before any long work.

    `option`: the one that names the folder. When the block ends, the folder and its parents are removed if they were
    made here and are empty. Raises InputError if the folder cannot be written.
    """
    paths = [folder, *folder.parents]

    def make() -> int:
        try:
            for path in paths:
                if path.exists() and not path.is_dir():
                    raise InputError(f"{path} is a file, not a folder; give another {option}")
            made = sum(not path.exists() for path in paths)
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return made
        except OSError as error:
            raise _unwritable(folder, option, error) from error

    made = told_json(make)
    try:
        yield
    finally:
        for path in paths[:made]:
            if not first() or any(path.iterdir()):
                break
            path.rmdir()


@contextlib.contextmanager
def traced(folder: Path | None) -> Iterator[None]:
    """Record what JAX does within the block, as a trace for TensorBoard or Perfetto in `folder`, unless it is None.

    Raises InputError, before the block, if the folder cannot be written.
    """
    if folder is None:
        yield
        return
    with writable(folder, "--profile"), jax.profiler.trace(str(folder)):
        yield


@contextlib.contextmanager
def staging(folder: Path, mark: str, *optional: str) -> Iterator[Path]:
    """A temporary folder in `folder`, whose files move to `folder` when the block ends.

    A block that fails leaves no trace. `mark`: the file that makes the folder a result; it moves last. `optional`:
    patterns of files that not every result has; an older result's are removed, unless the new one has them too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as temporary:
        yield Path(temporary)
        written = sorted(Path(temporary).iterdir(), key=lambda file: (file.name == mark, file.name))
        for file in written:
            file.replace(folder / file.name)
    for old in {file for pattern in optional for file in folder.glob(pattern)}:
        if old.name not in {file.name for file in written}:
            old.unlink()


@contextlib.contextmanager
def swapped(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its place when the block ends.

    If that fails, the temporary folder is deleted, and an older `folder` stays.
    """
    with _beside(folder) as made:
        yield made
        old = made.with_name(".old")
        try:
            if folder.exists():
                folder.replace(old)
            made.replace(folder)
        except BaseException:
            if old.exists():
                old.replace(folder)
            raise


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which becomes `folder` when the block ends; if that fails, it is deleted.

    Raises InputError, before the block, if `folder` exists and is not an empty folder, or cannot be written; and after
    the block, if something was written there in the meantime.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"the folder {folder} exists already; give another --out, or delete it first")
    with writable(folder), _beside(folder) as made:
        yield made
        try:
            made.replace(folder)
        except OSError as error:
            raise _unwritable(folder, "--out", error) from error


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder of the same name in a temporary one beside `folder`."""
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        made.mkdir()
        yield made


def _unwritable(folder: Path, option: str, error: OSError) -> InputError:
    return InputError(f"{folder} cannot be written ({error.strerror}); give another {option}")

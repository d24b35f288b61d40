"""Run folders: what may be written where, and how a finished run gets there whole."""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxconf.hosts import first, told
from jaxconf.models.errors import InputError
from jaxconf.table import PER_TOKEN, SETS, NeuronTable

if TYPE_CHECKING:
    from jaxconf.comparison import Comparison
    from jaxconf.context_copying import Copying
    from jaxconf.repeated_text import Induction
    from jaxconf.universality import Universality

BUNDLED = Path(__file__).parent / "bundled"
INDUCTION = "induction.json"
COMPARISON = "comparison.json"
UNIVERSAL = "universal.json"
COPYING = "copying.json"
EXTRA = {SETS, PER_TOKEN, "figure_4.png", "figure_4_passages.png"}  # files that a run has if it was asked for them


@contextlib.contextmanager
def claim(folder: Path, mark: str, force: bool) -> Iterator[None]:
    """`writable`, for a folder that must not hold `mark`, the file that makes it a result, unless `force` is given."""

    def check() -> bytes:
        try:
            if (folder / mark).is_dir():
                raise InputError(f"{folder / mark} is a folder; give another --out")
            if (folder / mark).exists() and not force:
                raise InputError(f"{folder / mark} exists already; give another --out, or --force to replace it")
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}); give another --out") from error
        return b""

    told(check)
    with writable(folder):
        yield


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make `folder` and see that it can be written, before any long work; if that work fails, a folder made for it and still empty goes.

    Raises InputError if it cannot be written.
    """

    def make() -> bytes:
        try:
            made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return b"made" if made else b""
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}); give another --out") from error

    made = told(make)
    try:
        yield
    finally:
        if made and first() and not any(folder.iterdir()):
            folder.rmdir()


def save_run(table: NeuronTable, tokens: np.ndarray, kept: np.ndarray, folder: Path, extra: Mapping[str, pd.DataFrame]) -> None:
    """Write the whole run: windows.npy (int32 [s t]), kept.npy (bool [s t]), the table, the `extra` tables by file name, the figures and the
    report.

    All of it is written to a folder beside the run first, so that an interruption leaves an older run as it was.
    """
    with _staging(folder) as staging:
        np.save(staging / "windows.npy", tokens.astype(np.int32))
        np.save(staging / "kept.npy", kept)
        table.save(staging)
        for name, frame in extra.items():
            frame.to_parquet(staging / name, index=False)
        draw(table, staging)
        written = {file.name for file in staging.iterdir()}
    for name in EXTRA - written:  # of a run that stood here before
        (folder / name).unlink(missing_ok=True)


def draw(table: NeuronTable, folder: Path) -> None:
    """Write the figures and the report of a run, those of single tokens if the folder has their table."""
    from jaxconf.figures import save_figures
    from jaxconf.report import write_report
    from jaxconf.story_figures import save_story_figures

    save_figures(table, folder)
    if (folder / PER_TOKEN).is_file():
        save_story_figures(table, pd.read_parquet(folder / PER_TOKEN), folder)
    write_report(table, folder)


def save_induction(found: "Induction", folder: Path) -> None:
    """Write induction_….parquet for each table, induction.json (the facts and what they show), the figures and induction.html, as `save_run`
    does.
    """
    from jaxconf.induction_figures import save_induction_figures, sentences
    from jaxconf.natural import Natural
    from jaxconf.report.induction import write_induction_report

    tables = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.name not in ("facts", "natural")}
    natural = (
        {f"natural_{field.name}": getattr(found.natural, field.name) for field in dataclasses.fields(Natural)} if found.natural else {}
    )
    with _staging(folder) as staging:
        for name, frame in (tables | natural).items():
            frame.to_parquet(staging / f"induction_{name}.parquet", index=False)
        (staging / INDUCTION).write_text(json.dumps({"verdict": sentences(found), **found.facts}, indent=1) + "\n")
        write_induction_report(found, save_induction_figures(found, staging), staging)
    if not natural:
        for file in folder.glob("induction_natural*"):  # of a run that stood here before
            file.unlink()


def save_comparison(found: "Comparison", folder: Path) -> None:
    """Write comparison_….parquet for each table, comparison.json (the facts and what they show), the figures and comparison.html, as `save_run`
    does.
    """
    from jaxconf.comparison_figures import paragraphs, save_comparison_figures
    from jaxconf.report.comparison import write_comparison_report

    tables = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.name != "facts"}
    with _staging(folder) as staging:
        for name, frame in tables.items():
            frame.to_parquet(staging / f"comparison_{name}.parquet", index=False)
        (staging / COMPARISON).write_text(json.dumps({"verdict": paragraphs(found), **found.facts}, indent=1) + "\n")
        figures = save_comparison_figures(found, staging)
        write_comparison_report(found, figures, staging)
    for file in set(folder.glob("comparison_*.png")) - {folder / figure.name for figure in figures}:  # of a run that stood here before
        file.unlink()


def save_universal(found: "Universality", folder: Path) -> None:
    """Write universal_….parquet for each table, universal.json (the facts and what they show), the figures and universal.html, as `save_run`
    does.
    """
    from jaxconf.report.universal import write_universal_report
    from jaxconf.universal_figures import save_universal_figures, sentences

    tables = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.name != "facts"}
    with _staging(folder) as staging:
        for name, frame in tables.items():
            frame.to_parquet(staging / f"universal_{name}.parquet", index=False)
        (staging / UNIVERSAL).write_text(json.dumps({"verdict": sentences(found), **found.facts}, indent=1) + "\n")
        write_universal_report(found, save_universal_figures(found, staging), staging)


def save_copying(found: "Copying", folder: Path) -> None:
    """Write copying_….parquet for each table, copying.json (the facts and what they show), the figures and copying.html, as `save_run` does."""
    from jaxconf.copying_figures import save_copying_figures, sentences
    from jaxconf.report.copying import write_copying_report

    with _staging(folder) as staging:
        for field in dataclasses.fields(found):
            if field.name != "facts":
                getattr(found, field.name).to_parquet(staging / f"copying_{field.name}.parquet")
        (staging / COPYING).write_text(json.dumps({"verdict": sentences(found), **found.facts}, indent=1) + "\n")
        write_copying_report(found, save_copying_figures(found, staging), staging)


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as temporary:
        staging = Path(temporary)
        yield staging
        for file in sorted(staging.iterdir()):
            file.replace(folder / file.name)

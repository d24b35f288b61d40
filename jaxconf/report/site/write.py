"""Writing the site: a folder of files that a browser opens from disk and that any web server can serve.

Its data are scripts that call `loaded`, since a page that is opened from disk can load scripts but no other files.
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jaxconf.models.errors import InputError
from jaxconf.report.markup import filled
from jaxconf.report.site.data import BACKGROUND, Run, key_of, of_neurons, of_run, of_site, shape_of
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.pages import PAGED, NeuronPages, paged
from jaxconf.results.run_folder import NEURONS, swapped
from jaxconf.results.words import model_title

SCRIPTS = ("words.js", "charts.js", "overview.js", "neuron.js", "comparison.js", "site.js")
MARK = "data/site.js"
COMPARISON = "compare"  # the first part of the permalinks of the comparison


def write_site(folders: Sequence[Path], site: Path, neurons: int | Literal["all"] = PAGED) -> Path:
    """Writes the site of the runs in these folders. The arguments and the rest are as for `write_runs`."""
    return write_runs([run_in(folder) for folder in folders], site, neurons)


def run_in(folder: Path) -> Run:
    """The run in a folder, under the folder's name. Raises InputError if the folder holds no run."""
    table = NeuronTable.load(folder)
    return Run(folder.resolve().name, table, NeuronPages.load(folder), sha256(folder / NEURONS))


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_runs(runs: Sequence[Run], site: Path, neurons: int | Literal["all"] = PAGED) -> Path:
    """Writes the site of some runs, whole or not at all, and returns the path of its first page.

    `neurons`: as for `jaxconf.results.pages.paged`, of those that the runs have pages of. `site`: its folder; an older
    site there is replaced. Raises InputError if `site` holds anything else.
    """
    check_site(site)
    shown: list[Run] = []
    for run in runs:
        names = set(run.pages.names)
        pages = run.pages.some([name for name in paged(run.table, neurons) if name in names])
        taken = [COMPARISON, *(other.key for other in shown)]
        shown.append(run._replace(key=key_of(run.key, taken), pages=pages))
    site.parent.mkdir(parents=True, exist_ok=True)
    with swapped(site) as new:
        _write(shown, new, neurons)
    return site / "index.html"


def is_site(folder: Path) -> bool:
    """Whether a folder holds a site."""
    return (folder / MARK).is_file()


def check_site(site: Path) -> None:
    """Raises InputError if `site` is anything but a site, an empty folder or nothing."""
    if site.is_dir() and any(site.iterdir()) and not is_site(site):
        raise InputError(f"{site} holds other files than a site; give another folder")
    if site.exists() and not site.is_dir():
        raise InputError(f"{site} is a file, not a folder; give another folder")


def _write(runs: Sequence[Run], site: Path, neurons: int | Literal["all"]) -> None:
    own, report = files("jaxconf.report.site"), files("jaxconf.report")
    (site / "data").mkdir(parents=True)
    headings = ", ".join(dict.fromkeys(model_title(run.table.facts) for run in runs))
    html = filled(
        own / "site.html", title=escape(headings), scripts="".join(map(_tag, (*SCRIPTS[:-1], MARK, SCRIPTS[-1])))
    )
    (site / "index.html").write_text(html, "utf-8")
    style = (report / "page.css").read_text("utf-8") + (own / "site.css").read_text("utf-8")
    (site / "site.css").write_text(style, "utf-8")
    for name in SCRIPTS:
        (site / name).write_text((own / name).read_text("utf-8"), "utf-8")
    _write_data(site / MARK, "site", of_site(runs))
    of_each = [set(run.pages.names or paged(run.table, neurons)) for run in runs]
    for run in runs:
        alike = [shape_of(other) == shape_of(run) for other in runs]
        shown = set().union(*itertools.compress(of_each, alike))
        folder = site / "data" / run.key
        folder.mkdir()
        _write_data(folder / "run.js", f"{run.key}/run", of_run(run, shown, BACKGROUND // len(runs)))
        for place, data in enumerate(of_neurons(run)):
            _write_data(folder / f"{place}.js", f"{run.key}/{place}", data)


def _tag(source: str) -> str:
    return f'<script src="{source}"></script>\n'


def _write_data(file: Path, name: str, data: Any) -> None:
    """A script that gives the data to the site under a name. It is ASCII, whatever a server says of its encoding."""
    file.write_text(
        f"loaded({json.dumps(name)}, {json.dumps(data, separators=(',', ':'), allow_nan=False)});\n", "ascii"
    )

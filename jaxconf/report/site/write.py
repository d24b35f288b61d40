"""Writing the site: a folder of files that a browser opens from disk and that any web server can serve.

Its data are scripts that call `loaded`, since a page that is opened from disk can load scripts but no other files.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jaxconf.models.errors import InputError
from jaxconf.report.markup import filled
from jaxconf.report.site.data import Run, key_of, of_neurons, of_run, of_site
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.pages import PAGED, NeuronPages, paged
from jaxconf.results.run_folder import NEURONS

SCRIPTS = ("words.js", "charts.js", "overview.js", "neuron.js", "comparison.js", "site.js")
MARK = "data/site.js"  # a folder with this file is a site


def write_site(folders: Sequence[Path], site: Path, neurons: int | Literal["all"] = PAGED) -> Path:
    """Writes the site of the runs in these folders, whole or not at all, and returns the path of its first page.

    `neurons`: as for `jaxconf.results.pages.paged`, of those that the run folders have pages of. `site`: its folder; an
    older site there is replaced. Raises InputError if a folder holds no run, or if `site` holds anything else.
    """
    check_site(site)
    runs: list[Run] = []
    for folder in folders:
        table, key = NeuronTable.load(folder), key_of(folder.resolve(), [run.key for run in runs])
        digest = hashlib.sha256((folder / NEURONS).read_bytes()).hexdigest()
        pages = NeuronPages.load(folder)
        pages = pages.some([name for name in paged(table, neurons) if name in set(pages.names)])
        runs.append(Run(key, table, pages, digest))
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=site.parent) as temporary:
        new = Path(temporary) / "site"
        _write(runs, new)
        if site.exists():
            site.replace(Path(temporary) / "old")
        new.replace(site)
    return site / "index.html"


def check_site(site: Path) -> None:
    """Raises InputError if `site` is anything but a site, an empty folder or nothing."""
    if site.is_dir() and any(site.iterdir()) and not (site / MARK).is_file():
        raise InputError(f"{site} holds other files than a site; give another folder")
    if site.exists() and not site.is_dir():
        raise InputError(f"{site} is a file, not a folder; give another folder")


def _write(runs: Sequence[Run], site: Path) -> None:
    own, report = files("jaxconf.report.site"), files("jaxconf.report")
    (site / "data").mkdir(parents=True)
    headings = ", ".join(dict.fromkeys(run.table.facts.get("model", "unnamed model") for run in runs))
    html = filled(
        own / "site.html", title=escape(headings), scripts="".join(map(_tag, (*SCRIPTS[:-1], MARK, SCRIPTS[-1])))
    )
    (site / "index.html").write_text(html, "utf-8")
    style = (report / "page.css").read_text("utf-8") + (own / "site.css").read_text("utf-8")
    (site / "site.css").write_text(style, "utf-8")
    for name in SCRIPTS:
        (site / name).write_text((own / name).read_text("utf-8"), "utf-8")
    _write_data(site / MARK, "site", of_site(runs))
    for run in runs:
        shown = {name for other in runs if _alike(run, other) for name in other.pages.names}
        folder = site / "data" / run.key
        folder.mkdir()
        _write_data(folder / "run.js", f"{run.key}/run", of_run(run, shown))
        for place, data in enumerate(of_neurons(run)):
            _write_data(folder / f"{place}.js", f"{run.key}/{place}", data)


def _tag(source: str) -> str:
    return f'<script src="{source}"></script>\n'


def _alike(run: Run, other: Run) -> bool:
    """Whether a neuron of one run can be told in the other: whether their models have one shape."""
    names = ("model_type", "n_layers", "d_model", "n_neurons")
    return all(run.table.facts.get(name) == other.table.facts.get(name) for name in names)


def _write_data(file: Path, name: str, data: Any) -> None:
    """A script that gives the data to the site under a name. It is ASCII, whatever a server says of its encoding."""
    file.write_text(
        f"loaded({json.dumps(name)}, {json.dumps(data, separators=(',', ':'), allow_nan=False)});\n", "ascii"
    )

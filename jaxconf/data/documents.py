"""Where documents come from: a file, a folder, a dataset on the hub, or Python's standard library.

Documents are streamed: memory does not grow with their number.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import (
    get_cached_repo_tree,
    hf_hub_download,
    parse_hf_uri,
    resolve_revision,
    snapshot_download,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, HfUriError
from huggingface_hub.hf_api import ResolvedRevision

from jaxconf.data.own_text import OWN
from jaxconf.data.sources import Source, parsed
from jaxconf.data.splits import chosen_files
from jaxconf.data.text_files import KINDS, Reading, is_known, read_file
from jaxconf.data.worlds import world_of
from jaxconf.models.errors import InputError
from jaxconf.models.hub import hub_errors

NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3", "idlelib"}
# Files of a folder or data set that describe it, and are not read unless they are named.
NOT_DATA = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}


class Documents(Iterator[str]):
    """The documents of a source, one at a time."""

    def __init__(self, texts: Iterator[str], reading: Reading) -> None:
        self._texts, self._reading = texts, reading

    def __next__(self) -> str:
        return next(self._texts)

    @property
    def facts(self) -> dict[str, Any]:
        """What was done to the rows of tables that were read so far, beside giving their text; empty if nothing.

        `rows_skipped`: how many held no text. `rows_joined_at`: rows that are lines were joined to documents, between
        "titles" or "blank rows".
        """
        return self._reading.facts


def documents(source: str) -> Documents:
    """The documents of a source, one at a time.

    `source` is a .txt file (one document), a .jsonl or .json file, which may be packed as .gz or .zst (an object with a
    string "text" on each line), a .csv or .parquet file (a column "text"), a folder (all such files below it, in the
    order of their paths), `stdlib` (the modules of Python's standard library, in a fixed pseudo-random order),
    `hf://datasets/OWNER/NAME[@REVISION][/PATH]` (each file is downloaded when the iterator reaches it), or synthetic
    text, such as `noise` or `noise:words=64,levels=4` (see `jaxconf.data.worlds`).

    Behind a file, folder or data set may stand which part of it is read, such as `:subset=en,split=train,column=body`.
    `column`: what holds the text in place of "text". `subset` (also called config) and `split`: those of the data set,
    which choose files by the `configs` of its README.md, or else by the names of folders and files. Rows without text
    are skipped. Rows that are the lines of a text, as in WikiText, are joined to documents.

    Raises InputError: immediately if there is no such source, during iteration if a file cannot be fetched or read.
    "own", a model's own text, is no source without a model.
    """
    reading = Reading()
    return Documents(_texts(source, reading), reading)


def reading_facts(texts: Iterable[str]) -> dict[str, Any]:
    """The `facts` of the documents of a source; no facts of other texts."""
    return texts.facts if isinstance(texts, Documents) else {}


def _texts(name: str, reading: Reading) -> Iterator[str]:
    if world := world_of(name):
        return world.documents()
    source = parsed(name)
    if source.place == OWN:
        raise InputError('the text "own" is that which a model was trained on, and no model is given; name a source')
    if source.place == "stdlib":
        if source.column or source.subset or source.split:
            raise InputError(f"the text {name!r} has no columns, subsets or splits; give stdlib alone")
        return _standard_library()
    return chain.from_iterable(read_file(file, source.column, reading) for file in files_of(source))


def files_of(source: Source) -> Iterator[Path]:
    """The files of a source: a file, a folder or a data set on the hub.

    Those of a data set are listed by this call, and each is downloaded when the iterator reaches it. Raises InputError
    if there is no such source, or if it has no files of a known kind.
    """
    return _hub_files(source) if source.place.startswith("hf://") else _local_files(source)


def _local_files(source: Source) -> Iterator[Path]:
    path = Path(source.place).expanduser()
    if path.is_dir():
        names = [
            file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file() and _is_data(file.name)
        ]
        if not names:
            raise InputError(f"the folder {path} has no file of a known kind ({KINDS}); give another folder")
        chosen = chosen_files(names, source, f"the folder {path}", lambda: path / "README.md")
        return map(path.__truediv__, chosen)
    if not path.exists():
        raise InputError(
            f"the file or folder {path} does not exist; give a path that exists, hf://datasets/OWNER/NAME, or stdlib "
            "for the source of Python's standard library"
        )
    if not is_known(path.name):
        raise InputError(f"the file {path} is not of a known kind ({KINDS}); convert it to one of them")
    if source.subset or source.split:
        raise InputError(f"the file {path} has no subsets or splits; leave them out, or give a folder")
    if source.column and path.name.endswith(".txt"):
        raise InputError(f"the file {path} is plain text, which has no columns; leave the column out")
    return iter([path])


def _is_data(name: str) -> bool:
    return is_known(name) and name.rpartition("/")[2] not in NOT_DATA


def _standard_library() -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    modules = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = set(subfolders) - NOT_LIBRARY
        modules += [(Path(folder) / file).relative_to(root).as_posix() for file in files if file.endswith(".py")]
    if not modules:
        raise InputError(f"the standard library of Python has no source files in {root}; give other text")

    def texts() -> Iterator[str]:
        # Sorting by a hash gives the same order on every machine and mixes the packages, so that the first documents
        # are a fair sample of all.
        for module in sorted(modules, key=lambda name: hashlib.sha256(name.encode()).digest()):
            try:
                yield (root / module).read_bytes().decode()
            except UnicodeDecodeError:
                continue

    return texts()


class HubPlace(NamedTuple):
    """A hub dataset at one commit, whose content never changes, and the file or folder of it that is read."""

    dataset: str
    revision: ResolvedRevision  # as text it is the revision that was asked for; `resolved` is the commit
    path: str


def hub_place(source: str) -> HubPlace:
    """What the place of the source `hf://datasets/OWNER/NAME[@REVISION][/PATH]` names at present.

    Raises InputError for any other text, and for a dataset that the hub does not have.
    """
    place, kind = parsed(source).place, "hf://datasets/OWNER/NAME[@REVISION][/PATH]"
    try:
        uri = parse_hf_uri(place)
    except HfUriError as error:
        raise InputError(f"the dataset {place} cannot be read ({error.msg.rstrip(' .')}); give {kind}") from error
    if uri.type != "dataset":
        raise InputError(f"the source {place} is not a dataset; give {kind}")

    with hub_errors("dataset", uri.id, uri.revision):
        revision = resolve_revision(uri.id, repo_type="dataset", revision=uri.revision)
    return HubPlace(uri.id, revision, uri.path_in_repo)


def _hub_files(source: Source) -> Iterator[Path]:
    """The files of a hub dataset: they are listed by this call, and each is downloaded when the iterator reaches it."""
    dataset, revision, path = hub_place(source.place)
    with hub_errors("dataset", dataset, revision):
        try:
            tree = get_cached_repo_tree(dataset, repo_type="dataset", revision=revision)
        except CachedRepoTreeNotFoundError:
            # Downloading a snapshot, here of one small file, also caches the list of files. An offline run needs it.
            snapshot_download(dataset, repo_type="dataset", revision=revision, allow_patterns=".gitattributes")
            tree = get_cached_repo_tree(dataset, repo_type="dataset", revision=revision)

    known = [file.path for file in tree if (is_known(file.path) if file.path == path else _is_data(file.path))]
    names = [name for name in known if not path or f"{name}/".startswith(f"{path}/")]
    where = f"the dataset {dataset}"
    if not names:
        raise InputError(
            f"{where} has no file of a known kind ({KINDS}){f' at {path}' if path else ''}; give another path, or the "
            "revision refs/convert/parquet if the hub made one"
        )

    def fetched(name: str) -> Path:
        with hub_errors("dataset", dataset, revision):
            return Path(hf_hub_download(dataset, name, repo_type="dataset", revision=revision))

    has_card = any(file.path == "README.md" for file in tree)
    return map(fetched, chosen_files(names, source, where, lambda: fetched("README.md") if has_card else None))

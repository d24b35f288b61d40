"""Where documents come from: a file, a folder, a dataset on the hub, or Python's standard library.

Documents are streamed: memory does not grow with their number.
"""

import hashlib
import io
import json
import os
import sysconfig
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
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
from jaxconf.data.worlds import world_of
from jaxconf.models.errors import InputError, first_line, listed
from jaxconf.models.hub import hub_errors

NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3", "idlelib"}
SHOWN = 8  # columns of a table that an error names


def documents(source: str) -> Iterator[str]:
    """The documents of a source, one at a time.

    `source` is a .txt file (one document), a .jsonl, .jsonl.gz or .jsonl.zst file (an object with a string "text" on
    each line), a .parquet file (a column "text"), a folder (all such files below it, in the order of their paths),
    `stdlib` (the modules of Python's standard library, in a fixed pseudo-random order),
    `hf://datasets/OWNER/NAME[@REVISION][/PATH]` (each file is downloaded when the iterator reaches it), or synthetic
    text, such as `noise` or `noise:words=64,levels=4` (see `jaxconf.data.worlds`).

    Raises InputError: immediately if there is no such source, during iteration if a file cannot be fetched or read.
    "own", a model's own text, is no source without a model.
    """
    if source == OWN:
        raise InputError('the text "own" is that which a model was trained on, and no model is given; name a source')
    if source == "stdlib":
        return _standard_library()
    if world := world_of(source):
        return world.documents()
    if source.startswith("hf://"):
        return chain.from_iterable(map(_read, _hub_files(source)))

    path = Path(source).expanduser()
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and _is_known(file.name)]
        if not files:
            raise InputError(f"the folder {path} has no file of a known kind ({KINDS}); give another folder")
        return chain.from_iterable(map(_read, sorted(files, key=Path.as_posix)))
    if not path.exists():
        raise InputError(
            f"the file or folder {path} does not exist; give a path that exists, hf://datasets/OWNER/NAME, or stdlib "
            "for the source of Python's standard library"
        )
    if not _is_known(path.name):
        raise InputError(f"the file {path} is not of a known kind ({KINDS}); convert it to one of them")
    return _read(path)


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
    """What the source `hf://datasets/OWNER/NAME[@REVISION][/PATH]` names at present.

    Raises InputError for any other text, and for a dataset that the hub does not have.
    """
    try:
        uri = parse_hf_uri(source)
    except HfUriError as error:
        raise InputError(
            f"the dataset {source} cannot be read ({error.msg.rstrip(' .')}); give "
            "hf://datasets/OWNER/NAME[@REVISION][/PATH]"
        ) from error
    if uri.type != "dataset":
        raise InputError(f"the source {source} is not a dataset; give hf://datasets/OWNER/NAME[@REVISION][/PATH]")

    with hub_errors("dataset", uri.id, uri.revision):
        revision = resolve_revision(uri.id, repo_type="dataset", revision=uri.revision)
    return HubPlace(uri.id, revision, uri.path_in_repo)


def _hub_files(source: str) -> Iterator[Path]:
    """The files of a hub dataset: they are listed by this call, and each is downloaded when the iterator reaches it."""
    dataset, revision, path = hub_place(source)
    with hub_errors("dataset", dataset, revision):
        try:
            tree = get_cached_repo_tree(dataset, repo_type="dataset", revision=revision)
        except CachedRepoTreeNotFoundError:
            # Downloading a snapshot, here of one small file, also caches the list of files. An offline run needs it.
            snapshot_download(dataset, repo_type="dataset", revision=revision, allow_patterns=".gitattributes")
            tree = get_cached_repo_tree(dataset, repo_type="dataset", revision=revision)

    known = [file.path for file in tree if _is_known(file.path)]
    names = sorted(name for name in known if not path or f"{name}/".startswith(f"{path}/"))
    if not names:
        raise InputError(
            f"the dataset {dataset} has no file of a known kind ({KINDS}){f' at {path}' if path else ''}; give another "
            "path, or the revision refs/convert/parquet if the hub made one"
        )

    def files() -> Iterator[Path]:
        for name in names:
            with hub_errors("dataset", dataset, revision):
                file = hf_hub_download(dataset, name, repo_type="dataset", revision=revision)
            yield Path(file)

    return files()


def _read(path: Path) -> Iterator[str]:
    """The documents of one file of a known kind."""
    read = next(reader for ending, reader in READERS.items() if path.name.endswith(ending))
    try:
        yield from read(path)
    except UnicodeDecodeError as error:
        raise InputError(f"the file {path} is not valid UTF-8; convert it to UTF-8") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"the file {path} cannot be read ({first_line(error)}); check that it is whole") from error


def _read_text(path: Path) -> Iterator[str]:
    yield path.read_bytes().decode()


def _read_json_lines(path: Path) -> Iterator[str]:
    with pa.input_stream(str(path)) as stream:  # decompresses .gz and .zst
        for number, line in enumerate(io.BufferedReader(stream), 1):
            if line.isspace():
                continue
            decoded = line.decode()
            try:
                record = json.loads(decoded)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f'line {number} of {path} is not JSON; give an object with a "text" on each line'
                ) from error
            text = record.get("text") if isinstance(record, dict) else None
            if not isinstance(text, str):
                raise InputError(f'line {number} of {path} has no string "text"; give an object with one on each line')
            if not _is_unicode(text):
                raise InputError(
                    f"line {number} of {path} has half of a surrogate pair in its text; repair or remove it"
                )
            yield text


def _read_parquet(path: Path) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        columns = file.schema_arrow.names
        if "text" not in columns:
            raise InputError(
                f'the file {path} has no column "text" (it has {listed(columns, SHOWN)}); '
                "rename the column that holds the text"
            )
        batches = file.iter_batches(batch_size=1024, columns=["text"])
        for row, text in enumerate(chain.from_iterable(batch.column(0).to_pylist() for batch in batches), 1):
            if not isinstance(text, str):
                raise InputError(f'row {row} of {path} has no string in the column "text"; remove or repair it')
            yield text


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines,
    ".jsonl.gz": _read_json_lines,
    ".jsonl.zst": _read_json_lines,
    ".parquet": _read_parquet,
}
KINDS = ", ".join(READERS)


def _is_known(name: str) -> bool:
    return name.endswith(tuple(READERS))


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode the text. It cannot encode half of a surrogate pair, which JSON escapes can contain."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

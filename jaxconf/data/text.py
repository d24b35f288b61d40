"""Corpora: files, folders, the hub or Python's own library become documents, windows of token ids and token counts.

S windows of `length` tokens; V the model's vocabulary. Documents are streamed: memory does not grow with the corpus.
"""

import functools
import hashlib
import io
import json
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
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

from jaxconf.models.errors import InputError
from jaxconf.models.hub import hub_errors
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.runtime.hosts import shared_work

NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3", "idlelib"}
BATCH_CHARACTERS = 2**20
PIECE_CHARACTERS = 2**18
COUNTED = 40_000_000  # characters behind the token counts when none are given


def documents(source: str) -> Iterator[str]:
    """The documents of a corpus, one at a time.

    `source` is a .txt file (one document), a .jsonl, .jsonl.gz or .jsonl.zst file (an object with a string "text" on each
    line), a .parquet file (a column "text"), a folder (all such files below it, in order of their paths), `stdlib` (the
    modules of Python's standard library, in a fixed but mixed order) or `hf://datasets/OWNER/NAME[@REVISION][/PATH]`
    (each file is downloaded when its turn comes).

    Raises InputError: at once if there is no such source, during iteration if one of its files cannot be fetched or read.
    """
    if source == "stdlib":
        return _standard_library()
    if source.startswith("hf://"):
        return chain.from_iterable(map(_read, _hub_files(source)))

    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted((file for file in path.rglob("*") if file.is_file() and _is_known(file.name)), key=Path.as_posix)
        if not files:
            raise InputError(f"The folder {path} has no file of a known kind ({', '.join(READERS)}); give another folder.")
        return chain.from_iterable(map(_read, files))
    if not path.exists():
        raise InputError(f"There is no file or folder {path}; give a path that exists, hf://datasets/OWNER/NAME or stdlib.")
    if not _is_known(path.name):
        raise InputError(f"{path} is not of a known kind ({', '.join(READERS)}); convert it to one of them.")
    return _read(path)


def windows(documents: Iterable[str], tokenizer: Tokenizer, n_tokens: int, length: int = 256) -> np.ndarray:
    """The first `n_tokens` tokens of a corpus as int32 [S, length], S at most max(1, n_tokens // length).

    An EOS ends each document and a BOS begins each window, where the tokenizer has them; both count as tokens. An
    incomplete last window is dropped, and no more documents are read than needed. A document of more than 2**18 characters
    is encoded in pieces, cut before spaces: a token beside a cut may differ from encoding it whole.

    Raises InputError if the text does not fill one window.
    """
    if length < 2:
        raise InputError(f"A window cannot have length {length}; give a length of at least 2.")
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    body = length - len(bos)
    wanted = max(1, n_tokens // length) * body

    stream = [np.array([], np.int32)]
    found = 0
    pieces = _pieces(documents)

    def batches() -> Iterator[list[tuple[str, bool]]]:
        # A token is seldom less than a character: a batch of as many characters as tokens are missing reads no document too many.
        while found < wanted and (batch := _batch(pieces, min(wanted - found, BATCH_CHARACTERS))):
            yield batch

    for ids in shared_work(batches(), functools.partial(_encode_pieces, tokenizer=tokenizer)):
        stream.append(ids)
        found += len(ids)

    n_windows = min(found, wanted) // body
    if n_windows == 0:
        raise InputError(f"The text gives {found + len(bos)} tokens, fewer than one window of {length}; give more text or shorter windows.")
    text = np.concatenate(stream)[: n_windows * body].reshape(n_windows, body)
    return np.hstack([np.full((n_windows, len(bos)), bos, np.int32), text])


def first_documents(documents: Iterable[str], characters: int = COUNTED) -> Iterator[str]:
    """The documents until they have that many characters, the last of them cut."""
    for text in documents:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return


def encode(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """All tokens of a corpus, int32, in parts of some million characters; an EOS ends each document, where the tokenizer has one."""
    pieces = _pieces(documents)
    batches = iter(lambda: _batch(pieces, BATCH_CHARACTERS), [])
    yield from shared_work(batches, functools.partial(_encode_pieces, tokenizer=tokenizer))


def kept_positions(windows: np.ndarray, special_ids: Iterable[int]) -> np.ndarray:
    """The positions that statistics are taken over, bool [S, length], for integer windows [S, length].

    Left out are positions 0-2 and the last of a window, tokens in `special_ids` and tokens just before one of those.
    """
    special = np.isin(windows, list(special_ids))
    kept = ~(special | np.roll(special, -1, axis=1))
    kept[:, :3] = kept[:, -1:] = False
    return kept


def count_tokens(
    documents: Iterable[str], tokenizer: Tokenizer, vocab_size: int, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """How often each token occurs in a corpus encoded without special tokens, int64 [V].

    `progress` is called with the number of tokens so far. Raises InputError if a token's id is not below `vocab_size`.
    """
    counts = np.zeros(vocab_size, np.int64)
    total = 0
    pieces = _pieces(documents)
    batches = iter(lambda: _batch(pieces, BATCH_CHARACTERS), [])
    for ids in shared_work(batches, lambda batch: np.concatenate(tokenizer.encode_batch([text for text, _ in batch]))):
        if ids.max(initial=-1) >= vocab_size:
            raise InputError(
                f"The tokenizer gives the id {ids.max()}, outside the vocabulary of {vocab_size}; use the model's own tokenizer."
            )
        counts += np.bincount(ids, minlength=vocab_size)
        total += len(ids)
        if progress:
            progress(total)
    return counts


def read_counts(path: str | Path, vocab_size: int) -> np.ndarray:
    """Token counts from a .npy file (one-dimensional, integers >= 0), int64 [V], padded with zeros.

    Raises InputError if the file is anything else, or counts a token whose id is not below `vocab_size`.
    """
    try:
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({_first_line(error)}); give token counts saved with numpy.save.") from error
    if not isinstance(counts, np.ndarray) or counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer):
        raise InputError(f"{path} does not hold a one-dimensional array of integers; give one count per token id.")
    if (counts < 0).any():
        raise InputError(f"{path} holds a negative count, of token {np.argmax(counts < 0)}; give counts of 0 or more.")
    beyond = np.flatnonzero(counts[vocab_size:])
    if len(beyond):
        raise InputError(
            f"{path} counts the token {vocab_size + beyond[0]}, outside the vocabulary of {vocab_size}; "
            "give counts made with the model's own tokenizer."
        )
    return np.pad(counts[:vocab_size].astype(np.int64), (0, max(0, vocab_size - len(counts))))


def digest(windows: np.ndarray) -> str:
    """The SHA-256 of integer windows [S, length], in hex; the same on every machine."""
    return hashlib.sha256(str(windows.shape).encode() + windows.astype("<i4").tobytes()).hexdigest()


def _pieces(documents: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The documents in pieces of bounded size, each with whether it ends its document.

    An encoder needs over a hundred bytes a character, so a long document cannot be encoded whole.
    """
    for text in documents:
        start = 0
        while len(text) - start > PIECE_CHARACTERS:
            # Byte-level tokenizers never have a token that spans the start of a space-led word.
            cut = text.rfind(" ", start + 1, start + PIECE_CHARACTERS)
            cut = start + PIECE_CHARACTERS if cut == -1 else cut
            yield text[start:cut], False
            start = cut
        yield text[start:], True


def _batch(pieces: Iterator[tuple[str, bool]], characters: int) -> list[tuple[str, bool]]:
    """The next pieces until they have that many characters (an end of a piece counts as one); empty at the end."""
    batch = []
    for piece in pieces:
        batch.append(piece)
        characters -= len(piece[0]) + 1
        if characters <= 0:
            break
    return batch


def _encode_pieces(batch: list[tuple[str, bool]], tokenizer: Tokenizer) -> np.ndarray:
    eos = np.array([] if tokenizer.eos_id is None else [tokenizer.eos_id], np.int32)
    encoded = zip(tokenizer.encode_batch([text for text, _ in batch]), batch, strict=True)
    return np.concatenate([np.append(ids, eos) if ends_document else ids for ids, (_, ends_document) in encoded])


def _standard_library() -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    modules = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = set(subfolders) - NOT_LIBRARY
        modules += [(Path(folder) / file).relative_to(root).as_posix() for file in files if file.endswith(".py")]
    if not modules:
        raise InputError(f"Python's standard library has no source files in {root}; give other text.")

    def texts() -> Iterator[str]:
        # The order of a hash is the same everywhere and mixes the packages, so that any first part is a fair sample.
        for module in sorted(modules, key=lambda name: hashlib.sha256(name.encode()).digest()):
            try:
                yield (root / module).read_bytes().decode()
            except UnicodeDecodeError:
                continue

    return texts()


def _hub_files(source: str) -> Iterator[Path]:
    """Lists a hub dataset's files at once and downloads each when it is asked for."""
    try:
        uri = parse_hf_uri(source)
    except HfUriError as error:
        raise InputError(f"{source} cannot be read ({error.msg}); give hf://datasets/OWNER/NAME[@REVISION][/PATH].") from error
    if uri.type != "dataset":
        raise InputError(f"{source} is not a dataset; give hf://datasets/OWNER/NAME[@REVISION][/PATH].")

    with hub_errors("dataset", uri.id, uri.revision):
        revision = resolve_revision(uri.id, repo_type="dataset", revision=uri.revision)
        try:
            tree = get_cached_repo_tree(uri.id, repo_type="dataset", revision=revision)
        except CachedRepoTreeNotFoundError:
            # A snapshot of one small file also stores the list of files, which a later run without a connection needs.
            snapshot_download(uri.id, repo_type="dataset", revision=revision, allow_patterns=".gitattributes")
            tree = get_cached_repo_tree(uri.id, repo_type="dataset", revision=revision)

    path = uri.path_in_repo
    names = sorted(file.path for file in tree if _is_known(file.path) and (not path or f"{file.path}/".startswith(f"{path}/")))
    if not names:
        raise InputError(
            f"The dataset {uri.id} has no file of a known kind ({', '.join(READERS)}){f' at {path}' if path else ''}; "
            "give another path, or the revision refs/convert/parquet if the hub made one."
        )

    def files() -> Iterator[Path]:
        for name in names:
            with hub_errors("dataset", uri.id, uri.revision):
                file = hf_hub_download(uri.id, name, repo_type="dataset", revision=revision)
            yield Path(file)

    return files()


def _read(path: Path) -> Iterator[str]:
    """The documents of one file of a known kind."""
    read = next(reader for ending, reader in READERS.items() if path.name.endswith(ending))
    try:
        yield from read(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid UTF-8; convert it to UTF-8.") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read ({_first_line(error)}); check that the file is whole.") from error


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
                raise InputError(f'{path}, line {number} is not JSON; give an object with a "text" on each line.') from error
            text = record.get("text") if isinstance(record, dict) else None
            if not isinstance(text, str):
                raise InputError(f'{path}, line {number} has no string "text"; give an object with one on each line.')
            if not _is_unicode(text):
                raise InputError(f"{path}, line {number} has half of a surrogate pair in its text; repair or remove it.")
            yield text


def _read_parquet(path: Path) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        columns = file.schema_arrow.names
        if "text" not in columns:
            raise InputError(f'{path} has no column "text" (it has {", ".join(columns)}); rename the column that holds the text.')
        batches = file.iter_batches(batch_size=1024, columns=["text"])
        for row, text in enumerate(chain.from_iterable(batch.column(0).to_pylist() for batch in batches), 1):
            if not isinstance(text, str):
                raise InputError(f'{path}, row {row} has no string in the column "text"; remove or repair it.')
            yield text


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines,
    ".jsonl.gz": _read_json_lines,
    ".jsonl.zst": _read_json_lines,
    ".parquet": _read_parquet,
}


def _is_known(name: str) -> bool:
    return name.endswith(tuple(READERS))


def _is_unicode(text: str) -> bool:
    """False for what JSON's escapes can write and UTF-8 cannot: half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")

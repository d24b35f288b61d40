"""How often each token occurs in a text. Letters: V tokens of the model's vocabulary."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from huggingface_hub.utils import WeakFileLock

from jaxconf.data.documents import documents, hub_place
from jaxconf.data.sources import parsed
from jaxconf.data.windows import Piece, batches_of_pieces
from jaxconf.models.errors import InputError, first_line
from jaxconf.models.files import replacing
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.runtime.hosts import first, shared_work, told
from jaxconf.runtime.version import __version__

COUNTED = 40_000_000  # where no token counts are given, they are counted over this many characters of the text


def count_tokens(
    documents: Iterable[str], tokenizer: Tokenizer, vocab_size: int, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """How often each token occurs in a text that is encoded without special tokens, int64 [V].

    `progress` is called with the number of tokens counted so far. Raises InputError if a token's id is not below
    `vocab_size`.
    """
    counts = np.zeros(vocab_size, np.int64)
    total = 0

    def encoded(batch: list[Piece]) -> np.ndarray:
        return np.concatenate(tokenizer.encode_batch([text for text, _ in batch]))

    for ids in shared_work(batches_of_pieces(documents), encoded):
        if ids.max(initial=-1) >= vocab_size:
            raise InputError(
                f"the text holds the token {tokenizer.token(ids.max())!r} with the id {ids.max()}, outside the model's "
                f"vocabulary of {vocab_size:,}; give the tokenizer that the model was trained with, or other text"
            )
        counts += np.bincount(ids, minlength=vocab_size)
        total += len(ids)
        if progress:
            progress(total)
    return counts


def counts_of_source(
    source: str,
    tokenizer: Tokenizer,
    vocab_size: int,
    progress: Callable[[int], None] | None = None,
    keep: Path | None = None,
) -> np.ndarray:
    """`count_tokens` of the first COUNTED characters of a source, which is named as for `jaxconf.documents`.

    The counts of a hub dataset are kept in the user's cache folder, so they are made once for each tokenizer and
    commit. Those of other sources are not, because local files may change, unless `keep` names a folder for the counts
    of texts that stay as they are: of several processes that need the same counts, one makes them, and the others wait.
    """

    def found() -> np.ndarray:
        return count_tokens(first_documents(documents(source), COUNTED), tokenizer, vocab_size, progress)

    folders = [*([keep] if keep else []), *([_cache()] if source.startswith("hf://") else [])]
    if not folders:
        return found()
    name = _name_of_counts(source, tokenizer, vocab_size)
    lock: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        lock = WeakFileLock(keep / f"{name}.lock")
    with lock:
        kept = {folder: _kept_counts(folder / f"{name}.npz", vocab_size) for folder in folders}
        known = [counts for counts in kept.values() if counts is not None]
        counts = known[0] if known else found()
        for folder in [folder for folder, own in kept.items() if own is None] if first() else ():
            with contextlib.suppress(OSError):  # a folder that cannot be written, or a full disk, costs only time
                folder.mkdir(parents=True, exist_ok=True)
                with replacing(folder / f"{name}.npz") as path, path.open("wb") as out:
                    np.savez(out, allow_pickle=False, counts=counts)
    return counts


def _cache() -> Path:
    """Where the counts of hub datasets are kept."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.expanduser raises where a user has no home
    return Path(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache") / "jaxconf" / "counts"


def _name_of_counts(source: str, tokenizer: Tokenizer, vocab_size: int) -> str:
    """A hash of everything that the counts of a source depend on, but for the content of local files."""
    place: tuple[object, ...] = (source,)
    if source.startswith("hf://"):
        of_hub = hub_place(source)
        place = (of_hub.dataset, of_hub.revision.resolved, of_hub.path, *parsed(source)[1:])
    made_of = (tokenizer.to_json(), tokenizer.splits_special_tokens, vocab_size, *place)
    return hashlib.sha256(repr((__version__, COUNTED, *made_of)).encode()).hexdigest()


def _kept_counts(file: Path, vocab_size: int) -> np.ndarray | None:
    """The counts that a file keeps, int64 [V]; None if there is no such file, or if it is spoilt."""

    def content() -> bytes:
        with contextlib.suppress(OSError):
            return file.read_bytes()
        return b""

    found = told(content)
    try:
        with np.load(io.BytesIO(found), allow_pickle=False) as saved:
            counts = saved["counts"]  # its checksum is compared
    except Exception:  # what a spoilt archive raises has no common type
        return None
    return counts if counts.shape == (vocab_size,) and counts.dtype == np.int64 else None


def first_documents(documents: Iterable[str], characters: int = COUNTED) -> Iterator[str]:
    """The first documents, until they have `characters` characters in all.

    The last one is cut off at that limit, or at the space before it, since a word-level tokenizer has no token for half
    a word.
    """
    for text in documents:
        if len(text) > characters:
            space = text.rfind(" ", 0, characters + 1)
            yield text[: max(0, space) if " " in text else characters]
            return
        yield text
        characters -= len(text)
        if not characters:
            return


def read_counts(path: str | Path, vocab_size: int, least: int = 0) -> np.ndarray:
    """Token counts from a .npy file (one-dimensional, integers >= 0), int64 [V]; tokens beyond its end count as 0.

    `least`: how many counts the file must have at least, which is how many tokens the tokenizer has; a model's
    vocabulary may be larger, for padding. Raises InputError if the file is anything else, or counts a token whose id is
    not below `vocab_size`.
    """
    try:
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"the file {path} cannot be read ({first_line(error)}); give token counts saved with numpy.save"
        ) from error
    if not isinstance(counts, np.ndarray) or counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer):
        raise InputError(f"the file {path} holds no one-dimensional array of integers; give one count per token id")
    if (counts < 0).any():
        raise InputError(
            f"the file {path} holds a negative count, of token {np.argmax(counts < 0)}; give counts of 0 or more"
        )
    beyond = np.flatnonzero(counts[vocab_size:])
    if len(beyond):
        raise InputError(
            f"the file {path} counts the token {vocab_size + beyond[0]}, outside the vocabulary of {vocab_size}; give "
            "counts made with the model's own tokenizer"
        )
    if len(counts) < min(least, vocab_size):
        raise InputError(
            f"the file {path} has {len(counts):,} counts, fewer than the {least:,} tokens of the model's tokenizer; "
            "give one count for each token, as `jaxconf unigram` does"
        )
    return np.pad(counts[:vocab_size].astype(np.int64), (0, max(0, vocab_size - len(counts))))

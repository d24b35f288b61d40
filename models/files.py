"""Writing a file so that it appears whole or not at all, and reading a JSON object."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxconf.models.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, for the block to write to.

    The temporary file replaces `path` when the block ends, and is deleted if the block fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError if it holds anything else or cannot be read."""
    try:
        values = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} is not a JSON object; download it again")
    return values

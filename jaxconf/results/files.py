"""Files that carry the facts of a result: Parquet files with the facts in their schema's metadata, and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing

KEY = b"jaxconf"  # of the facts, in the metadata of a Parquet file's schema


def write_parquet(table: pa.Table, facts: Mapping[str, Any], path: Path) -> None:
    """Writes a table with its facts, whole or not at all."""
    metadata = {**(table.schema.metadata or {}), KEY: packed(facts)}
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def read_parquet(path: Path, what: str, advice: str, columns: Sequence[str] = ()) -> tuple[pa.Table, dict[str, Any]]:
    """The table and the facts that `write_parquet` wrote.

    `what`: the kind of file, such as "neuron table". `columns`: columns that such a file has, among others. Raises
    InputError, which ends with `advice`, if there is no such file, if `write_parquet` did not write it or if it lacks
    one of the columns.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; {advice}")
    try:
        table = pq.read_table(path)
        table.select(columns)
        return table, json.loads((table.schema.metadata or {})[KEY])
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is not a {what} of jaxconf; {advice}") from error


def packed(facts: Any) -> bytes:
    """Facts as the metadata of a schema holds them."""
    return json.dumps(plain(facts)).encode()


def plain(value: Any) -> Any:
    """The value as JSON can hold it: numpy's numbers become Python's, and numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value

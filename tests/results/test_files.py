"""Parquet files with facts, and values as JSON can hold them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxconf.models.errors import InputError
from jaxconf.results.files import KEY, plain, read_parquet, write_parquet


def test_a_table_comes_back_with_its_facts(tmp_path):
    table = pa.table({"x": [1.5, None], "name": ["a", "ü"]})
    facts = {"model": "ünï", "shape": (2, np.int64(3)), "loss": np.float32(0.5), "none": float("nan")}
    write_parquet(table, facts, tmp_path / "a.parquet")
    back, read = read_parquet(tmp_path / "a.parquet", "neuron table", "give another")
    assert back.equals(table, check_metadata=False)
    assert read == {"model": "ünï", "shape": [2, 3], "loss": 0.5, "none": None}
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_parquet(pa.table({"x": [1]}), {"old": True}, tmp_path / "a.parquet")

    def fail(table, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_parquet(pa.table({"x": [2]}), {}, tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet", "track", "")[1] == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("content", [None, b"no parquet", "no facts", "no JSON", "no column"])
def test_what_is_no_such_table_is_refused_with_the_advice(tmp_path, content):
    path = tmp_path / "a.parquet"
    if isinstance(content, str):
        name, facts = "y" if content == "no column" else "x", b"{" if content == "no JSON" else b"{}"
        table = pa.table({name: [1]}).replace_schema_metadata({} if content == "no facts" else {KEY: facts})
        pq.write_table(table, path)
    elif content:
        path.write_bytes(content)
    problem = "is not a track of jaxconf" if content else "does not exist"
    with pytest.raises(InputError, match=f"^{path} {problem}; give another$"):
        read_parquet(path, "track", "give another", ["x"])


def test_plain_values_are_what_json_holds():
    value = {1: [np.float32("inf"), (True, np.bool_(False))], "a": {"b": float("nan"), "c": np.int8(3), "d": None}}
    assert plain(value) == {"1": [None, [True, False]], "a": {"b": None, "c": 3, "d": None}}
    json.dumps(plain(value), allow_nan=False)

"""Checkpoints spoilt in every way that a download, a disk or a stranger can spoil them: refused in one sentence, or
loaded unharmed.
"""

import collections
import contextlib
import copy
import io
import os
import struct
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import cases
import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import check_error, check_sentence
from spoilt_checkpoints import (
    BEFORE,
    INDEX,
    NAME,
    REFUSED,
    SHARDS,
    Checkpoint,
    Draw,
    any_byte,
    intact,
    linked,
    same_in_other_words,
)

from jaxconf.cli import main
from jaxconf.models.checkpoint import load_params
from jaxconf.models.errors import InputError
from jaxconf.models.mesh import make_mesh
from jaxconf.models.tensor_files import HEADER, read_header, read_tensors

opened: list[str] | None = None  # the files that are opened while this is a list


def _record(event: str, arguments: tuple) -> None:
    if event == "open" and opened is not None and isinstance(arguments[0], str | bytes | os.PathLike):
        opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_record)


@contextlib.contextmanager
def watched(root: Path) -> Iterator[None]:
    """Only files that stand in `root/model` are opened of what is below `root`, and no more memory is taken than a few
    times their size.
    """
    global opened
    folder = root / "model"
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file() and "safetensors" in file.name)
    opened = []
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        below, opened = [Path(path) for path in opened if Path(path).is_relative_to(root)], None
        assert {path.parent for path in below} <= {folder}
        assert peak < 2**20 + 8 * size


def refused_by_the_command(folder: Path) -> str:
    """What the command says."""
    text = folder.with_name("text.txt")
    text.write_text("A short text.")
    said = io.StringIO()
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        pytest.raises(SystemExit) as stopped,
    ):
        main(["analyze", str(folder), "--data", str(text), "--out", str(folder.with_name("run")), "--quiet"])
    assert stopped.value.code == 2
    message = said.getvalue().removesuffix("\n")
    assert message.startswith("jaxconf: ")
    check_sentence(message)
    return message


refusals: collections.Counter[Callable[[Checkpoint, Draw], None]] = collections.Counter()


@pytest.mark.command
@pytest.mark.parametrize("mutation", [*REFUSED, linked, same_in_other_words, any_byte])
@settings(max_examples=9, derandomize=True)  # 216 in all
@given(data=st.data())
def test_a_spoilt_checkpoint_is_refused_or_loads_unharmed(
    mutation: Callable[[Checkpoint, Draw], None], data: st.DataObject
) -> None:
    config, params = cases.decoder(NAME)
    checkpoint = copy.deepcopy(intact())
    mutation(checkpoint, data.draw)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        folder = root / "model"
        intact().write(root / "outside")
        checkpoint.write(folder)
        try:
            with watched(root):
                loaded = load_params(config, folder, make_mesh(data=1), None)
        except InputError as error:
            assert mutation not in (linked, same_in_other_words)
            check_sentence(str(error))
            refusals[mutation] += 1
            if refusals[mutation] % 4 == 1:  # the command loads as the library does, and takes several times as long
                refused_by_the_command(folder)
        else:
            assert mutation not in REFUSED
            chex.assert_trees_all_equal(jax.tree.map(np.asarray, loaded), params)


def test_the_command_refuses_a_pipe(tmp_path: Path) -> None:
    """In the place of a shard, where it must not be waited on."""
    checkpoint = copy.deepcopy(intact())
    checkpoint.last.append(lambda folder: ((folder / SHARDS[1]).unlink(), os.mkfifo(folder / SHARDS[1])))
    checkpoint.write(tmp_path / "model")
    assert SHARDS[1] in refused_by_the_command(tmp_path / "model")


def test_a_long_header_is_not_read(tmp_path: Path) -> None:
    """However long the file: what stands before the data is bounded."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", HEADER + 1))
    os.truncate(file, 2**36)  # without taking a disk's space
    tracemalloc.start()
    check_error(lambda: read_header(file), "truncated or corrupt")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_single_file_is_checked_like_a_shard(tmp_path: Path) -> None:
    """And an index beside it is not looked at."""
    folder = cases.build(NAME, tmp_path / "model")
    (folder / INDEX).write_text("{")
    assert len(read_tensors(folder)) == len(intact().index["weight_map"])
    content = (folder / BEFORE).read_bytes()
    (folder / BEFORE).write_bytes(content + b"\0")
    check_error(lambda: read_tensors(folder), BEFORE, "truncated or corrupt")
    (folder / BEFORE).unlink()
    os.mkfifo(folder / BEFORE)
    check_error(lambda: read_tensors(folder), BEFORE, "not a regular file")

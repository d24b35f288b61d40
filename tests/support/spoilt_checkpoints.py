"""A checkpoint of three shards, and the ways in which a download, a disk or a stranger can spoil it."""

import dataclasses
import functools
import itertools
import json
import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import safetensors.numpy
from hypothesis import strategies as st

NAME = "neox-serial"
INDEX = "model.safetensors.index.json"
SHARDS = [f"model-{i}-of-3.safetensors" for i in (1, 2, 3)]
BEFORE = "model.safetensors"  # what is read before an index is looked for


@dataclasses.dataclass
class Checkpoint:
    """A checkpoint of three shards, to be spoilt and then written."""

    rows: dict[str, list[tuple[str, Any]]]  # of each shard, name and row of each tensor: a name may stand twice
    data: dict[str, bytes]
    index: Any
    raw: dict[str, bytes] = dataclasses.field(default_factory=dict)  # what is written in place of a file
    length: dict[str, int] = dataclasses.field(default_factory=dict)  # what a shard says of its header's length
    last: list[Callable[[Path], object]] = dataclasses.field(
        default_factory=list
    )  # done to the folder when all is written

    def write(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(cases.CASES[NAME]))
        for file, rows in self.rows.items():
            header = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows) + "}"
            (folder / file).write_bytes(
                struct.pack("<Q", self.length.get(file, len(header))) + header.encode() + self.data[file]
            )
        (folder / INDEX).write_text(json.dumps(self.index))
        for file, content in self.raw.items():
            (folder / file).write_bytes(content)
        for change in self.last:
            change(folder)


@functools.cache
def intact() -> Checkpoint:
    with tempfile.TemporaryDirectory() as name:
        tensors = safetensors.numpy.load_file(cases.build(NAME, Path(name)) / BEFORE)
    rows, data, weight_map = {}, {}, {}
    for i, file in enumerate(SHARDS):
        chosen = sorted(tensors)[i::3]
        ends = np.cumsum([0] + [tensors[key].nbytes for key in chosen]).tolist()
        spans = itertools.pairwise(ends)
        rows[file] = [
            (key, {"dtype": "F32", "shape": list(tensors[key].shape), "data_offsets": list(span)})
            for key, span in zip(chosen, spans, strict=True)
        ]
        data[file] = b"".join(tensors[key].tobytes() for key in chosen)
        weight_map |= dict.fromkeys(chosen, file)
    return Checkpoint(rows, data, {"metadata": {"total_size": 1}, "weight_map": weight_map})


Draw = Callable[[st.SearchStrategy], Any]
HUGE = [2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**400]


def shard_and_row(c: Checkpoint, draw: Draw) -> tuple[str, int, dict[str, Any]]:
    file = draw(st.sampled_from(SHARDS))
    at = draw(st.integers(0, len(c.rows[file]) - 1))
    return file, at, c.rows[file][at][1]


# What can happen to a checkpoint.


def cut(c: Checkpoint, draw: Draw) -> None:
    file = draw(st.sampled_from(SHARDS))
    c.last.append(lambda folder: os.truncate(folder / file, draw(st.integers(0, (folder / file).stat().st_size - 1))))


def more(c: Checkpoint, draw: Draw) -> None:
    c.data[draw(st.sampled_from(SHARDS))] += draw(st.binary(min_size=1, max_size=9))


def header_length(c: Checkpoint, draw: Draw) -> None:
    c.length[draw(st.sampled_from(SHARDS))] = draw(
        st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.sampled_from([10**6, 5 * 10**7, 2**63, 2**64 - 1]))
    )


def offsets(c: Checkpoint, draw: Draw) -> None:
    """Overlaps, gaps, places out of range and before the begin."""
    _, _, row = shard_and_row(c, draw)
    shift = draw(st.one_of(st.integers(-200, 200), st.sampled_from(HUGE), st.sampled_from([-n for n in HUGE]))) or 4
    ends = draw(st.sampled_from([(0,), (1,), (0, 1)]))
    row["data_offsets"] = [offset + shift * (i in ends) for i, offset in enumerate(row["data_offsets"])]


def same_bytes(c: Checkpoint, draw: Draw) -> None:
    """Two tensors of one shape that lie at one place, and where one of them was, nothing."""
    file = draw(st.sampled_from(SHARDS))
    twins = [(a, b) for _, a in c.rows[file] for _, b in c.rows[file] if a is not b and a["shape"] == b["shape"]]
    one, other = draw(st.sampled_from(twins))
    one["data_offsets"] = other["data_offsets"]


def dtype(c: Checkpoint, draw: Draw) -> None:
    _, _, row = shard_and_row(c, draw)
    row["dtype"] = draw(st.sampled_from(["F8_E4M3", "", "F64", "I32", None, [], "F32\nF32"]))


def shape(c: Checkpoint, draw: Draw) -> None:
    _, _, row = shard_and_row(c, draw)
    sizes = row["shape"]
    wrong: list[Any] = [
        [*sizes, 2],
        [0, *sizes],
        [0, 2**62, 2**62],
        [2**32, 2**32],
        [*HUGE],
        [-s for s in sizes],
        [float(s) for s in sizes],
    ]
    wrong += [[1, *sizes], [True, *sizes], str(sizes), sizes[0], None, [sizes], [float("nan")], [[]]]
    row["shape"] = draw(st.sampled_from(wrong))


def many_axes(c: Checkpoint, draw: Draw) -> None:
    """As many bytes as before, but no array of numpy's."""
    _, _, row = shard_and_row(c, draw)
    row["shape"] = [1] * draw(st.sampled_from([65, 10**4])) + row["shape"]


def row_of_another_kind(c: Checkpoint, draw: Draw) -> None:
    file, at, row = shard_and_row(c, draw)
    key = draw(st.sampled_from(sorted(row)))
    without = {name: value for name, value in row.items() if name != key}
    other = draw(
        st.sampled_from(
            [
                None,
                [],
                {},
                3,
                "row",
                without,
                row | {"data_offsets": [0]},
                row | {"data_offsets": [float(n) for n in row["data_offsets"]]},
            ]
        )
    )
    c.rows[file][at] = (c.rows[file][at][0], other)


def twice_in_a_header(c: Checkpoint, draw: Draw) -> None:
    file, at, _ = shard_and_row(c, draw)
    c.rows[file].insert(draw(st.integers(0, len(c.rows[file]))), c.rows[file][at])


def twice_in_two_files(c: Checkpoint, draw: Draw) -> None:
    """A second tensor of the same name: a smaller one, in a shard that the index does not name for it."""
    file, at, _ = shard_and_row(c, draw)
    other = SHARDS[SHARDS.index(file) - 1]
    end = len(c.data[other])
    c.rows[other].append((c.rows[file][at][0], {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}))
    c.data[other] += bytes(4)


def with_and_without_the_prefix(c: Checkpoint, draw: Draw) -> None:
    """A second tensor that would do as well, with other values."""
    file, at, row = shard_and_row(c, draw)
    begin, size = len(c.data[file]), row["data_offsets"][1] - row["data_offsets"][0]
    bare = c.rows[file][at][0].removeprefix("gpt_neox.")
    c.rows[file].append((bare, row | {"data_offsets": [begin, begin + size]}))
    c.data[file] += bytes(size)
    c.index["weight_map"][bare] = file


def renamed(c: Checkpoint, draw: Draw) -> None:
    """In the header alone, or in the index too."""
    file, at, row = shard_and_row(c, draw)
    old = c.rows[file][at][0]
    new = draw(
        st.sampled_from(
            ["", "x", old + " ", old.upper(), old + "\n", old.replace("0", "7") + "x", "\ud800", "x" * 300, "../" + old]
        )
    )
    c.rows[file][at] = (new, row)
    if draw(st.booleans()):
        c.index["weight_map"][new] = c.index["weight_map"].pop(old)


def values(c: Checkpoint, draw: Draw) -> None:
    """NaN and Inf, which no weight is."""
    file = draw(st.sampled_from(SHARDS))
    at = 4 * draw(st.integers(0, len(c.data[file]) // 4 - 1))
    spoilt = draw(st.sampled_from([b"\0\0\xc0\x7f", b"\1\0\x80\xff", b"\0\0\x80\x7f", b"\0\0\x80\xff"]))
    c.data[file] = c.data[file][:at] + spoilt + c.data[file][at + 4 :]


def outside(c: Checkpoint, draw: Draw) -> None:
    """The index leads to a file that would do, elsewhere."""
    file = draw(st.sampled_from(SHARDS))
    elsewhere = draw(
        st.sampled_from(
            ["../outside/", "./../outside/", "{root}/outside/", "sub/../../outside/", "./", "sub/", "{folder}/"]
        )
    )
    links = draw(st.sampled_from(["nothing", "sub"]))
    if links == "sub":
        c.last.append(lambda folder: (folder / "sub").symlink_to(folder.parent / "outside"))

    def name(folder: Path) -> None:
        path = elsewhere.format(root=folder.parent, folder=folder) + file
        weight_map = {key: path if value == file else value for key, value in c.index["weight_map"].items()}
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    c.last.append(name)


def no_file_name(c: Checkpoint, draw: Draw) -> None:
    key = draw(st.sampled_from(sorted(c.index["weight_map"])))
    names = [
        "",
        ".",
        "..",
        "/",
        "a\0b",
        "\ud800",
        "x" * 300,
        "a\nb",
        INDEX,
        "config.json",
        "nothing.safetensors",
        None,
        3,
        1e400,
        [],
        {},
        True,
    ]
    c.index["weight_map"][key] = draw(st.sampled_from(names))


def wrong_shard(c: Checkpoint, draw: Draw) -> None:
    key = draw(st.sampled_from(sorted(c.index["weight_map"])))
    here = c.index["weight_map"][key]
    c.index["weight_map"][key] = draw(st.sampled_from([file for file in SHARDS if file != here]))


def index_of_another_kind(c: Checkpoint, draw: Draw) -> None:
    text = json.dumps(c.index)
    twice = text.replace('{"metadata"', '{"weight_map": {}, "metadata"')
    first = json.dumps(sorted(c.index["weight_map"])[0])
    wrong = [
        "",
        "{",
        "[]",
        "null",
        "NaN",
        "1e999",
        "9" * 9000,
        '"a"',
        '{"weight_map": NaN}',
        '{"weight_map": []}',
        '{"weight_map": 1e999}',
    ]
    wrong += [
        "[" * 50000,
        '{"a":' * 50000,
        '{"weight_map": {}}',
        text[:-9],
        text + "}",
        twice,
        text.replace(first, f"{first}: 1, {first}", 1),
    ]
    c.raw[INDEX] = draw(
        st.sampled_from([*(text.encode() for text in wrong), b"\xff\xfe", b"\0" * 99, b"\x80" + text.encode()])
    )


def header_of_another_kind(c: Checkpoint, draw: Draw) -> None:
    file = draw(st.sampled_from(SHARDS))
    header = draw(
        st.sampled_from(
            [b"", b"{", b"[]", b"null", b"NaN", b"\xff", b'{"a":' * 9000, b"[" * 50000, b"9" * 9000, b'{"a": 1e999}']
        )
    )
    c.raw[file] = struct.pack("<Q", len(header)) + header + c.data[file]


def no_regular_file(c: Checkpoint, draw: Draw) -> None:
    file = draw(st.sampled_from([*SHARDS, INDEX, BEFORE]))

    def replace(folder: Path, make: Callable[[Path], object]) -> None:
        (folder / file).unlink(missing_ok=True)
        make(folder / file)

    kinds: list[Callable[[Path], object]] = [
        Path.mkdir,
        os.mkfifo,
        Path.touch,
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(path.parent),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
        lambda path: (path.symlink_to("loop"), path.with_name("loop").symlink_to(path.name)),
    ]
    make = draw(st.sampled_from(kinds))
    c.last.append(lambda folder: replace(folder, make))


def without_a_file(c: Checkpoint, draw: Draw) -> None:
    file = draw(st.sampled_from([*SHARDS, INDEX]))
    c.last.append(lambda folder: (folder / file).unlink())


def linked(c: Checkpoint, draw: Draw) -> None:
    """Files that lie elsewhere, as in the hub's cache, and links to them in the folder."""
    for file in draw(st.lists(st.sampled_from([*SHARDS, INDEX]), unique=True, min_size=1)):

        def move(folder: Path, file: str = file) -> None:
            (folder / "../blobs").mkdir(exist_ok=True)
            (folder / file).rename(folder / f"../blobs/{file}")
            (folder / file).symlink_to(f"../blobs/{file}")

        c.last.append(move)


def same_in_other_words(c: Checkpoint, draw: Draw) -> None:
    """Another order, metadata, names without the prefix, words in the index that nobody reads."""
    for file in SHARDS:
        c.rows[file] = draw(st.permutations(c.rows[file]))
        if draw(st.booleans()):
            c.rows[file].insert(0, ("__metadata__", {"format": "pt"}))
    c.index |= draw(
        st.sampled_from([{}, {"metadata": float("nan")}, {"metadata": {"total_size": 10**400}}, {"more": [[[]]]}])
    )
    if draw(st.booleans()):
        for file in SHARDS:
            c.rows[file] = [(name.removeprefix("gpt_neox."), row) for name, row in c.rows[file]]
        c.index["weight_map"] = {name.removeprefix("gpt_neox."): file for name, file in c.index["weight_map"].items()}


def any_byte(c: Checkpoint, draw: Draw) -> None:
    """In a header or in the index."""
    file = draw(st.sampled_from([*SHARDS, INDEX]))

    def change(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        end = len(content) if file == INDEX else 8 + struct.unpack("<Q", content[:8])[0]
        for _ in range(draw(st.integers(1, 3))):
            content[draw(st.integers(0, end - 1))] = draw(
                st.one_of(st.integers(0, 255), st.sampled_from(b'0123456789-[]{}",:.eE/'))
            )
        (folder / file).write_bytes(content)

    c.last.append(change)


REFUSED = [
    cut,
    more,
    header_length,
    offsets,
    same_bytes,
    dtype,
    shape,
    many_axes,
    row_of_another_kind,
    twice_in_a_header,
    twice_in_two_files,
    with_and_without_the_prefix,
    renamed,
    values,
    outside,
    no_file_name,
    wrong_shard,
    index_of_another_kind,
    header_of_another_kind,
    no_regular_file,
    without_a_file,
]

"""Safetensors to sharded arrays and back, from folders and from the hub."""

import dataclasses
import functools
import json
import mmap
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import chex
import einops
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from checkpoint_folders import compose, loaded, parts_of, rewrite, split
from hub import hub, point_at
from huggingface_hub import constants
from jax.sharding import PartitionSpec
from parameters import marked
from refusals import check_error

from jaxconf.measure.analyze import analyze
from jaxconf.measure.weights import weight_statistics
from jaxconf.models import checkpoint
from jaxconf.models.checkpoint import load_params, save_params
from jaxconf.models.decoder import Params
from jaxconf.models.families import leaves
from jaxconf.models.language_model import load
from jaxconf.models.leaves import Leaf, nest
from jaxconf.models.mesh import make_mesh, sharding
from jaxconf.models.tensor_files import read_header, read_tensors

needs_eight = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

pytestmark = pytest.mark.usefixtures("compiled_quickly")


# There and back


ON_DEVICES = ("gpt2", "neox", "gemma2", "falcon-grouped")


@pytest.mark.parametrize("name", marked(cases.CASES, devices=ON_DEVICES, quick=cases.with_new_leaves()))
def test_round_trip(name: str, tmp_path: Path) -> None:
    _, params = cases.decoder(name)
    chex.assert_trees_all_equal_comparator(
        lambda a, b: a.tobytes() == b.tobytes() and a.dtype == b.dtype,
        str,
        loaded(cases.build(name, tmp_path), name),
        params,
    )
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_header_equals_the_librarys(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    rng = np.random.default_rng(0)
    tensors = {
        f"{dtype}.{i}": rng.integers(0, 2, shape).astype(dtype)
        for dtype in (np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_)
        for i, shape in enumerate([(), (3,), (2, 0, 2), (2, 3, 4)])
    }
    safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})
    for name, tensor in read_header(file).items():
        value = tensor.map()
        assert value.dtype == tensors[name].dtype
        np.testing.assert_array_equal(value, tensors.pop(name))
    assert not tensors


@pytest.mark.device
@pytest.mark.parametrize("stored", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("target", [None, jnp.float32, jnp.bfloat16])
def test_dtypes(stored: Any, target: Any, tmp_path: Path) -> None:
    name = "llama-mqa"
    config, params = cases.decoder(name)
    narrow = jax.tree.map(lambda w: w.astype(stored), params)
    save_params(config, narrow, tmp_path / "model.safetensors")
    expected = np.dtype(stored if target is None else target)
    if expected == np.float64:
        expected = np.dtype(np.float32)  # as JAX holds it
    chex.assert_trees_all_equal(loaded(tmp_path, name, target), jax.tree.map(lambda w: w.astype(expected), narrow))


def flat(params: Params) -> dict[str, jax.Array]:
    return {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.device
def test_a_dtype_for_each_parameter(folder: Path, one: jax.sharding.Mesh) -> None:
    """The longest name that fits counts, whatever their order; what none names is as stored, and so is what is named
    None.
    """
    asked = {
        "blocks/attn/wq": jnp.float32,
        "blocks": jnp.bfloat16,
        "blocks/attn": jnp.float16,
        "blocks/mlp/w_in": None,
        "ln_final/scale": "bfloat16",
    }
    for dtype in (asked, dict(reversed(asked.items()))):
        params = flat(load(folder, dtype=dtype, mesh=one).params)
        for path, array in params.items():
            named = [key for key in asked if path == key or path.startswith(key + "/")]
            expected = np.dtype(asked[max(named, key=len)] or np.float32) if named else np.float32
            assert array.dtype == expected, path
            np.testing.assert_array_equal(array, flat(cases.decoder("gpt2")[1])[path].astype(expected))
    assert params["ln_final/bias"].dtype == params["blocks/attn/wq"].dtype == np.float32
    assert params["blocks/attn/wk"].dtype == np.float16
    said = check_error(lambda: load(folder, dtype={"blocks/atn": jnp.float32}), "'blocks/atn'", "no parameter")
    assert said.endswith("the nearest is 'blocks/attn'")
    for name in ("unembed", "blocks/", "", "blocks/mlp/w", 3):
        check_error(lambda name=name: load(folder, dtype={name: None}), repr(name), "no parameter")
    for wrong in ("float23", np.int32, {"blocks": "no"}, [1]):
        check_error(lambda wrong=wrong: load(folder, dtype=wrong), "floating-point type")


@pytest.mark.parametrize("name", marked(["gpt2", "llama-mqa"], devices=["llama-mqa"], quick=["llama-mqa"]))
def test_parameters_of_several_dtypes_run(name: str, tmp_path: Path, one: jax.sharding.Mesh) -> None:
    cases.build(name, tmp_path)
    lm = load(tmp_path, mesh=one)
    tokens = cases.prompt(lm.config.vocab_size)
    logits = lm.apply(tokens).logits
    for branch in ("embed", "blocks/attn", "ln_final"):
        mixed = load(tmp_path, dtype={branch: jnp.bfloat16}, mesh=one).apply(tokens).logits
        assert mixed.dtype == np.float32
        # The weights' rounding, 2⁻⁹ each, and that of a whole stream in bfloat16 at most.
        assert 0 < float(jnp.abs(mixed - logits).max()) < 0.1 * float(jnp.abs(logits).max()), branch


@pytest.mark.parametrize(
    "name",
    marked(
        ["gpt2", "gpt2-unscaled", "neox-serial", "gemma2", "opt-summed"],
        devices=["gpt2-unscaled"],
        quick=["gpt2", "gemma2", "opt-summed"],  # a tied head, a norm behind the MLP, no final norm and a projection
    ),
)
def test_the_last_layer_alone(
    name: str, tmp_path: Path, one: jax.sharding.Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weight statistics are those of the whole model, and no tensor that they do not need is read."""
    cases.build(name, tmp_path)
    whole = load(tmp_path, mesh=one)
    read: list[int] = []
    offsets = {tensor.offset: key for key, tensor in read_tensors(tmp_path).items()}
    map_tensor = checkpoint.Tensor.map
    monkeypatch.setattr(checkpoint.Tensor, "map", lambda tensor: (read.append(tensor.offset), map_tensor(tensor))[1])
    last = load(tmp_path, mesh=one, layers="last")
    inside = [offsets[offset] for offset in read]
    assert not [key for key in inside if ".0." in key or "attn" in key or "wpe" in key]
    assert [key for key in inside if f".{whole.config.n_layers - 1}." in key]
    for path, array in flat(last.params).items():
        expected = flat(whole.params)[path]
        np.testing.assert_array_equal(array, expected[-1:] if path.startswith("blocks/") else expected)
    counts = np.arange(whole.config.vocab_size) ** 2
    for convention in ("paper", "raw"):
        pd.testing.assert_frame_equal(
            weight_statistics(last, counts, convention, k=3),
            weight_statistics(whole, counts, convention, k=3),
            rtol=1e-6,
        )
    tokens = cases.prompt(whole.config.vocab_size)
    for run in (
        lambda: last.apply(tokens),
        lambda: analyze(last, tokens, counts=np.ones(last.config.vocab_size, int), nulls=0),
    ):
        check_error(run, "last layer", 'layers="last"')


def test_the_last_layer_alone_is_checked_like_the_whole(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop("transformer.h.0.ln_1.bias"))
    check_error(lambda: load(folder, layers="last"), "lack tensor", "h.0.ln_1.bias")
    check_error(lambda: load(folder, layers="first"), "'first'", "'last'")  # type: ignore[arg-type]


@pytest.mark.device
def test_sharded_checkpoint(tmp_path: Path) -> None:
    name = "neox"
    index = split(cases.build(name, tmp_path), 3)
    chex.assert_trees_all_equal(loaded(tmp_path, name), cases.decoder(name)[1])

    def with_index(value: Any) -> Callable[[], object]:
        (tmp_path / "model.safetensors.index.json").write_text(value if isinstance(value, str) else json.dumps(value))
        return lambda: loaded(tmp_path, name)

    first = sorted(index["weight_map"])[0]
    check_error(
        with_index({"weight_map": index["weight_map"] | {first: "model-00009-of-00003.safetensors"}}),
        "model-00009-of-00003",
        "cannot be read (No such file",
    )
    check_error(
        with_index({"weight_map": index["weight_map"] | {"nowhere": "model-00001-of-00003.safetensors"}}),
        "lacks tensor 'nowhere' in the file",
    )
    for broken in ("{", "[]", {}, {"weight_map": ["a"]}, {"weight_map": {"a": 1}}):
        check_error(with_index(broken), "model.safetensors.index.json", "not a safetensors index")


@pytest.mark.parametrize("name", ["gpt2", "neox", "llama", "stablelm"])
def test_names_with_and_without_the_prefix(name: str, tmp_path: Path) -> None:
    cases.build(name, tmp_path)
    prefix = {"gpt2": "transformer.", "neox": "gpt_neox.", "llama": "model.", "stablelm": "model."}[name]

    def strip(tensors: dict[str, np.ndarray]) -> None:
        assert sum(key.startswith(prefix) for key in tensors) >= len(tensors) - 1
        for key in list(tensors):
            tensors[key.removeprefix(prefix)] = tensors.pop(key)

    rewrite(tmp_path, strip)
    chex.assert_trees_all_equal(loaded(tmp_path, name), cases.decoder(name)[1])


@pytest.mark.parametrize(
    ("name", "buffers"),
    [
        ("gpt2", ["transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias", "h.1.attn.bias"]),
        ("neox", ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.1.attention.rotary_emb.inv_freq"]),
        ("llama", ["model.layers.0.self_attn.rotary_emb.inv_freq"]),
        ("stablelm", ["model.layers.1.self_attn.rotary_emb.inv_freq"]),
    ],
)
def test_buffers_of_old_versions_are_ignored(name: str, buffers: list[str], tmp_path: Path) -> None:
    cases.build(name, tmp_path)
    rewrite(
        tmp_path, lambda tensors: tensors.update({buffer: np.tril(np.ones((4, 4), np.uint8)) for buffer in buffers})
    )
    chex.assert_trees_all_equal(loaded(tmp_path, name), cases.decoder(name)[1])


@pytest.mark.parametrize(
    ("name", "head", "embedding"),
    [
        ("gpt2", "lm_head.weight", "transformer.wte.weight"),
        ("neox-serial", "embed_out.weight", "gpt_neox.embed_in.weight"),
        ("llama-mqa", "lm_head.weight", "model.embed_tokens.weight"),
    ],
)
def test_tied_head(name: str, head: str, embedding: str, tmp_path: Path) -> None:
    """An equal copy of the embedding loads without taking memory, a different one raises."""
    cases.build(name, tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({head: tensors[embedding].copy()}))
    chex.assert_trees_all_equal(loaded(tmp_path, name), cases.decoder(name)[1])
    rewrite(tmp_path, lambda tensors: tensors[head].__setitem__((-1, -1), 7))
    check_error(lambda: loaded(tmp_path, name), head, "differs", "tie_word_embeddings")


# Meshes


SPLIT = {"heads", "kv_heads", "mlp", "vocab"}  # the axes that `model` splits, where they divide


@needs_eight
@pytest.mark.parametrize("shape", [(2, 4), (1, 8)])
@pytest.mark.parametrize("name", ["gpt2-unscaled", "neox-serial", "llama-gqa"])
def test_leaves_on_a_mesh(name: str, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every leaf is split as the rules say, every entry is read once, and never more at a time than one device holds of
    one layer.
    """
    config = dataclasses.replace(cases.decoder(name)[0], vocab_size=64)
    rng = np.random.default_rng(0)
    params = nest((leaf.path, rng.random(leaf.shape(config), np.float32)) for leaf in leaves(config))
    save_params(config, params, tmp_path / "model.safetensors")
    mesh = make_mesh(*shape)
    read: list[int] = []
    copy = checkpoint._copy

    def recorded(view: np.ndarray, to: np.ndarray) -> bool:
        assert isinstance(view, np.memmap)
        assert view._mmap is not None  # a view of the file, not a copy
        read.append(view.size)
        return copy(view, to)

    monkeypatch.setattr(checkpoint, "_copy", recorded)
    load_leaf = checkpoint._load_leaf
    sizes, totals = {}, {}

    def measured(config: Any, leaf: Leaf, *args: Any) -> jax.Array:
        read.clear()
        array = load_leaf(config, leaf, *args)
        sizes[leaf.path], totals[leaf.path] = max(read), sum(read)
        return array

    monkeypatch.setattr(checkpoint, "_load_leaf", measured)
    placed = load_params(config, tmp_path, mesh, None)
    for leaf in leaves(config):
        array, value = (
            functools.reduce(lambda node, key: node[key], leaf.path.split("/"), tree) for tree in (placed, params)
        )
        split_by = [
            shape[1] if axis in SPLIT and size % shape[1] == 0 else 1
            for axis, size in zip(leaf.axes, value.shape, strict=True)
        ]
        assert array.sharding.spec == PartitionSpec(*("model" if n > 1 else None for n in split_by)), leaf.path
        assert array.sharding.mesh == mesh
        held = value.size // np.prod(split_by)
        assert sizes[leaf.path] == held // (config.n_layers if leaf.stacked else 1), leaf.path
        assert totals[leaf.path] == value.size, leaf.path
        assert len(array.addressable_shards) == 8
        for shard in array.addressable_shards:
            assert shard.data.size == held
            np.testing.assert_array_equal(shard.data, value[shard.index], err_msg=leaf.path)


@needs_eight
def test_the_host_holds_one_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On devices with a memory of their own, as which these here pose, the host needs no more than what one of them
    holds of a leaf.
    """
    config = dataclasses.replace(cases.decoder("llama")[0], vocab_size=65536)
    params = nest((leaf.path, np.ones(leaf.shape(config), np.float32)) for leaf in leaves(config))
    save_params(config, params, tmp_path / "model.safetensors")
    monkeypatch.setattr(checkpoint, "BLOCK", 2**12)
    put = jax.device_put

    def sent(piece: np.ndarray, device: jax.Device) -> jax.Array:
        """A copy in memory that is not counted."""
        own = np.frombuffer(mmap.mmap(-1, piece.nbytes), piece.dtype).reshape(piece.shape)
        own[:] = piece
        return put(own, device)

    monkeypatch.setattr(jax, "device_put", sent)
    load_leaf = checkpoint._load_leaf
    peaks = {}

    def measured(config: Any, leaf: Leaf, *args: Any) -> jax.Array:
        tracemalloc.start()
        array = load_leaf(config, leaf, *args)
        peaks[leaf.path] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return array

    monkeypatch.setattr(checkpoint, "_load_leaf", measured)
    load_params(config, tmp_path, make_mesh(data=1, model=8), None)
    assert peaks["unembed/w"] < 2 * (65536 * 32 * 4 // 8), (
        peaks
    )  # the last leaf: all that happens once for a process has happened


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_nan_and_inf_are_seen_wherever_they_stand(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "BLOCK", 8)
    monkeypatch.setattr(checkpoint, "SIDE", 2)
    values = np.array(
        [0, -0.0, 1, -1, jnp.finfo(dtype).max, jnp.finfo(dtype).min, jnp.finfo(dtype).smallest_subnormal], dtype
    )
    for stored in (np.resize(values, (5, 9)), np.resize(values, (5, 9)).astype(np.float32)):
        to = np.empty((9, 5), dtype)
        assert checkpoint._copy(stored.T, to)
        np.testing.assert_array_equal(to, stored.T.astype(dtype))
        for value in (np.nan, -np.nan, np.inf, -np.inf):
            for at in np.ndindex(stored.shape):
                spoilt = stored.copy()
                spoilt[at] = value
                assert not checkpoint._copy(spoilt.T, to)


@pytest.mark.parametrize("view", ["a b c -> a b c", "a b c -> c a b", "a b c -> b c a", "a b c -> c b a"])
@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 9, 4), (6, 1, 1), (1, 1, 1)])
def test_copying_in_blocks(view: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    stored = np.arange(np.prod(shape)).reshape(shape)
    wanted = einops.rearrange(stored, view)[:, :, :2].astype(np.float32)
    for block in (1, 2, 8, 1000):
        monkeypatch.setattr(checkpoint, "BLOCK", block)
        monkeypatch.setattr(checkpoint, "SIDE", block)
        to = np.full(wanted.shape, -1, np.float32)
        checkpoint._copy(wanted, to)
        np.testing.assert_array_equal(to, wanted)


@pytest.mark.device
def test_parameters_do_not_change_with_the_file(folder: Path) -> None:
    """Devices may take a host's array over without a copy, if it is aligned, which must never be the mapped file
    itself.
    """
    file = folder / "model.safetensors"
    header, data = parts_of(file)
    text = json.dumps(header).encode()
    file.write_bytes(compose(text + b" " * (-(8 + len(text)) % 64), data))
    params = load_params(cases.decoder("gpt2")[0], folder, make_mesh(data=1), None)
    with file.open("r+b") as f:
        f.write(bytes(file.stat().st_size))
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, params), cases.decoder("gpt2")[1])


@needs_eight
def test_shardings() -> None:
    mesh = make_mesh(data=2, model=4)
    assert dict(mesh.shape) == {"data": 2, "model": 4}
    assert make_mesh().shape == {"data": 8, "model": 1}
    assert make_mesh(model=2).shape == {"data": 4, "model": 2}
    assert sharding(mesh, ("batch", "positions", "vocab"), (4, 7, 64)).spec == PartitionSpec("data", None, "model")
    assert sharding(mesh, ("vocab", "embed"), (50257, 768)).spec == PartitionSpec(None, None)
    assert sharding(mesh, ("heads", "mlp"), (4, 4)).spec == PartitionSpec("model", None)  # a name is split once
    with pytest.raises(KeyError, match="neurons"):
        sharding(mesh, ("embed", "neurons"), (4, 4))
    with pytest.raises(ValueError, match="devices"):
        make_mesh(data=4, model=4)


# The hub


def test_load_from_the_hub(folder: Path, tmp_path: Path, one: jax.sharding.Mesh) -> None:
    """By id, by revision, only what is needed, and from the cache when the hub is off or out of reach."""
    second = cases.build("llama-mqa", tmp_path / "second")
    for extra in ("pytorch_model.bin", "README.md", "onnx/model.onnx", "tf_model.h5"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(b"not wanted")
    cache = tmp_path / "cache"
    with hub({"models/owner/name": {"main": folder, "v2": second}}, cache) as server:
        lm = load("owner/name", mesh=one)
        assert lm.config == cases.decoder("gpt2")[0]
        assert lm.name == "owner/name"
        assert lm.revision is not None
        assert len(lm.revision) == 40
        chex.assert_trees_all_equal(jax.tree.map(np.asarray, lm.params), cases.decoder("gpt2")[1])
        assert not [
            request for request in server.requests if any(name in request for name in ("bin", "README", "onnx", "h5"))
        ]
        newer = load("owner/name", "v2", mesh=one)
        assert newer.config == cases.decoder("llama-mqa")[0]
        assert newer.revision != lm.revision
        assert load("owner/name", lm.revision, mesh=one).config == lm.config
    with point_at(server.endpoint, cache):  # nobody listens there any more
        assert load("owner/name", mesh=one).revision == lm.revision
        check_error(lambda: load("owner/name", "v3"), "owner/name", "cannot be fetched")
    with point_at(server.endpoint, cache), pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert load("owner/name", "v2", mesh=one).revision == newer.revision
        check_error(lambda: load("owner/other"), "owner/other", "cache")


def test_a_local_folder_asks_nobody(folder: Path, tmp_path: Path, one: jax.sharding.Mesh) -> None:
    with hub({}, tmp_path / "cache") as server:
        lm = load(folder, mesh=one)
        assert lm.revision is None
        assert lm.folder == folder
        assert server.requests == []


def test_hub_models_that_cannot_be_had(folder: Path, tmp_path: Path) -> None:
    repos = {"models/owner/name": {"main": folder}}
    with hub(repos, tmp_path / "cache"):
        check_error(lambda: load("owner/nothing"), "no model owner/nothing")
        check_error(lambda: load("owner/name", "v9"), "owner/name", "no revision v9")
        check_error(lambda: load("owner//name"), "no folder owner//name")
    with hub(repos, tmp_path / "gated", token="secret"):
        check_error(lambda: load("owner/name"), "owner/name", "gated", "HF_TOKEN")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_TOKEN", "secret")
            assert load("owner/name").name == "owner/name"


def test_hub_model_with_pickled_weights_only(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not to be read")
    with hub({"models/owner/name": {"main": folder}}, tmp_path / "cache") as server:
        check_error(lambda: load("owner/name"), "no model.safetensors")
        assert not [request for request in server.requests if "bin" in request]


def test_sharded_hub_model(tmp_path: Path, one: jax.sharding.Mesh) -> None:
    folder = cases.build("neox", tmp_path / "model")
    split(folder, 2)
    with hub({"models/owner/name": {"main": folder}}, tmp_path / "cache"):
        chex.assert_trees_all_equal(
            jax.tree.map(np.asarray, load("owner/name", mesh=one).params), cases.decoder("neox")[1]
        )

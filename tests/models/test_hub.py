"""Models of the hub, from a stand-in for it on this machine."""

from pathlib import Path

import cases
import chex
import jax
import numpy as np
import pytest
from checkpoint_files import split
from hub import hub, point_at
from huggingface_hub import constants
from refusals import check_error

from jaxconf.models.language_model import load


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

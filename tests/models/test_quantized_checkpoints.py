"""Checkpoints in formats that are not loaded: quantized weights and GGUF. What is only left over from one loads."""

import json
from pathlib import Path

import cases
import chex
import jax
import ml_dtypes
import numpy as np
import pytest
from checkpoint_folders import rewrite
from hub import hub
from refusals import check_error

from jaxconf.measure.inputs import config_of
from jaxconf.models.language_model import load

NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "leftover",
    [
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization": {"group_size": 64, "bits": 4}},
    ],
)
def test_what_is_left_of_a_quantization_does_not_matter(leftover: dict, tmp_path: Path, one: jax.sharding.Mesh) -> None:
    cases.build("llama", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(cases.CASES["llama"] | leftover))
    lm = load(tmp_path, mesh=one)
    assert lm.config == cases.decoder("llama")[0]
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, lm.params), cases.decoder("llama")[1])


U8, U32, I32 = np.zeros((48, 16), np.uint8), np.zeros((48, 4), np.uint32), np.zeros((4, 48), np.int32)
SMALL = np.ones((48, 1), np.float16)


@pytest.mark.parametrize(
    ("scheme", "tensors"),
    [
        ("bitsandbytes (4 bits)", {"weight": U8, "weight.absmax": SMALL, "weight.quant_state.bitsandbytes__nf4": U8}),
        ("bitsandbytes (8 bits)", {"weight": np.zeros((48, 32), np.int8), "SCB": SMALL, "weight_format": U8[0]}),
        ("GPTQ", {"qweight": I32, "qzeros": I32, "scales": SMALL, "g_idx": I32[0]}),
        ("AWQ", {"qweight": I32, "qzeros": I32, "scales": SMALL}),
        ("MLX", {"weight": U32, "scales": SMALL, "biases": SMALL}),
        ("MXFP4", {"weight_blocks": U8, "weight_scales": U8[:, :1]}),
        ("compressed-tensors", {"weight_packed": I32, "weight_scale": SMALL, "weight_shape": I32[0]}),
        ("HQQ", {"W_q": U8, "scale": SMALL, "zero": SMALL}),
        ("fp8", {"weight": np.ones((48, 32), ml_dtypes.float8_e4m3fn), "weight_scale_inv": SMALL}),
    ],
)
def test_quantized_weights_name_their_scheme(
    scheme: str, tensors: dict[str, np.ndarray], tmp_path: Path, one: jax.sharding.Mesh
) -> None:
    cases.build("llama", tmp_path)
    stem = NAME.removesuffix("weight")
    rewrite(tmp_path, lambda t: (t.pop(NAME), t.update({stem + name: value for name, value in tensors.items()})))
    said = check_error(lambda: load(tmp_path, mesh=one), "only full-precision weights", "on the hub names as its base")
    assert f"quantized by {scheme}," in said


@pytest.mark.parametrize("with_config", [True, False])
def test_a_folder_with_gguf_files(with_config: bool, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-q4_0.gguf")
    if not with_config:
        (folder / "config.json").unlink()
    check_error(lambda: load(folder), str(folder), "GGUF", "llama.cpp", "that they were made from")


def test_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    check_error(lambda: load(tmp_path / "m.gguf"), "m.gguf", "GGUF", "llama.cpp")


def test_gguf_on_the_hub(tmp_path: Path) -> None:
    """Also where only config.json is wanted, and then no file is downloaded."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "m.q4_0.gguf").write_bytes(b"not to be read")
    with hub({"models/owner/name": {"main": tmp_path / "repo"}}, tmp_path / "cache") as server:
        for call in (load, config_of):
            check_error(lambda call=call: call("owner/name"), "the model owner/name", "GGUF", "llama.cpp")
        assert not [request for request in server.requests if "gguf" in request]

"""Files of mixtures of experts: one tensor for each expert or one for all, split over devices, and what is refused.

Letters: d model width, m neuron of an expert.
"""

import json
from pathlib import Path
from typing import Any

import cases
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from refusals import check_error

from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import load
from jaxconf.models.mesh import make_mesh

WEIGHTS = "model.safetensors"


def rewritten(folder: Path, change: Any) -> Path:
    """The folder, after `change` was made to the dict of its tensors."""
    tensors = safetensors.numpy.load_file(folder / WEIGHTS)
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / WEIGHTS)
    return folder


def fuse(tensors: dict[str, np.ndarray], name: str) -> None:
    """One tensor for all experts of a layer, as newer versions of transformers can save them."""
    experts, prefix = cases.CASES[name].get("num_experts", 4), "model.layers.{}.mlp.experts."
    modules = ("gate_proj", "up_proj", "down_proj")
    if name == "mixtral":
        modules = ("w1", "w3", "w2")
        for layer in range(2):
            old = f"model.layers.{layer}.block_sparse_moe.gate.weight"
            tensors[f"model.layers.{layer}.mlp.gate.weight"] = tensors.pop(old)
    for layer in range(cases.CASES[name]["num_hidden_layers"]):
        into = prefix.format(layer)
        own = into.replace("mlp", "block_sparse_moe") if name == "mixtral" else into
        gate, up, down = (
            [tensors.pop(f"{own}{expert}.{module}.weight") for expert in range(experts)] for module in modules
        )
        both = [np.concatenate(pair) for pair in zip(gate, up, strict=True)]  # gate before up: 2m d
        tensors[f"{into}gate_up_proj"], tensors[f"{into}down_proj"] = np.stack(both), np.stack(down)


@pytest.mark.parametrize("name", ["qwen2_moe", "mixtral"])
def test_experts_in_one_tensor_are_those_of_single_ones(name: str, tmp_path: Path) -> None:
    folder = cases.build(name, tmp_path)
    expected = load(folder).params
    chex.assert_trees_all_equal(load(rewritten(folder, lambda tensors: fuse(tensors, name))).params, expected)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "gpt_oss"])
def test_a_devices_part_may_begin_and_end_within_experts(name: str, tmp_path: Path) -> None:
    folder, config = cases.build(name, tmp_path), cases.decoder(name)[0]
    devices = 8 if config.d_mlp % 8 == 0 else 6 if config.d_mlp % 6 == 0 else 2
    assert config.d_mlp // devices % config.experts[0]
    split = load(folder, mesh=make_mesh(data=1, model=devices)).params
    chex.assert_trees_all_equal(split, load(folder).params)
    w_in = split["blocks"]["mlp"]["w_in"]
    assert w_in.sharding.shard_shape(w_in.shape)[2] == config.d_mlp // devices
    last = load(folder, layers="last", mesh=make_mesh(data=1, model=devices)).params
    chex.assert_trees_all_equal(
        last["blocks"]["mlp"], jax.tree.map(lambda w: jnp.asarray(w)[-1:], split["blocks"]["mlp"])
    )


def test_what_is_saved_is_what_was_loaded(tmp_path: Path) -> None:
    """Also the tensors of GPT-OSS, which hold all experts, and in turn gate and input weights."""
    tensors = safetensors.numpy.load_file(cases.build("gpt_oss", tmp_path) / WEIGHTS)
    config, params = cases.decoder("gpt_oss")
    both = tensors["model.layers.1.mlp.experts.gate_up_proj"]
    assert both.shape == (4, config.d_model, 20)
    mlp = params["blocks"]["mlp"]
    np.testing.assert_array_equal(both[2, :, ::2], mlp["w_gate"][1, :, 20:30])
    np.testing.assert_array_equal(both[2, :, 1::2], mlp["w_in"][1, :, 20:30])
    np.testing.assert_array_equal(tensors["model.layers.1.mlp.experts.down_proj"][2], mlp["w_out"][1, 20:30])


def test_broken_files_are_one_sentence(tmp_path: Path) -> None:
    folder = cases.build("qwen2_moe", tmp_path)
    whole = safetensors.numpy.load_file(folder / WEIGHTS)
    one = "model.layers.1.mlp.experts.2.up_proj.weight"

    def check(change: Any, *words: str) -> None:
        safetensors.numpy.save_file(whole, folder / WEIGHTS)
        check_error(lambda: load(rewritten(folder, change)), *words)

    check(lambda tensors: tensors.pop(one), "lack tensor", one.removeprefix("model."))
    check(lambda tensors: tensors.update({one: whole[one][:, :-1].copy()}), "shape", one.removeprefix("model."))

    def twice(tensors: dict[str, np.ndarray]) -> None:
        fuse(tensors, "qwen2_moe")
        tensors[one] = whole[one]

    check(twice, "in two forms")

    def too_few(tensors: dict[str, np.ndarray]) -> None:
        fuse(tensors, "qwen2_moe")
        tensors["model.layers.1.mlp.experts.down_proj"] = tensors["model.layers.1.mlp.experts.down_proj"][:3].copy()

    check(too_few, "lack tensor", "layers.1.mlp.experts.0.down_proj.weight")
    blocks = "model.layers.0.mlp.experts.gate_up_proj_blocks"
    check(lambda tensors: tensors.update({blocks: np.zeros((2, 2), np.uint8)}), "MXFP4", "full-precision")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("qwen3_moe", {"mlp_only_layers": [0]}, "some layers a plain MLP"),
        ("qwen2_moe", {"decoder_sparse_step": 2}, "some layers a plain MLP"),
        ("mixtral", {"num_experts_per_tok": 5}, "4 experts"),
        ("mixtral", {"num_local_experts": 10**9}, "1000000000 experts"),
        ("olmoe", {"intermediate_size": 0}, "0 wide"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(name: str, change: dict, words: str) -> None:
    check_error(lambda: config_from_hf(json.loads(json.dumps(cases.CASES[name] | change))), words)

"""LoRA adapters of PEFT, merged into their base model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from adapters import ADAPTERS, RECORDED, change, recorded
from byte_tokenizer import byte_tokenizer
from checkpoint_folders import rewrite
from hub import hub
from parameters import marked
from refusals import check_error

from jaxconf.measure.facts import facts_of
from jaxconf.measure.inputs import config_of
from jaxconf.measure.unigram import unigram
from jaxconf.measure.weights import weight_statistics
from jaxconf.models.language_model import LanguageModel, load, text_folder
from jaxconf.models.mesh import make_mesh
from jaxconf.runtime.timing import Timing

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WEIGHTS = "adapter_model.safetensors"


def arrays(lm: LanguageModel) -> Any:
    return jax.tree.map(np.asarray, lm.params)


@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_of_what_peft_merged(name: str, tmp_path: Path, one: jax.sharding.Mesh) -> None:
    lm = load(recorded(name, tmp_path), mesh=one)
    np.testing.assert_allclose(lm.apply(cases.prompt(67)).logits, np.load(RECORDED / name / "logits.npy"), atol=1e-4)


def test_the_products_by_hand(tmp_path: Path, one: jax.sharding.Mesh) -> None:
    """W + factor·(B·A)ᵀ, as GPT-2 stores W as [in, out]; ranks and factors from the patterns, alpha over √rank."""
    adapter = recorded("gpt2-ranks", tmp_path)
    matrices = safetensors.numpy.load_file(adapter / WEIGHTS)
    factors = {
        **{f"h.{i}.attn.c_attn": 6 / rank**0.5 for i, rank in enumerate((2, 4))},
        **{f"h.{i}.attn.c_proj": 5 / 2 for i in range(2)},
        **{f"h.{i}.mlp.c_fc": 6 / rank**0.5 for i, rank in enumerate((4, 3))},
        **{f"h.{i}.mlp.c_proj": 6 / 2 for i in range(2)},
    }

    def by_hand(tensors: dict[str, np.ndarray]) -> None:
        for module, factor in factors.items():
            A, B = (matrices.pop(f"base_model.model.transformer.{module}.lora_{x}.weight") for x in "AB")
            tensors[f"transformer.{module}.weight"] += factor * np.einsum("or,ri->io", B, A)

    merged = load(adapter, mesh=one)
    rewrite(tmp_path / "base", by_hand)
    assert not matrices
    chex.assert_trees_all_close(arrays(merged), arrays(load(tmp_path / "base", mesh=one)), atol=1e-5)


def test_bfloat16_weights_are_summed_in_float32(tmp_path: Path, one: jax.sharding.Mesh) -> None:
    adapter = recorded("llama-saved", tmp_path)
    rewrite(tmp_path / "base", lambda tensors: tensors.update({n: t.astype(jnp.bfloat16) for n, t in tensors.items()}))
    exact, stored = load(adapter, mesh=one), load(adapter, dtype={"blocks": None}, mesh=one)
    wq = np.asarray(exact.params["blocks"]["attn"]["wq"])
    assert (wq != wq.astype(jnp.bfloat16).astype(np.float32)).mean() > 0.9
    np.testing.assert_array_equal(stored.params["blocks"]["attn"]["wq"], wq.astype(jnp.bfloat16))


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
@pytest.mark.parametrize("name", marked(ADAPTERS, quick=["llama-embedding"]))
def test_on_a_mesh_and_the_last_layer_alone(name: str, tmp_path: Path, one: jax.sharding.Mesh) -> None:
    adapter = recorded(name, tmp_path)
    whole = load(adapter, mesh=one)
    chex.assert_trees_all_equal(arrays(load(adapter, mesh=make_mesh(data=2, model=4))), arrays(whole))
    last = load(adapter, mesh=one, layers="last")
    assert weight_statistics(last, k=2).equals(weight_statistics(whole, k=2))


def test_names_of_wrapped_modules(tmp_path: Path, one: jax.sharding.Mesh) -> None:
    """torch.compile, FSDP, activation checkpoints and DataParallel put their names before or into those of tensors."""
    adapter = recorded("gpt2-ranks", tmp_path)
    expected = arrays(load(adapter, mesh=one))

    def renamed(change: Callable[[str], str]) -> Callable[[dict[str, np.ndarray]], None]:
        def rename(tensors: dict[str, np.ndarray]) -> None:
            for name in [*tensors]:
                tensors[change(name)] = tensors.pop(name)

        return rename

    rewrite(tmp_path / "base", renamed(lambda name: "module._orig_mod." + name.replace("h.1.", "h.1._orig_mod.")))
    (adapter / WEIGHTS).rename(adapter / "model.safetensors")
    rewrite(adapter, renamed(lambda name: "_fsdp_wrapped_module.module." + name.replace(".mlp.", "._orig_mod.mlp.")))
    (adapter / "model.safetensors").rename(adapter / WEIGHTS)
    chex.assert_trees_all_equal(arrays(load(adapter, mesh=one)), expected)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("gemma3-vision", "model.language_model.layers.1.mlp.up_proj"),
        ("gemma3-vision", "language_model.model.layers.1.mlp.up_proj"),
        ("mixtral", "model.layers.1.block_sparse_moe.experts.2.w3"),
    ],
)
def test_a_text_model_and_an_expert(name: str, module: str, tmp_path: Path, one: jax.sharding.Mesh) -> None:
    """Of models whose tensors may begin with one of several prefixes, and of one expert among others."""
    base = load(cases.build(name, tmp_path / "base"), mesh=one)
    rng = np.random.default_rng(0)
    width = base.config.experts[2] if base.config.experts else base.config.d_mlp
    A, B = (rng.standard_normal(size, np.float32) for size in ((2, base.config.d_model), (width, 2)))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    values = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "base"), "r": 2, "lora_alpha": 6}
    (adapter / "adapter_config.json").write_text(json.dumps(values))
    named = {f"base_model.model.{module}.lora_{x}.weight": matrix for x, matrix in (("A", A), ("B", B))}
    safetensors.numpy.save_file(named, adapter / WEIGHTS)
    expected = arrays(base)
    before = sum(base.config.experts[:2])
    w_in = expected["blocks"]["mlp"]["w_in"] = expected["blocks"]["mlp"]["w_in"].copy()
    w_in[1][:, before : before + width] += 3 * (B @ A).T
    chex.assert_trees_all_close(arrays(load(adapter, mesh=one)), expected, atol=1e-5)


# Adapters that are refused


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"peft_type": "PREFIX_TUNING"}, ["'PREFIX_TUNING'", "only LORA", "merge_and_unload"]),
        ({"peft_type": None}, ["None", "only LORA"]),
        ({"use_dora": True}, ["'use_dora'", "plain LoRA", "merge_and_unload"]),
        ({"bias": "lora_only"}, ["'bias'", "'lora_only'", "plain LoRA"]),
        ({"lora_bias": True}, ["'lora_bias'", "plain LoRA"]),
        ({"layer_replication": [[0, 2], [1, 2]]}, ["'layer_replication'", "plain LoRA"]),
        ({"init_lora_weights": "pissa_niter_4"}, ["'init_lora_weights'", "'pissa_niter_4'", "plain LoRA"]),
        ({"a_later_switch": 3}, ["'a_later_switch'", "plain LoRA"]),
        ({"base_model_name_or_path": None}, ["no base model", "base_model_name_or_path"]),
        ({"base_model_name_or_path": "/no/base here"}, ["adapter to /no/base here", "no folder /no/base here"]),
        ({"r": 5}, ["rank 5", "c_proj", "save it again"]),
        ({"r": 0}, ["no rank", "save it again"]),
        ({"lora_alpha": "x"}, ["no rank and scaling"]),
        ({"rank_pattern": {"(": 2}}, ["no rank and scaling"]),
        ({"modules_to_save": ["lm_head"]}, ["lacks the module 'lm_head'", "save it again"]),
    ],
)
def test_adapters_that_are_not_understood(values: dict[str, Any], says: list[str], tmp_path: Path) -> None:
    adapter = recorded("gpt2-ranks", tmp_path)
    change(adapter, **values)
    check_error(lambda: load(adapter), *says)


A = "base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.pop(A), ["only one of the two matrices", "h.0.mlp.c_fc"]),
        (lambda t: t.update({A: np.ones((4, 31), np.float32)}), ["[4, 31]", "[32, 128]", "own base"]),
        (lambda t: t.update({A: np.ones((4, 32), np.int8)}), [A, "no matrix of floats"]),
        (lambda t: t.update({A: np.full((4, 32), np.nan, np.float32)}), ["'h.0.mlp.c_fc.weight'", "NaN"]),
        (
            lambda t: t.update({A.replace("A.weight", "magnitude_vector"): np.ones(32, np.float32)}),
            ["magnitude_vector", "plain LoRA"],
        ),
        (lambda t: t.update({A.replace("h.0", "h.7"): t.pop(A)}), ["only one of the two"]),
        (
            lambda t: t.update({name.replace("h.0.mlp.c_fc", "h.7.mlp.c_fc"): t.pop(name) for name in [*t]}),
            ["'h.7.mlp.c_fc.weight'", "does not have", "own base"],
        ),
        (lambda t: t.update({"base_model.model.score.weight": np.ones((2, 32), np.float32)}), ["'score.weight'"]),
        (
            lambda t: t.update({"base_model.model.lm_head.weight": np.ones((67, 32), np.float32)}),
            ["'lm_head.weight'", "both as embedding and as unembedding"],
        ),
        (lambda t: t.clear(), ["holds no tensors"]),
    ],
)
def test_tensors_that_do_not_fit(
    edit: Callable[[dict[str, np.ndarray]], object], says: list[str], tmp_path: Path, one: jax.sharding.Mesh
) -> None:
    adapter = recorded("gpt2-ranks", tmp_path)
    tensors = safetensors.numpy.load_file(adapter / WEIGHTS)
    edit(tensors)
    safetensors.numpy.save_file(tensors, adapter / WEIGHTS)
    check_error(lambda: load(adapter, mesh=one), str(adapter), *says)


def test_folders_that_are_no_whole_adapter(tmp_path: Path) -> None:
    adapter = recorded("gpt2-ranks", tmp_path)
    (tmp_path / "base" / "adapter_config.json").write_text("{}")
    check_error(lambda: load(adapter), f"adapter to {tmp_path / 'base'}", "itself an adapter", "peft")
    (tmp_path / "base" / "adapter_config.json").unlink()
    (adapter / "model.safetensors").write_bytes(b"")
    check_error(lambda: load(adapter), str(adapter), "both a model", "move one")
    (adapter / "model.safetensors").unlink()
    (adapter / WEIGHTS).unlink()
    check_error(lambda: load(adapter), WEIGHTS, "cannot be read")
    (adapter / "adapter_model.bin").write_bytes(b"not to be read")
    check_error(lambda: load(adapter), str(adapter), "pickled", "never loaded")


def test_an_adapter_to_quantized_weights(tmp_path: Path, one: jax.sharding.Mesh) -> None:
    adapter = recorded("llama-saved", tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(tmp_path / "base", lambda t: t.update({name: t[name].astype(np.uint8), f"{name}.absmax": np.ones(4)}))
    check_error(lambda: load(adapter, mesh=one), f"adapter to {tmp_path / 'base'}", "bitsandbytes (4 bits)")


# Where the base model is, and what says so


def test_from_the_hub(tmp_path: Path, one: jax.sharding.Mesh) -> None:
    """The base model at the revision that the adapter names; both stand in the facts."""
    adapter = recorded("gpt2-ranks", tmp_path)
    expected = arrays(load(adapter, mesh=one))
    other = cases.build("gpt2-unscaled", tmp_path / "other")
    change(adapter, base_model_name_or_path="owner/base", revision="v1")
    repos = {"models/owner/base": {"main": other, "v1": tmp_path / "base"}, "models/owner/lora": {"main": adapter}}
    with hub(repos, tmp_path / "cache"):
        local, lm = load(adapter, mesh=one), load("owner/lora", mesh=one)
        assert config_of("owner/lora") == lm.config == cases.decoder("gpt2")[0]
    chex.assert_trees_all_equal(arrays(lm), arrays(local), expected)
    assert lm.base is not None
    assert lm.base.folder.name == lm.base.revision != lm.revision
    facts = facts_of(lm, {}, Timing(), 1, None)
    assert (facts["model"], facts["revision"]) == ("owner/lora", lm.revision)
    assert (facts["base_model"], facts["base_revision"]) == ("owner/base", lm.base.revision)
    assert "base_model" not in facts_of(load(tmp_path / "base", mesh=one), {}, Timing(), 1, None)


def test_the_tokenizer_is_the_adapters_or_else_that_of_its_base(tmp_path: Path, one: jax.sharding.Mesh) -> None:
    adapter = recorded("llama-saved", tmp_path)
    (tmp_path / "base" / "tokenizer.json").write_text(byte_tokenizer().to_json())
    shutil.copytree(RECORDED / "llama-saved", tmp_path / "own")
    change(tmp_path / "own", base_model_name_or_path=str(tmp_path / "base"))
    (tmp_path / "own" / "tokenizer.json").write_text(byte_tokenizer().to_json())
    assert load(adapter, mesh=one).folder == text_folder(adapter) == tmp_path / "base"
    assert load(tmp_path / "own", mesh=one).folder == text_folder(tmp_path / "own") == tmp_path / "own"
    (tmp_path / "text.txt").write_text("\x00\x01")
    base = json.loads((tmp_path / "base" / "config.json").read_text()) | {"vocab_size": 256}
    (tmp_path / "base" / "config.json").write_text(json.dumps(base))
    counts = unigram(str(adapter), tmp_path / "counts.npy", data=str(tmp_path / "text.txt"))
    assert counts.shape == (256,)
    assert counts.sum() == 2

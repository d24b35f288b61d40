"""A sentence for each checkpoint that cannot be used."""

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_folders import compose, loaded, parts_of, rewrite
from hypothesis import given, settings
from hypothesis import strategies as st
from parameters import marked
from refusals import check_error

from jaxconf.models import checkpoint
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.language_model import load
from jaxconf.models.tensor_files import Tensor, read_tensors

pytestmark = pytest.mark.usefixtures("compiled_quickly")


# Checkpoints that cannot be used


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_no_such_folder(tmp_path: Path) -> None:
    check_error(lambda: load(tmp_path / "nowhere"), "no folder", "nowhere")


def test_a_local_folder_has_no_revisions(folder: Path) -> None:
    check_error(lambda: load(folder, revision="main"), "local folder", "revision")


def test_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    check_error(lambda: load(folder), str(folder), "no config.json")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 50000, "not valid JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "no model_type"),
        (b'{"model_type": "bert"}', "'bert' is not supported"),
        (b'{"model_type": ["gpt2"]}', "no model_type"),
        (b'{"model_type": "llama"}', "lacks 'hidden_size'"),
        (b'{"model_type": "llava", "text_config": {"model_type": "llama"}}', "'llama' in its text_config is"),
    ],
)
def test_config_that_cannot_be_read(content: bytes, says: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    check_error(
        lambda: load(folder), "model_type" if "model_type" in says else "config.json" if "config" in says else "", says
    )


@pytest.mark.parametrize("name", marked(cases.CASES, quick=cases.with_new_leaves()))
def test_odd_values_are_refused_or_make_a_model(name: str) -> None:
    """No value of an attribute, however odd, ends in anything but an InputError or a model whose parameters have
    shapes.
    """
    for attribute in cases.CASES[name]:
        for value in (None, -1, 0, 1, 3, 10**9, 0.5, float("nan"), True, "x", [], [1], {}, {"rope_type": "yarn"}):
            try:
                config = config_from_hf(cases.CASES[name] | {attribute: value})
            except InputError:
                continue
            assert all(isinstance(size, int) and size > 0 for leaf in leaves(config) for size in leaf.shape(config)), (
                attribute,
                value,
            )


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("gpt2", {"sliding_window": 16}, ["'sliding_window'", "does not know"]),
        ("gpt2", {"add_cross_attention": True}, ["'add_cross_attention'", "True", "only False"]),
        ("gpt2", {"activation_function": "mish"}, ["'activation_function'", "'mish'", "gelu_new"]),
        (
            "neox",
            {"rope_scaling": {"type": "proportional", "factor": 2.0}},
            ["'proportional'", "linear", "llama3", "yarn"],
        ),
        ("llama", {"rope_scaling": {"type": "linear"}}, ["'factor'", "rotary"]),
        ("llama", {"rope_parameters": {"rope_type": "default", "mscale": 2.0}}, ["'rope_parameters.mscale'"]),
        ("llama", {"final_logit_softcapping": 30.0}, ["'final_logit_softcapping'"]),
        ("llama-longrope", {"head_dim": 12}, ["6 numbers", "short_factor"]),
        (
            "bloom",
            {"apply_residual_connection_post_layernorm": True},
            ["'apply_residual_connection_post_layernorm'", "only False"],
        ),
        ("gptj", {"rotary": False}, ["'rotary'", "only True"]),
        ("gpt_neo", {"attention_types": [[["global"], 3]]}, ["attention_types", "each of 2 layers"]),
        ("falcon-grouped", {"parallel_attn": False}, ["parallel_attn", "no Falcon"]),
        ("falcon", {"num_ln_in_parallel_attn": 2}, ["num_ln_in_parallel_attn", "no Falcon"]),
        ("gemma3", {"attention_chunk_size": 3}, ["'attention_chunk_size'", "does not know"]),
        ("gemma", {"use_bidirectional_attention": True}, ["'use_bidirectional_attention'", "True", "only False"]),
        ("qwen2-window", {"layer_types": ["full_attention"]}, ["layer_types", "each of 3 layers"]),
        ("mistral", {"layer_types": ["full_attention", "chunked_attention"]}, ["layer_types", "chunked_attention"]),
        ("gemma3", {"rope_parameters": {"rope_theta": 500.0}}, ["'rope_parameters.rope_theta'", "does not know"]),
        ("olmo3", {"rope_theta": 1000.0}, ["'rope_theta'", "1000.0", "only 500000.0"]),
        ("codegen", {"n_head": 2}, ["2 heads", "divide by 4"]),
        ("mpt", {"attn_config": {"alibi_bias_max": 16}}, ["attn_config", "'alibi_bias_max'", "16", "only 8"]),
        ("mpt", {"norm_type": "rmsnorm"}, ["'norm_type'", "'rmsnorm'"]),
        ("xglm", {"pad_token_id": 5}, ["'pad_token_id'", "position 3"]),
        ("mistral3", {"text_config": {"model_type": "qwen3"}}, ["text_config", "'qwen3'", "mistral and ministral3"]),
        ("gemma3-vision", {"text_config": {"logit_twist": 2}}, ["'text_config.logit_twist'", "does not know"]),
    ],
)
def test_attributes_that_are_not_understood(name: str, values: dict[str, Any], says: list[str], tmp_path: Path) -> None:
    change_config(cases.build(name, tmp_path), **values)
    check_error(lambda: load(tmp_path), *says)


def test_attributes_that_do_not_matter(folder: Path, one: jax.sharding.Mesh) -> None:
    before = load(folder, mesh=one).config
    change_config(
        folder, use_cache=False, transformers_version="9", summary_type="cls_index", n_inner=None, torch_dtype="float16"
    )
    assert load(folder, mesh=one).config == before


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    check_error(lambda: load(folder), str(folder), "no model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    check_error(lambda: load(folder), str(folder), "pickled", "never loaded", "safetensors")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("transformer.h.1.ln_2.bias"), ["lack", "'h.1.ln_2.bias'", "1 missing"]),
        (
            lambda t: t.update({"transformer.h.2.ln_1.bias": np.ones(32, np.float32)}),
            ["'h.2.ln_1.bias'", "does not use"],
        ),
        (lambda t: t.update({"score.weight": np.ones(32, np.float32)}), ["'score.weight'", "does not use"]),
        (
            lambda t: t.update({"transformer.wte.weight": np.ones((66, 32), np.float32)}),
            ["wte.weight", "[66, 32]", "vocab 67"],
        ),
        (lambda t: t.update({"transformer.wpe.weight": np.ones(80 * 32, np.float32)}), ["wpe.weight", "[2560]"]),
        (
            lambda t: t.update({"transformer.h.0.attn.c_attn.weight": np.ones((32, 95), np.float32)}),
            ["h.0.attn.c_attn.weight", "[32, 95]"],
        ),
        (
            lambda t: t.update({"transformer.h.0.attn.c_attn.weight": np.ones((96, 32), np.float32)}),
            ["h.0.attn.c_attn.weight", "[96, 32]"],
        ),
        (
            lambda t: t.update({"transformer.h.0.attn.c_attn.weight": np.ones((1, 32, 96), np.float32)}),
            ["c_attn", "[1, 32, 96]"],
        ),
        (
            lambda t: t.update({"transformer.h.1.mlp.c_fc.weight": np.ones((32, 128), np.int8)}),
            ["c_fc.weight", "I8", "unquantized"],
        ),
        (lambda t: t["transformer.h.1.mlp.c_fc.weight"].__setitem__((3, 4), np.nan), ["'h.1.mlp.c_fc.weight'", "NaN"]),
        (lambda t: t["transformer.h.0.attn.c_attn.bias"].__setitem__(70, np.inf), ["'h.0.attn.c_attn.bias'", "Inf"]),
        (lambda t: t["transformer.ln_f.weight"].__setitem__(0, -np.inf), ["'ln_f.weight'", "Inf"]),
    ],
)
def test_tensors_that_do_not_fit(
    change: Callable[[dict[str, np.ndarray]], object], says: list[str], folder: Path
) -> None:
    rewrite(folder, change)
    check_error(lambda: loaded(folder, "gpt2"), *says)


BUFFERS = """
    h.0.attn.bias h.1.attn.masked_bias h.0.attn.attention.bias layers.0.attention.bias h.0.attn.embed_positions
    layers.0.self_attn.rotary_emb.inv_freq layers.1.attention.rotary_emb.inv_freq h.0.self_attention.rotary_emb.inv_freq
    rotary_emb.inv_freq rotary_emb.original_inv_freq rotary_emb.full_attention_inv_freq rotary_emb_local.inv_freq
    layers.0.self_attn.rotary_emb.cos_cached layers.0.self_attn.rotary_emb.sin_cached rotary_emb.cos_sin_cache
    position_ids embeddings.position_ids causal_mask alibi
""".split()


@pytest.mark.parametrize("name", {cases.CASES[name]["model_type"]: name for name in cases.CASES}.values())
def test_buffers_are_ignored_in_every_family_and_nothing_else_is(name: str) -> None:
    config, _ = cases.decoder(name)
    wanted = [str(tensor) for leaf in leaves(config) for tensor in leaf.names(config).flat]
    stored = {tensor: Tensor(Path(), "F32", (1,), 0) for tensor in [*wanted, *BUFFERS]}
    checkpoint._check_names(config, leaves(config), stored)
    for other in ("position_ids.weight", "layers.0.self_attn.inv_freq.weight", "my_alibi", "h.0.attn.bias_k"):
        unused = {**stored, other: stored[BUFFERS[0]]}
        check_error(lambda u=unused: checkpoint._check_names(config, leaves(config), u), repr(other), "does not use")


@pytest.mark.device
def test_overflow_to_the_target_dtype(folder: Path) -> None:
    """A finite weight that the asked-for dtype cannot hold is an error, not an infinity."""
    rewrite(folder, lambda tensors: tensors["transformer.wte.weight"].__setitem__((0, 0), 1e30))
    check_error(lambda: loaded(folder, "gpt2", jnp.float16), "'wte.weight'", "Inf", "float16")
    rewrite(folder, lambda tensors: tensors.update({"transformer.ln_f.weight": np.full(32, 1e300)}))
    check_error(lambda: loaded(folder, "gpt2"), "'ln_f.weight'", "Inf", "float32")  # as which JAX holds float64


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 1000, -1000, -1])
def test_truncated_file(length: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    check_error(lambda: read_tensors(folder), "model.safetensors", "truncated or corrupt")


NAME = "transformer.ln_f.weight"


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        {},
        {"dtype": "F32", "shape": [32]},
        {"dtype": "F32", "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [32], "data_offsets": [0]},
        {"dtype": "F32", "shape": [32], "data_offsets": [0, 127]},
        {"dtype": "F32", "shape": [32], "data_offsets": [128, 0]},
        {"dtype": "F32", "shape": [32], "data_offsets": [-128, 0]},
        {"dtype": "F32", "shape": [32], "data_offsets": [10**12, 10**12 + 128]},
        {"dtype": "F32", "shape": [-4, -8], "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [32.0], "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [32], "data_offsets": [0.0, 128.0]},
        {"dtype": "F32", "shape": ["32"], "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": "a", "data_offsets": [0, 128]},
        {"dtype": ["F32"], "shape": [32], "data_offsets": [0, 128]},
        {"dtype": 32, "shape": [32], "data_offsets": [0, 128]},
    ],
)
def test_corrupt_row_of_the_header(row: Any, folder: Path) -> None:
    file = folder / "model.safetensors"
    header, data = parts_of(file)
    file.write_bytes(compose(header | {NAME: row}, data))
    check_error(lambda: loaded(folder, "gpt2"), "model.safetensors")


def test_unknown_dtype(folder: Path) -> None:
    file = folder / "model.safetensors"
    header, data = parts_of(file)
    file.write_bytes(compose(header | {NAME: header[NAME] | {"dtype": "F6_E2M3"}}, data))
    check_error(lambda: loaded(folder, "gpt2"), NAME, "F6_E2M3", "not supported")


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"null", b"\xff", b'{"a": ' * 5000, b"9" * 9000])
def test_corrupt_header(header: bytes, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(compose(header, parts_of(file)[1]))
    check_error(lambda: loaded(folder, "gpt2"), "model.safetensors", "truncated or corrupt")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**6])
def test_header_length_beyond_the_file(length: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    check_error(lambda: loaded(folder, "gpt2"), "model.safetensors", "truncated or corrupt")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = cases.build("neox-serial", tmp_path_factory.mktemp("small"))
    return folder, (folder / "model.safetensors").read_bytes()


@settings(max_examples=100, derandomize=True)
@given(data=st.data())
def test_corrupt_bytes_never_crash(small: tuple[Path, bytes], data: st.DataObject) -> None:
    """Whatever stands in the header, the tensors load or InputError says why not."""
    folder, content = small
    (length,) = struct.unpack("<Q", content[:8])
    corrupt = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 7 + length))
        corrupt[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b'0123456789-[]{}",:.eE')))
    (folder / "model.safetensors").write_bytes(corrupt)
    with contextlib.suppress(InputError):
        tensors = read_tensors(folder)
        views = [tensor.map() for tensor in tensors.values()]
        assert sum(view.size for view in views) <= len(content)
        checkpoint._check_names(cases.decoder("neox-serial")[0], leaves(cases.decoder("neox-serial")[0]), tensors)

"""What holds of the decoder whatever it computes: attention in blocks, its flax module, sizes, precisions, devices,
invariants.

Letters: b batch, t position, q and s query and source position, d model width, h head, g key/value head, k head width,
m neuron.
"""

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import cases
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_runs import ONE_EACH, TOKENS, compiled_run, read, run, run_all, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from parameters import marked

from jaxconf.models.decoder import Decoder, Params, abstract_params, forward
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.language_model import load
from jaxconf.models.leaves import nest
from jaxconf.models.mesh import make_mesh, sharding
from jaxconf.models.sites import Scale

pytestmark = pytest.mark.usefixtures("compiled_quickly")

# Attention in blocks


@pytest.mark.parametrize(
    ("name", "length"),
    marked(
        itertools.product(["neox-serial", "llama-mqa"], [1, 64, 65, 200, 520]),
        quick=[("neox-serial", 200), ("llama-mqa", 65)],
    ),
)
def test_blocks_of_queries_give_what_the_whole_pattern_gives(name: str, length: int) -> None:
    """Blocks of the least size, a last one that is shorter, and as many as there may be."""
    config, params = cases.decoder(name)
    config = dataclasses.replace(config, n_positions=600, n_layers=1)
    params = {**params, "blocks": jax.tree.map(lambda w: w[:1], params["blocks"])}
    tokens = np.random.default_rng(length).integers(0, config.vocab_size, (2, length))

    def loss(params: Params, capture: tuple[str, ...]) -> tuple[jax.Array, jax.Array]:
        logits = forward(config, params, tokens, capture=capture).logits
        return jnp.square(logits).mean(), logits

    patterns = tuple(f"blocks.{i}.attn.hook_pattern" for i in range(config.n_layers))
    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnames="capture")
    blocks, whole_pattern = gradient(params, ()), gradient(params, patterns)
    for one, other in zip(jax.tree.leaves(blocks), jax.tree.leaves(whole_pattern), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * max(1, np.abs(other).max()))


def test_later_sources_are_left_out() -> None:
    config, params = cases.decoder("gpt2")
    config = dataclasses.replace(config, n_positions=256)
    params = {**params, "embed": {**params["embed"], "positions": np.zeros((256, config.d_model), np.float32)}}

    def scores(capture: tuple[str, ...]) -> int:
        """Entries of all arrays [b h q s] that the program makes of a product."""
        jaxpr = jax.make_jaxpr(functools.partial(forward, config, capture=capture))(params, np.zeros((1, 256), int))
        [scan] = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
        made = [
            out.aval.shape for e in scan.params["jaxpr"].eqns if e.primitive.name == "dot_general" for out in e.outvars
        ]
        return sum(
            shape[2] * shape[3]
            for shape in made
            if len(shape) == 4 and shape[1] == config.n_heads and config.d_head not in shape[2:]
        )

    everything = scores(("blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"))
    assert everything == 256 * 256
    assert scores(()) == everything * 10 / 16


# The module, sizes, devices


@pytest.mark.parametrize("name", ONE_EACH)
def test_flax_module_declares_the_leaf_table(name: str) -> None:
    config, _ = cases.decoder(name)
    start = jax.eval_shape(Decoder(config).init, jax.random.key(0), TOKENS)["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(start, abstract_params(config))


def test_flax_module_starts_and_applies() -> None:
    config, params = cases.decoder("llama-mqa")
    module = Decoder(config)
    start = jax.tree.map(np.asarray, jax.jit(module.init)(jax.random.key(0), TOKENS)["params"])
    for leaf in leaves(config):
        array = read(start, leaf.path)
        mean, std = {
            "ones": (1, 0),
            "zeros": (0, 0),
            "normal": (0, 0.02),
            "residual": (0, 0.02 / (2 * config.n_layers) ** 0.5),
        }[leaf.init]
        assert abs(array.mean() - mean) <= 5 * std / array.size**0.5, leaf.path
        assert abs(array.std() - std) <= 5 * std / array.size**0.5, leaf.path
    drawn = [
        read(start, leaf.path).ravel()[:20].tobytes() for leaf in leaves(config) if leaf.init in ("normal", "residual")
    ]
    assert len(set(drawn)) == len(drawn)
    edits = {"blocks.1.mlp.hook_post": Scale(2.0)}
    apply = jax.jit(lambda params, edits: module.apply({"params": params}, TOKENS, edits=edits, capture=tuple(edits)))
    chex.assert_trees_all_close(apply(params, edits), run(config, params, TOKENS, edits, tuple(edits)), atol=2e-5)


GPT2_XL = {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25}
LLAMA_70B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "max_position_embeddings": 4096,
}
PYTHIA_12B = {
    "model_type": "gpt_neox",
    "vocab_size": 50688,
    "hidden_size": 5120,
    "num_hidden_layers": 36,
    "num_attention_heads": 40,
    "intermediate_size": 20480,
}


@pytest.mark.parametrize(
    ("hf", "n_parameters"),
    [(GPT2_XL, 1_557_611_200), (LLAMA_70B, 68_976_648_192), (PYTHIA_12B, 11_846_072_320)],
    ids=["gpt2", "llama", "neox"],
)
def test_shapes_of_large_models(hf: dict[str, Any], n_parameters: int) -> None:
    config = config_from_hf(hf)
    params = abstract_params(config, jnp.bfloat16)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == n_parameters
    tokens = jax.ShapeDtypeStruct((2, 64), jnp.int32)
    site = f"blocks.{config.n_layers - 1}.mlp.hook_post"
    out = jax.eval_shape(functools.partial(forward, config, capture=(site,)), params, tokens)
    chex.assert_shape(out.logits, (2, 64, config.vocab_size))
    assert out.logits.dtype == jnp.float32
    chex.assert_shape(out.captured[site], (2, 64, config.d_mlp))
    assert out.captured[site].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", marked(["gpt2", "llama-mqa"], devices=["gpt2"], quick=["gpt2"]))
def test_bfloat16(name: str) -> None:
    config, params = cases.decoder(name)
    halved = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    out = run_all(config, halved, TOKENS)
    assert out.logits.dtype == jnp.float32
    assert out.captured["blocks.0.hook_resid_post"].dtype == jnp.bfloat16
    rounded = run_all(config, jax.tree.map(lambda w: w.astype(np.float32), halved), TOKENS).logits
    error = np.abs(out.logits - rounded)
    assert 0 < error.mean() < 0.1


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
@pytest.mark.parametrize(
    ("name", "shape"),
    marked(
        [("gpt2", (2, 4)), ("gemma2", (2, 4)), ("falcon-grouped", (1, 8))],
        quick=[("gpt2", (2, 4)), ("falcon-grouped", (1, 8))],
    ),
)
def test_sharded_equals_one_device(name: str, shape: tuple[int, int]) -> None:
    config, params = cases.decoder(name)
    mesh = make_mesh(*shape)
    shardings = nest((leaf.path, sharding(mesh, leaf.axes, leaf.shape(config))) for leaf in leaves(config))
    placed = jax.device_put(nest((leaf.path, read(params, leaf.path)) for leaf in leaves(config)), shardings)
    tokens = jax.device_put(TOKENS, sharding(mesh, ("batch", "positions"), TOKENS.shape))
    logits = compiled_run(config, placed, tokens).logits
    assert len(logits.sharding.device_set) == 8
    np.testing.assert_allclose(logits, whole(name).logits, atol=1e-5)


# Invariants

PROPERTY = settings(max_examples=20, derandomize=True)
ROWS = npst.arrays(np.int32, TOKENS.shape[1], elements=st.integers(0, 66))


@PROPERTY
@given(name=st.sampled_from(ONE_EACH), cut=st.integers(1, TOKENS.shape[1] - 1), tail=ROWS, other=ROWS)
def test_later_tokens_and_other_sequences_change_nothing(
    name: str, cut: int, tail: np.ndarray, other: np.ndarray
) -> None:
    tokens = np.stack([np.concatenate([TOKENS[0, :cut], tail[cut:]]), other])
    logits = run_all(*cases.decoder(name), tokens).logits
    np.testing.assert_array_equal(logits[0, :cut], whole(name).logits[0, :cut])


def test_inputs_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    lm = load(cases.build("gpt2", tmp_path / "model"))
    for tokens, words in (
        ([1, 2, 3], r"shape \[3\]"),
        ([[1, lm.config.vocab_size]], "outside"),
        ([[-1, 0]], "outside"),
    ):
        with pytest.raises(InputError, match=words):
            lm.apply(tokens)
    with pytest.raises(InputError, match="list of site names"):
        lm.apply([[1, 2]], capture="ln_final.hook_scale")

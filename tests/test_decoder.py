"""The forward pass: recorded references, every config field, every parameter, every site and every kind of edit.

Letters: b batch, t position, q and s query and source position, d model width, h head, g key/value head, k head width, m neuron.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import cases
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import scipy.stats
from devices import also_on_devices
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from jaxconf.mesh import make_mesh, sharding
from jaxconf.models import sites
from jaxconf.models.config import ACTIVATIONS, DecoderConfig, Rotary
from jaxconf.models.decoder import Decoder, Output, Params, abstract_params, forward, site_shapes
from jaxconf.models.errors import InputError
from jaxconf.models.families import FAMILIES, config_from_hf, leaves
from jaxconf.models.language_model import load
from jaxconf.models.leaves import nest
from jaxconf.models.mlp import mlp
from jaxconf.models.sites import Ablate, Add, Replace, Scale, Sites

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ONE_EACH = ("gpt2-unscaled", "neox-linear", "llama-mqa", "stablelm-gqa")  # a case of each family
TOKENS = np.concatenate([cases.prompt(67), cases.prompt(67)[:, ::-1]])


_run = jax.jit(forward, static_argnames=("config", "capture", "start_at_layer", "stop_at_layer"))


def run(*args: Any, **kwargs: Any) -> Output:
    return jax.tree.map(np.asarray, _run(*args, **kwargs))


def run_all(config: DecoderConfig, params: Params, tokens: np.ndarray) -> Output:
    """The logits and every site; one compilation for each config."""
    return run(config, params, tokens, capture=tuple(site_shapes(config)))


@functools.cache
def whole(name: str) -> Output:
    return run_all(*cases.decoder(name), TOKENS)


def read(params: Params, path: str) -> Any:
    return functools.reduce(lambda node, key: node[key], path.split("/"), params)


def write(config: DecoderConfig, params: Params, path: str, array: np.ndarray) -> Params:
    return nest((leaf.path, array if leaf.path == path else read(params, leaf.path)) for leaf in leaves(config))


# What others computed


REFERENCED_ON_DEVICES = ("gpt2", "neox", "llama-gqa", "bloom", "gemma2", "phi3-long", "opt-summed")


@pytest.mark.parametrize("name", also_on_devices(cases.REFERENCED, *REFERENCED_ON_DEVICES))
def test_recorded_references(name: str) -> None:
    config, _ = cases.decoder(name)
    reference = np.load(cases.REFERENCES / f"{name}.npz")
    np.testing.assert_array_equal(TOKENS[:1], reference["tokens"])
    out = jax.tree.map(lambda value: value[:1], whole(name))
    np.testing.assert_allclose(out.logits, reference["logits"], atol=1e-4)
    np.testing.assert_allclose(out.captured[f"blocks.{config.n_layers - 1}.attn.hook_pattern"], reference["pattern"], atol=3e-5)
    streams = [out.captured[f"blocks.{i}.hook_resid_pre"] for i in range(config.n_layers)]
    np.testing.assert_allclose(np.stack(streams), reference["hidden_states"], atol=1e-4)


def test_intermediates_of_a_trained_gpt2(shared: Path) -> None:
    """minGPT's own values for block 0 and the outputs; its names on the left."""
    folder = shared / "models" / "gpt-nano-sort"
    reference = safetensors.numpy.load_file(folder / "reference.safetensors")
    lm = load(folder, mesh=make_mesh(data=1))
    params = jax.tree.map(np.asarray, lm.params)
    out = run_all(lm.config, params, reference["idx"])
    site = out.captured
    block = {name.removeprefix("blocks.0."): value for name, value in site.items() if name.startswith("blocks.0.")}

    def normed(value: np.ndarray, norm: dict[str, np.ndarray], layer: Any = ...) -> np.ndarray:
        return value * norm["scale"][layer] + norm["bias"][layer]

    q, k, v = (block[f"attn.hook_{name}"] for name in "qkv")
    b, t = reference["idx"].shape
    ours = {
        "tok_emb": site["hook_embed"],
        "pos_emb": site["hook_pos_embed"][:1],
        "x": block["hook_resid_pre"],
        "ln1": normed(block["ln1.hook_normalized"], params["blocks"]["ln1"], 0),
        "qkv": np.concatenate([x.reshape(b, t, -1) for x in (q, k, v)], -1),
        "q": q.swapaxes(1, 2),
        "k": k.swapaxes(1, 2),
        "v": v.swapaxes(1, 2),
        "att": block["attn.hook_attn_scores"],
        "attSm": block["attn.hook_pattern"],
        "y": block["attn.hook_z"].reshape(b, t, -1),
        "yProj": block["hook_attn_out"],
        "attnResid": block["hook_resid_mid"],
        "ln2": normed(block["ln2.hook_normalized"], params["blocks"]["ln2"], 0),
        "fc": block["mlp.hook_pre"],
        "gelu": block["mlp.hook_post"],
        "mlp": block["hook_mlp_out"],
        "mlpResid": block["hook_resid_post"],
        **{f"block{i}": site[f"blocks.{i}.hook_resid_post"] for i in range(3)},
        "ln_f": normed(site["ln_final.hook_normalized"], params["ln_final"]),
        "lm_head": out.logits,
        "probs": scipy.special.softmax(out.logits, -1),
    }
    assert ours.keys() == reference.keys() - {"idx"}
    for name, value in ours.items():
        np.testing.assert_allclose(value, reference[name], atol=1e-5, err_msg=name)


# Every field and every parameter


def test_cases_cover_every_switch() -> None:
    configs = [cases.decoder(name)[0] for name in cases.CASES]
    rotaries = [c.rotary for c in configs if c.rotary]
    for kind, values in ((DecoderConfig, configs), (Rotary, rotaries)):
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        for field, annotation in get_type_hints(kind).items():
            found = {getattr(value, field) for value in values}
            if annotation is bool or get_origin(annotation) is Literal:
                assert found >= ({True, False} if annotation is bool else set(get_args(annotation))), field
            elif defaults[field] is not dataclasses.MISSING:
                assert len(found) > 1, field
    assert {c.rotary is None for c in configs} == {True, False}
    assert any(
        len(c.rotary.frequencies) == 2 and c.d_head == 12 for c in configs if c.rotary
    )  # a quarter of 12 entries is 3, which are 2 pairs
    assert {c.n_heads // c.n_kv_heads for c in configs if c.rotary} == {1, 2, 4}
    kinds = {
        hf.get(name, {}).get(key)
        for hf in cases.CASES.values()
        for name in ("rope_scaling", "rope_parameters")
        for key in ("rope_type", "type")
    }
    assert kinds >= {"linear", "llama3", "dynamic", "yarn", "longrope"}
    assert {c.n_heads * c.d_head == c.d_model for c in configs} == {True, False}
    assert {hf["model_type"] for hf in cases.CASES.values()} == FAMILIES.keys()
    names = ("hidden_act", "hidden_activation", "activation_function", "activation")
    named = {hf.get(name) for hf in cases.CASES.values() for name in names}
    # Defaults of some family: gelu_new of GPT-2, gelu of GPT-NeoX, gelu_pytorch_tanh of Gemma, relu of OPT, silu of Llama.
    assert named | {"gelu_new", "gelu", "gelu_pytorch_tanh", "relu", "silu"} >= ACTIVATIONS.keys()
    for config in configs:
        assert not config.windows or min(config.windows) < cases.LENGTH


CHANGES: dict[str, tuple[str, Any]] = {
    "model_type": ("gpt2", "gpt_neox"),
    "n_layers": ("gpt2", 1),
    "d_model": ("gpt2", 16),
    "n_heads": ("llama", 2),
    "n_kv_heads": ("llama-gqa", 1),
    "d_head": ("llama-mqa", 8),
    "d_mlp": ("gpt2", 20),
    "vocab_size": ("gpt2", 60),
    "n_positions": ("llama", cases.LENGTH - 1),
    "norm": ("gpt2", "rms"),
    "norm_eps": ("llama", 0.01),
    "activation": ("gpt2", "relu"),
    "gated": ("llama", False),
    "parallel": ("neox", False),
    "learned_positions": ("gpt2", False),
    "rotary": ("llama", None),
    "attn_scale": ("neox", 0.2),
    "attn_scale_by_layer": ("gpt2", True),
    "qkv_bias": ("gpt2", False),
    "attn_out_bias": ("gpt2", False),
    "mlp_bias": ("gpt2", False),
    "tied": ("gpt2", False),
    "norm_gain": ("gpt2", False),
    "norm_bias": ("gpt2", False),
    "gain_offset": ("gemma", 0.0),
    "shared_norm": ("stablelm-parallel", False),
    "unrotated": ("smollm3", ()),
    "windows": ("qwen2-window", (20, 20, 20)),
    "qk_norm": ("qwen3", "none"),
    "qk_norm_bias": ("phi-qk-norm", False),
    "norm_place": ("opt-summed-bare", "pre"),
    "d_embed": ("opt-summed", None),
    "embed_norm": ("bloom", False),
    "alibi": ("bloom", "none"),
    "local_rotary": ("gemma3", None),
    "attn_softcap": ("gemma2", None),
    "logit_softcap": ("gemma2", None),
    "qkv_clip": ("olmo", 0.5),
    "embed_scale": ("granite", 1.0),
    "residual_scale": ("granite", 1.0),
    "logit_scale": ("cohere", 1.0),
    "head_bias": ("phi", False),
}
ROTARY_CHANGES: dict[str, tuple[str, Any]] = {
    "frequencies": ("llama3", (1.0, 0.1, 0.01)),
    "pairs": ("cohere", False),
    "magnitude": ("llama", 2.0),
    "long": ("phi3-long", (1.0, 0.1, 0.01, 0.001)),
    "original": ("phi3-long", 80),
}


def check_change_shows(name: str, changed: DecoderConfig) -> None:
    """Another set of parameters, an InputError, or other logits."""
    config, params = cases.decoder(name)
    assert changed != config
    shapes = jax.tree.map(jnp.shape, params)
    if jax.tree.map(lambda leaf: leaf.shape, abstract_params(changed)) != shapes:
        return
    try:
        logits = run(changed, params, TOKENS).logits
    except InputError:
        return
    assert np.abs(logits - whole(name).logits).max() > 1e-2


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(DecoderConfig)])
def test_every_config_field_is_read(field: str) -> None:
    name, value = CHANGES[field]
    check_change_shows(name, dataclasses.replace(cases.decoder(name)[0], **{field: value}))


@pytest.mark.device
def test_activations() -> None:
    """The two GELUs are within 1e-3 of each other, too near for the test above."""
    config, params = cases.decoder("gpt2")
    layer = jax.tree.map(lambda w: w[0], params["blocks"]["mlp"])
    x = whole("gpt2").captured["blocks.0.ln2.hook_normalized"]
    pre = (x @ layer["w_in"] + layer["b_in"]).astype(np.float64)
    expected = {
        "gelu": pre * scipy.stats.norm.cdf(pre),
        "gelu_tanh": pre / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (pre + 0.044715 * pre**3))),
        "relu": np.maximum(pre, 0),
        "silu": pre / (1 + np.exp(-pre)),
    }
    assert expected.keys() == set(get_args(get_type_hints(DecoderConfig)["activation"]))
    for activation, value in expected.items():
        seen = Sites({}, ("mlp.hook_post",))
        mlp(dataclasses.replace(config, activation=activation), layer, jnp.asarray(x), seen)
        np.testing.assert_allclose(seen.captured["mlp.hook_post"], value, atol=1e-5, err_msg=activation)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Rotary)])
def test_every_rotary_field_is_read(field: str) -> None:
    name, value = ROTARY_CHANGES[field]
    config = cases.decoder(name)[0]
    assert config.rotary
    check_change_shows(name, dataclasses.replace(config, rotary=dataclasses.replace(config.rotary, **{field: value})))


@pytest.mark.parametrize("name", cases.REFERENCED)
def test_every_parameter_of_every_layer_is_read(name: str) -> None:
    config, params = cases.decoder(name)
    # A key bias shifts all scores of a query alike, which the softmax ignores unless positions turn the keys, or they are normed.
    unseen = (config.unrotated if config.rotary else range(config.n_layers)) if config.qk_norm == "none" else ()
    rng = np.random.default_rng(0)
    for leaf in leaves(config):
        array = read(params, leaf.path)
        for layer in range(config.n_layers) if leaf.stacked else (...,):
            changed = array.copy()
            changed[layer] += 0.1 * rng.standard_normal(array[layer].shape)
            change = np.abs(run_all(config, write(config, params, leaf.path, changed), TOKENS).logits - whole(name).logits).max()
            assert (change < 1e-4) == (leaf.path == "blocks/attn/bk" and layer in unseen), (leaf.path, layer, change)


# Sites

SHAPES = {
    "hook_embed": "btd",
    "ln_embed.hook_scale": "bt1",
    "ln_embed.hook_normalized": "btd",
    "ln1_post.hook_scale": "bt1",
    "ln2_post.hook_scale": "bt1",
    "ln1_post.hook_normalized": "btd",
    "ln2_post.hook_normalized": "btd",
    "hook_pos_embed": "btd",
    "hook_resid_pre": "btd",
    "hook_resid_mid": "btd",
    "hook_resid_post": "btd",
    "ln1.hook_scale": "bt1",
    "ln2.hook_scale": "bt1",
    "ln_final.hook_scale": "bt1",
    "ln1.hook_normalized": "btd",
    "ln2.hook_normalized": "btd",
    "ln_final.hook_normalized": "btd",
    "attn.hook_q": "bthk",
    "attn.hook_k": "btgk",
    "attn.hook_v": "btgk",
    "attn.hook_rot_q": "bthk",
    "attn.hook_rot_k": "btgk",
    "attn.hook_attn_scores": "bhqs",
    "attn.hook_pattern": "bhqs",
    "attn.hook_z": "bthk",
    "hook_attn_out": "btd",
    "hook_mlp_out": "btd",
    "mlp.hook_pre": "btm",
    "mlp.hook_post": "btm",
    "mlp.hook_pre_linear": "btm",
}


def expected_sites(config: DecoderConfig) -> dict[str, str]:
    absent = set()
    norms = {
        "ln_embed": config.embed_norm,
        "ln1": config.norm_place != "post",
        "ln2": config.norm_place != "post" and not config.shared_norm,
        "ln1_post": config.norm_place in ("post", "both"),
        "ln2_post": config.norm_place in ("post", "both"),
        "ln_final": config.norm_place != "sum",
    }
    for norm, there in norms.items():
        if not there:
            absent |= {f"{norm}.hook_scale", f"{norm}.hook_normalized"}
    if not config.learned_positions:
        absent |= {"hook_pos_embed"}
    if config.parallel:
        absent |= {"hook_resid_mid"}
    if config.rotary is None:
        absent |= {"attn.hook_rot_q", "attn.hook_rot_k"}
    if not config.gated:
        absent |= {"mlp.hook_pre_linear"}
    named = {name: shape for name, shape in SHAPES.items() if name not in absent}
    outside = {name for name in named if name.startswith(("hook_embed", "hook_pos_embed", "ln_embed", "ln_final"))}
    return {name: named[name] for name in named.keys() & outside} | {
        f"blocks.{i}.{name}": named[name] for i in range(config.n_layers) for name in named.keys() - outside
    }


@pytest.mark.parametrize("name", cases.REFERENCED)
def test_sites_and_their_shapes(name: str) -> None:
    config, _ = cases.decoder(name)
    sizes = {"d": config.d_model, "h": config.n_heads, "g": config.n_kv_heads, "k": config.d_head, "m": config.d_mlp, "1": 1}
    b, t = TOKENS.shape
    captured = whole(name).captured
    assert {site: value.shape for site, value in captured.items()} == {
        site: tuple((sizes | {"b": b, "t": t, "q": t, "s": t})[letter] for letter in shape)
        for site, shape in expected_sites(config).items()
    }
    assert site_shapes(config) == {
        site: tuple((sizes | {"b": 1, "t": 2, "q": 2, "s": 2})[letter] for letter in shape)
        for site, shape in expected_sites(config).items()
    }


def test_the_table_of_sites_lists_them_all() -> None:
    table = sites.__doc__ or ""
    for site, shape in SHAPES.items():
        assert site.rsplit(".", 1)[-1] in table
        assert " ".join(shape) in table


@pytest.mark.parametrize("name", cases.REFERENCED)
def test_sites_fit_together(name: str) -> None:
    config, params = cases.decoder(name)
    captured = whole(name).captured
    for i in range(config.n_layers):
        site = {key.removeprefix(f"blocks.{i}."): value for key, value in captured.items()}
        added = site["hook_resid_pre"] + site["hook_attn_out"]
        if not config.parallel:
            np.testing.assert_allclose(added, site["hook_resid_mid"], atol=1e-5)
        if config.norm_place != "sum":
            np.testing.assert_allclose(added + site["hook_mlp_out"], site["hook_resid_post"], atol=1e-5)
        np.testing.assert_allclose(site["attn.hook_pattern"].sum(-1), 1, atol=1e-5)
        values = np.repeat(site["attn.hook_v"], config.n_heads // config.n_kv_heads, 2)
        np.testing.assert_allclose(np.einsum("bhqs,bshk->bqhk", site["attn.hook_pattern"], values), site["attn.hook_z"], atol=1e-5)
        mid = site["hook_resid_pre" if config.parallel else "hook_resid_mid"]
        if config.norm_place == "sum":
            norms = {"ln1": site["hook_resid_mid"], "ln2": site["hook_resid_post"]}
        elif config.norm_place == "post":
            norms = {}
        else:
            norms = {"ln1": site["hook_resid_pre"]} | ({} if config.shared_norm else {"ln2": mid})
        for norm, stream in norms.items():
            centred = stream - stream.mean(-1, keepdims=True) if config.norm == "layer" else stream
            np.testing.assert_allclose(site[f"{norm}.hook_normalized"] * site[f"{norm}.hook_scale"], centred, atol=1e-5)
    w_out = params["blocks"]["mlp"]["w_out"][-1]
    written = np.einsum("btm,md->btd", site["mlp.hook_post"], w_out) + params["blocks"]["mlp"].get("b_out", np.zeros((1, 1)))[-1]
    if config.norm_place in ("post", "both"):
        np.testing.assert_allclose(site["ln2_post.hook_normalized"] * site["ln2_post.hook_scale"], written, atol=1e-5)
        written = site["ln2_post.hook_normalized"] * (config.gain_offset + params["blocks"]["ln2_post"]["scale"][-1])
    np.testing.assert_allclose(written * config.residual_scale, site["hook_mlp_out"], atol=1e-5)


@pytest.mark.parametrize("length", [1, 64, 65, 200, 520])
@pytest.mark.parametrize("name", ["neox-serial", "llama-mqa"])
def test_blocks_of_queries_give_what_the_whole_pattern_gives(name: str, length: int) -> None:
    """Blocks of the least size, a last one that is shorter, and as many as there may be."""
    config, params = cases.decoder(name)
    config = dataclasses.replace(config, n_positions=600)
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
        made = [out.aval.shape for e in scan.params["jaxpr"].eqns if e.primitive.name == "dot_general" for out in e.outvars]
        return sum(
            shape[2] * shape[3] for shape in made if len(shape) == 4 and shape[1] == config.n_heads and config.d_head not in shape[2:]
        )

    everything = scores(("blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"))
    assert everything == 256 * 256
    assert scores(()) == everything * 10 / 16


def test_capturing_one_layer_keeps_only_that_layer() -> None:
    config, params = cases.decoder("gpt2-unscaled")
    b, t = TOKENS.shape

    def stacked(capture: list[str]) -> list[int]:
        """How many layers' MLP activations the scans return."""
        jaxpr = jax.make_jaxpr(functools.partial(forward, config, capture=capture))(params, TOKENS)
        shapes = [out.aval.shape for equation in jaxpr.eqns if equation.primitive.name == "scan" for out in equation.outvars]
        return [shape[0] for shape in shapes if shape[1:] == (b, t, config.d_mlp)]

    assert stacked(["blocks.1.mlp.hook_post"]) == [1]
    assert stacked(["blocks.1.mlp.hook_post", "blocks.2.mlp.hook_post"]) == [2]
    assert stacked(["ln_final.hook_scale"]) == []


# Edits


@struct.dataclass
class Chain:
    """Several edits of one site, so that one compilation serves all kinds of edits of all sites."""

    edits: tuple[Add, Scale, Ablate]

    def __call__(self, activation: jax.Array) -> jax.Array:
        for edit in self.edits:
            activation = edit(activation)
        return activation


@functools.cache
def edited(name: str) -> Callable[[dict[str, Chain]], np.ndarray]:
    """The logits with these edits, at all other sites edits that change nothing."""
    config, params = cases.decoder(name)
    values = whole(name).captured
    nothing = {site: chain(value) for site, value in values.items()}
    traces = []

    @jax.jit
    def logits(params: Params, edits: dict[str, Any]) -> jax.Array:
        traces.append(1)
        return forward(config, params, TOKENS, edits).logits

    def with_edits(edits: dict[str, Chain]) -> np.ndarray:
        result = np.asarray(logits(params, nothing | edits))
        assert len(traces) == 1
        return result

    return with_edits


def chain(value: np.ndarray, add: Any = 0.0, scale: Any = 1.0, mask: Any = False, put: Any = 0.0) -> Chain:
    add, scale, put = (np.full(value.shape, x, np.float32) for x in (add, scale, put))
    return Chain((Add(add), Scale(scale), Ablate(np.full(value.shape, mask), put)))


@pytest.mark.parametrize("name", also_on_devices(ONE_EACH, "neox-linear"))
def test_every_kind_of_edit_of_every_site_changes_the_logits(name: str) -> None:
    before = whole(name).logits
    np.testing.assert_allclose(edited(name)({}), before, atol=1e-5)
    rng = np.random.default_rng(1)
    for site, value in whole(name).captured.items():
        noise = rng.uniform(0.5, 1.0, value.shape)
        for edit in (chain(value, add=noise), chain(value, scale=1 + noise), chain(value, mask=True, put=noise)):
            change = np.abs(edited(name)({site: edit}) - before).max()
            assert np.isfinite(change), site
            assert change > 1e-3, site


@pytest.mark.parametrize("name", ONE_EACH)
def test_captured_values_put_back_change_nothing(name: str) -> None:
    for site, value in whole(name).captured.items():
        after = edited(name)({site: chain(value, mask=True, put=value)})
        np.testing.assert_allclose(after, whole(name).logits, atol=1e-5, err_msg=site)


@pytest.mark.parametrize("name", also_on_devices(ONE_EACH, "llama-mqa"))
def test_replace(name: str) -> None:
    """Captured values at all sites change nothing; any other value is what is captured next, and the last one decides the logits."""
    config, params = cases.decoder(name)
    values = whole(name).captured
    put = {site: Replace(value) for site, value in values.items()}
    np.testing.assert_allclose(run(config, params, TOKENS, put, tuple(put)).logits, whole(name).logits, atol=1e-5)
    others = {site: np.random.default_rng(2).uniform(1, 2, value.shape).astype(np.float32) for site, value in values.items()}
    out = run(config, params, TOKENS, {site: Replace(value) for site, value in others.items()}, tuple(others))
    for site, value in others.items():
        np.testing.assert_array_equal(out.captured[site], value)
    final = others["ln_final.hook_normalized"] * params["ln_final"]["scale"] + params["ln_final"].get("bias", 0)
    W_U = params["embed"]["tokens"].T if config.tied else params["unembed"]["w"]
    np.testing.assert_allclose(out.logits, final @ W_U, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_frozen_norm(name: str) -> None:
    """Twice the scale halves what is normalized, and the logits follow."""
    config, params = cases.decoder(name)
    scale, normalized = "ln_final.hook_scale", "ln_final.hook_normalized"
    before = whole(name)
    out = run(config, params, TOKENS, {scale: Replace(2 * before.captured[scale])}, (normalized,))
    np.testing.assert_allclose(out.captured[normalized], before.captured[normalized] / 2, atol=1e-5)
    bias = params["ln_final"]["bias"] @ params["embed"]["tokens"].T if config.norm == "layer" else 0
    np.testing.assert_allclose(out.logits - bias, (before.logits - bias) / 2, atol=2e-5)


def test_edits_broadcast() -> None:
    """A mask of neurons and a scalar act at every position, and nowhere else."""
    config, params = cases.decoder("gpt2")
    site = "blocks.1.mlp.hook_post"
    mask = np.arange(config.d_mlp) % 3 == 0
    captured = run(config, params, TOKENS, {site: Ablate(mask, 0.25)}, (site,)).captured[site]
    np.testing.assert_array_equal(captured[..., mask], 0.25)
    np.testing.assert_allclose(captured[..., ~mask], whole("gpt2").captured[site][..., ~mask], atol=1e-5)


def test_edits_act_where_they_stand() -> None:
    """Layers before an edit, rows that it leaves alone and earlier positions keep their values; the rest change."""
    config, params = cases.decoder("neox-linear")
    values = whole("neox-linear").captured
    noise = np.zeros_like(values["blocks.1.hook_attn_out"])
    noise[1, 40] = np.arange(config.d_model)
    captured = run(config, params, TOKENS, {"blocks.1.hook_attn_out": Add(noise)}, tuple(values)).captured
    for site, value in values.items():
        if site.startswith(("hook_embed", "blocks.0.")):
            np.testing.assert_allclose(captured[site], value, atol=1e-5, err_msg=site)
    before, after = values["blocks.2.hook_resid_post"], captured["blocks.2.hook_resid_post"]
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)
    np.testing.assert_allclose(after[1, :40], before[1, :40], atol=1e-5)
    assert (np.abs(after[1, 40:] - before[1, 40:]).max(-1) > 1e-4).all()


@pytest.mark.device
def test_all_neurons_in_one_compilation() -> None:
    config, params = cases.decoder("llama-mqa")
    site, last = "blocks.1.mlp.hook_post", TOKENS[:1, -6:]
    traces = []

    def ablate(params: Params, neuron: jax.Array, value: jax.Array) -> jax.Array:
        traces.append(1)
        return forward(config, params, last, {site: Ablate(jnp.arange(config.d_mlp) == neuron, value)}).logits

    every = jax.jit(jax.vmap(ablate, (None, 0, None)))
    neurons = np.arange(config.d_mlp)
    zero, one = np.asarray(every(params, neurons, 0.0)), np.asarray(every(params, neurons[::-1], 1.0))
    assert len(traces) == 1
    single = jax.jit(ablate)
    for neuron in (0, 7, config.d_mlp - 1):
        np.testing.assert_allclose(zero[neuron], single(params, neuron, 0.0), atol=1e-5)
        np.testing.assert_allclose(one[config.d_mlp - 1 - neuron], single(params, neuron, 1.0), atol=1e-5)
    assert len(traces) == 2
    assert len({logits.tobytes() for logits in zero}) == config.d_mlp


# Parts of the model


@pytest.mark.parametrize("layer", also_on_devices([0, 1, 3], 1))
def test_running_in_two_parts_equals_the_whole(layer: int) -> None:
    name = "gpt2-layer-scaled"  # its attention depends on the number of the layer
    config, params = cases.decoder(name)
    logits, values = whole(name).logits, whole(name).captured
    entered = f"blocks.{layer}.hook_resid_pre" if layer < config.n_layers else f"blocks.{layer - 1}.hook_resid_post"
    later = (f"blocks.{config.n_layers - 1}.mlp.hook_pre",) if layer < config.n_layers else ()
    rest = run(config, params, values[entered], capture=later, start_at_layer=layer)
    np.testing.assert_allclose(rest.logits, logits, atol=1e-5)
    begun = (f"blocks.{layer - 1}.hook_resid_post",) if layer else ("hook_embed",)
    begin = run(config, params, TOKENS, capture=begun, stop_at_layer=layer)
    assert begin.logits is None
    for site, value in {**rest.captured, **begin.captured}.items():
        np.testing.assert_allclose(value, values[site], atol=2e-5, err_msg=site)


def test_stopping_early_runs_nothing_after() -> None:
    """Parameters of later layers and of the unembedding are not read: they may be NaN."""
    name, site = "gpt2-unscaled", "blocks.0.hook_resid_post"
    config, params = cases.decoder(name)
    broken = jax.tree.map(lambda w: np.concatenate([w[:1], w[1:] * np.nan]), params["blocks"])
    params = params | {"blocks": broken, "unembed": jax.tree.map(lambda w: w * np.nan, params["unembed"])}
    captured = run(config, params, TOKENS, capture=(site,), stop_at_layer=1).captured
    np.testing.assert_allclose(captured[site], whole(name).captured[site], atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"capture": ("blocks.0.mlp.hook_pots",)}, ["blocks.0.mlp.hook_pots", "blocks.0.mlp.hook_post", "closest"]),
        ({"edits": {"hook_unembed": Add(1.0)}}, ["hook_unembed", "closest"]),
        ({"capture": ("blocks.2.hook_resid_pre",)}, ["no site 'blocks.2.hook_resid_pre'"]),
        ({"capture": ("blocks.1.hook_resid_pre",), "stop_at_layer": 1}, ["blocks.1.hook_resid_pre", "not run"]),
        ({"edits": {"ln_final.hook_scale": Scale(2.0)}, "stop_at_layer": 2}, ["ln_final.hook_scale", "not run"]),
        ({"start_at_layer": -1}, ["start_at_layer", "-1"]),
        ({"stop_at_layer": 3}, ["stop_at_layer", "3"]),
        ({"start_at_layer": 2, "stop_at_layer": 1}, ["start_at_layer", "2"]),
    ],
)
def test_sites_and_layers_that_are_not_there(kwargs: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        forward(*cases.decoder("gpt2"), TOKENS, **kwargs)
    assert all(word in str(caught.value) for word in says), caught.value


def test_embedding_sites_after_the_start_are_not_there() -> None:
    config, params = cases.decoder("gpt2")
    with pytest.raises(InputError, match=r"hook_embed.*not run"):
        forward(config, params, jnp.zeros((1, 5, config.d_model)), capture=("hook_embed",), start_at_layer=1)


@pytest.mark.parametrize("name", ONE_EACH)
def test_too_long_a_sequence(name: str) -> None:
    config, params = cases.decoder(name)
    with pytest.raises(InputError, match=rf"{config.n_positions + 1} tokens .* {config.n_positions} positions"):
        forward(config, params, np.zeros((1, config.n_positions + 1), np.int32))
    jax.eval_shape(functools.partial(forward, config), params, np.zeros((1, config.n_positions), np.int32))


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
        mean, std = {"ones": (1, 0), "zeros": (0, 0), "normal": (0, 0.02), "residual": (0, 0.02 / (2 * config.n_layers) ** 0.5)}[leaf.init]
        assert abs(array.mean() - mean) <= 5 * std / array.size**0.5, leaf.path
        assert abs(array.std() - std) <= 5 * std / array.size**0.5, leaf.path
    drawn = [read(start, leaf.path).ravel()[:20].tobytes() for leaf in leaves(config) if leaf.init in ("normal", "residual")]
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
    tokens = jax.ShapeDtypeStruct((2, 1024), jnp.int32)
    site = f"blocks.{config.n_layers - 1}.mlp.hook_post"
    out = jax.eval_shape(functools.partial(forward, config, capture=(site,)), params, tokens)
    chex.assert_shape(out.logits, (2, 1024, config.vocab_size))
    assert out.logits.dtype == jnp.float32
    chex.assert_shape(out.captured[site], (2, 1024, config.d_mlp))
    assert out.captured[site].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", also_on_devices(["gpt2", "llama-mqa"], "gpt2"))
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
@pytest.mark.parametrize(("name", "shape"), [("gpt2", (2, 4)), ("gemma2", (2, 4)), ("falcon-grouped", (1, 8))])
def test_sharded_equals_one_device(name: str, shape: tuple[int, int]) -> None:
    config, params = cases.decoder(name)
    mesh = make_mesh(*shape)
    shardings = nest((leaf.path, sharding(mesh, leaf.axes, leaf.shape(config))) for leaf in leaves(config))
    placed = jax.device_put(nest((leaf.path, read(params, leaf.path)) for leaf in leaves(config)), shardings)
    tokens = jax.device_put(TOKENS, sharding(mesh, ("batch", "positions"), TOKENS.shape))
    logits = _run(config, placed, tokens).logits
    assert len(logits.sharding.device_set) == 8
    np.testing.assert_allclose(logits, whole(name).logits, atol=1e-5)


# Invariants

PROPERTY = settings(max_examples=20, derandomize=True)
ROWS = npst.arrays(np.int32, TOKENS.shape[1], elements=st.integers(0, 66))


@PROPERTY
@given(name=st.sampled_from(ONE_EACH), cut=st.integers(1, TOKENS.shape[1] - 1), tail=ROWS, other=ROWS)
def test_later_tokens_and_other_sequences_change_nothing(name: str, cut: int, tail: np.ndarray, other: np.ndarray) -> None:
    tokens = np.stack([np.concatenate([TOKENS[0, :cut], tail[cut:]]), other])
    logits = run_all(*cases.decoder(name), tokens).logits
    np.testing.assert_array_equal(logits[0, :cut], whole(name).logits[0, :cut])


def test_inputs_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    lm = load(cases.build("gpt2", tmp_path / "model"))
    for tokens, words in (([1, 2, 3], r"shape \[3\]"), ([[1, lm.config.vocab_size]], "outside"), ([[-1, 0]], "outside")):
        with pytest.raises(InputError, match=words):
            lm.apply(tokens)
    with pytest.raises(InputError, match="list of site names"):
        lm.apply([[1, 2]], capture="ln_final.hook_scale")

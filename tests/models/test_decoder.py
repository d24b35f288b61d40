"""The forward pass: recorded references, every config field, every parameter and every site.

Letters: b batch, t position, q and s query and source position, d model width, h head, g key/value head, k head width,
m neuron, e expert.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import scipy.stats
from decoder_runs import TOKENS, compiled_run, read, run, run_all, whole, write
from parameters import marked

from jaxconf.analysis.ablated_logits import _inverse_scale
from jaxconf.models import sites
from jaxconf.models.attributes import ACTIVATIONS
from jaxconf.models.config import DecoderConfig, Rotary
from jaxconf.models.decoder import abstract_params, forward, site_shapes
from jaxconf.models.errors import InputError
from jaxconf.models.families import FAMILIES, config_from_hf, leaves
from jaxconf.models.language_model import load
from jaxconf.models.mesh import make_mesh
from jaxconf.models.mlp import mlp
from jaxconf.models.sites import Add, Replace, Sites

pytestmark = pytest.mark.usefixtures("compiled_quickly")

# What others computed


REFERENCED_ON_DEVICES = ("gpt2", "neox", "llama-gqa", "bloom", "gemma2", "phi3-long", "opt-summed")


@pytest.mark.parametrize("name", marked(cases.REFERENCED, devices=REFERENCED_ON_DEVICES))
def test_recorded_references(name: str) -> None:
    config, _ = cases.decoder(name)
    reference = np.load(cases.REFERENCES / f"{name}.npz")
    np.testing.assert_array_equal(TOKENS[:1], reference["tokens"])
    out = jax.tree.map(lambda value: value[:1], whole(name))
    np.testing.assert_allclose(out.logits, reference["logits"], atol=1e-4)
    np.testing.assert_allclose(
        out.captured[f"blocks.{config.n_layers - 1}.attn.hook_pattern"], reference["pattern"], atol=3e-5
    )
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
    configs += [config.final for config in configs]
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
    attributes = ("hidden_act", "hidden_activation", "activation_function", "activation")
    named = {hf.get(name) for hf in cases.CASES.values() for name in attributes}
    # Defaults of some family: gelu_new of GPT-2, gelu of GPT-NeoX, gelu_pytorch_tanh of Gemma, relu of OPT, relu2 of
    # Nemotron, silu of Llama.
    defaults = {"gelu_new", "gelu", "gelu_pytorch_tanh", "relu", "relu2", "silu"}
    other_names = {"gelu_accurate", "gelu_python", "gelu_python_tanh"}  # test_parity compares the function of each name
    assert named | defaults | other_names >= ACTIVATIONS.keys()
    for config in configs:
        assert not config.windows or min(config.windows) < cases.LENGTH
    paths, with_each_leaf = (
        {leaf.path for name in names for leaf in leaves(cases.decoder(name)[0])}
        for names in (cases.REFERENCED, EVERY_LEAF)
    )
    assert with_each_leaf == paths


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
    "sinusoidal_positions": ("xglm", False),
    "rotary": ("llama", None),
    "attn_scale": ("neox", 0.2),
    "attn_scale_by_layer": ("gpt2", True),
    "qkv_bias": ("gpt2", False),
    "attn_out_bias": ("gpt2", False),
    "mlp_bias": ("gpt2", False),
    "tied": ("gpt2", False),
    "norm_gain": ("gpt2", False),
    "norm_bias": ("gpt2", False),
    "final_norm": ("opt-bare", False),
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
    "experts": ("mixtral", (16, 16, 16)),
    "experts_per_token": ("mixtral", 1),
    "router_normalized": ("mixtral", False),
    "shared_expert": ("qwen2_moe", False),
    "router_bias": ("gpt_oss", False),
    "silu_beta": ("gpt_oss", 1.0),
    "mlp_clip": ("gpt_oss", None),
    "linear_offset": ("gpt_oss", 0.0),
    "attn_sinks": ("gpt_oss", False),
}
ROTARY_CHANGES: dict[str, tuple[str, Any]] = {
    "frequencies": ("llama3", (1.0, 0.1, 0.01)),
    "pairs": ("cohere", False),
    "magnitude": ("llama", 2.0),
    "long": ("phi3-long", (1.0, 0.1, 0.01, 0.001)),
    "original": ("phi3-long", 80),
    "growth": ("ministral3", 0.0),
}


def check_change_shows(name: str, changed: DecoderConfig) -> None:
    """Another set of parameters, an InputError, or other logits."""
    config, params = cases.decoder(name)
    assert changed != config
    shapes = jax.tree.map(np.shape, params)
    if jax.tree.map(lambda leaf: leaf.shape, abstract_params(changed)) != shapes:
        return
    try:
        logits = compiled_run(changed, params, TOKENS).logits
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

    def post(config: DecoderConfig) -> jax.Array:
        seen = Sites({}, ("mlp.hook_post",))
        mlp(config, layer, jnp.asarray(x), seen)
        return seen.captured["mlp.hook_post"]

    pre = (x @ layer["w_in"] + layer["b_in"]).astype(np.float64)
    expected = {
        "gelu": pre * scipy.stats.norm.cdf(pre),
        "gelu_tanh": pre / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (pre + 0.044715 * pre**3))),
        "relu": np.maximum(pre, 0),
        "relu2": np.maximum(pre, 0) ** 2,
        "silu": pre / (1 + np.exp(-pre)),
    }
    assert expected.keys() == set(get_args(get_type_hints(DecoderConfig)["activation"]))
    for activation, value in expected.items():
        found = jax.jit(post, static_argnums=0)(dataclasses.replace(config, activation=activation))
        np.testing.assert_allclose(found, value, rtol=2e-6, atol=1e-5, err_msg=activation)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Rotary)])
def test_every_rotary_field_is_read(field: str) -> None:
    name, value = ROTARY_CHANGES[field]
    config = cases.decoder(name)[0]
    assert config.rotary
    check_change_shows(name, dataclasses.replace(config, rotary=dataclasses.replace(config.rotary, **{field: value})))


# Between them they have every leaf of the table; the recorded references use those of all others.
EVERY_LEAF = (
    "persimmon", "bloom", "olmo2", "opt-summed", "gptj", "gemma3-capped", "llama-gqa", "qwen2_moe", "gpt_oss",
)  # fmt: skip


@pytest.mark.parametrize("name", marked(cases.REFERENCED, quick=EVERY_LEAF))
def test_every_parameter_of_every_layer_is_read(name: str) -> None:
    config, params = cases.decoder(name)
    # A key bias shifts all scores of a query alike, which the softmax ignores unless positions turn the keys, or they
    # are normed.
    unseen = (config.unrotated if config.rotary else range(config.n_layers)) if config.qk_norm == "none" else ()
    rng = np.random.default_rng(0)
    for leaf in leaves(config):
        array = read(params, leaf.path)
        for layer in range(config.n_layers) if leaf.stacked else (...,):
            changed = array.copy()
            changed[layer] += 0.1 * rng.standard_normal(array[layer].shape)
            change = np.abs(
                run_all(config, write(config, params, leaf.path, changed), TOKENS).logits - whole(name).logits
            ).max()
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
    "mlp.hook_router": "bte",
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
    if not (config.learned_positions or config.sinusoidal_positions):
        absent |= {"hook_pos_embed"}
    if config.parallel:
        absent |= {"hook_resid_mid"}
    if config.rotary is None:
        absent |= {"attn.hook_rot_q", "attn.hook_rot_k"}
    if not config.gated:
        absent |= {"mlp.hook_pre_linear"}
    if not config.experts:
        absent |= {"mlp.hook_router"}
    named = {name: shape for name, shape in SHAPES.items() if name not in absent}
    outside = {name for name in named if name.startswith(("hook_embed", "hook_pos_embed", "ln_embed", "ln_final"))}
    return {name: named[name] for name in named.keys() & outside} | {
        f"blocks.{i}.{name}": named[name] for i in range(config.n_layers) for name in named.keys() - outside
    }


@pytest.mark.parametrize("name", cases.REFERENCED)
def test_sites_and_their_shapes(name: str) -> None:
    config, _ = cases.decoder(name)
    sizes = {
        "d": config.d_model,
        "h": config.n_heads,
        "g": config.n_kv_heads,
        "k": config.d_head,
        "m": config.d_mlp,
        "e": len(config.experts),
        "1": 1,
    }
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
        if not config.attn_sinks:
            np.testing.assert_allclose(site["attn.hook_pattern"].sum(-1), 1, atol=1e-5)
        values = np.repeat(site["attn.hook_v"], config.n_heads // config.n_kv_heads, 2)
        np.testing.assert_allclose(
            np.einsum("bhqs,bshk->bqhk", site["attn.hook_pattern"], values), site["attn.hook_z"], atol=1e-5
        )
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
    if not config.final_norm:
        np.testing.assert_array_equal(captured["ln_final.hook_normalized"], site["hook_resid_post"])
        np.testing.assert_array_equal(captured["ln_final.hook_scale"], 1)
    elif config.frozen_scale:
        np.testing.assert_array_equal(captured["ln_final.hook_scale"], 1e6)
    w_out, post = params["blocks"]["mlp"]["w_out"][-1], site["mlp.hook_post"]
    bias = params["blocks"]["mlp"].get("b_out", np.zeros((1, 1)))[-1]
    if config.experts:
        post = post * np.repeat(site["mlp.hook_router"], config.experts, -1)
        bias = site["mlp.hook_router"] @ bias if config.mlp_bias else bias
    written = np.einsum("btm,md->btd", post, w_out) + bias
    if config.norm_place in ("post", "both"):
        np.testing.assert_allclose(
            site["ln2_post.hook_normalized"] * site["ln2_post.hook_scale"], written, rtol=1e-6, atol=1e-5
        )
        written = site["ln2_post.hook_normalized"] * (config.gain_offset + params["blocks"]["ln2_post"]["scale"][-1])
    np.testing.assert_allclose(written * config.residual_scale, site["hook_mlp_out"], atol=1e-5)


def test_without_a_final_norm_the_logits_are_the_stream_times_the_unembedding() -> None:
    config, params = cases.decoder("opt-no-final-norm")
    assert "ln_final" not in params
    stream = whole("opt-no-final-norm").captured[f"blocks.{config.n_layers - 1}.hook_resid_post"]
    logits = stream @ params["embed"]["tokens"].T
    np.testing.assert_allclose(whole("opt-no-final-norm").logits, logits, atol=1e-4)
    halved = run(config, params, TOKENS, edits={"ln_final.hook_scale": Replace(np.float32(2))}).logits
    np.testing.assert_allclose(halved, logits / 2, atol=1e-4)
    summed = cases.CASES["opt-summed"]  # whose last norm is within the last layer
    assert config_from_hf(summed | {"_remove_final_layer_norm": True}) == config_from_hf(summed)


def test_a_frozen_scale_is_the_same_for_the_largest_stream() -> None:
    config, params = cases.decoder("gpt2-norm-free")
    large = {"blocks.1.hook_resid_post": Add(np.logspace(0, 8, config.d_model, dtype=np.float32))}
    out = run(config, params, TOKENS, edits=large, capture=("ln_final.hook_scale",))
    np.testing.assert_array_equal(out.captured["ln_final.hook_scale"], 1e6)
    large_streams = np.logspace(0, 8, 5, dtype=np.float32)
    np.testing.assert_array_equal(_inverse_scale(config, large_streams**2, large_streams), np.float32(1e-6))


def test_capturing_one_layer_keeps_only_that_layer() -> None:
    config, params = cases.decoder("gpt2-unscaled")
    b, t = TOKENS.shape

    def stacked(capture: list[str]) -> list[int]:
        """How many layers' MLP activations the scans return."""
        jaxpr = jax.make_jaxpr(functools.partial(forward, config, capture=capture))(params, TOKENS)
        shapes = [
            out.aval.shape for equation in jaxpr.eqns if equation.primitive.name == "scan" for out in equation.outvars
        ]
        return [shape[0] for shape in shapes if shape[1:] == (b, t, config.d_mlp)]

    assert stacked(["blocks.1.mlp.hook_post"]) == [1]
    assert stacked(["blocks.1.mlp.hook_post", "blocks.2.mlp.hook_post"]) == [2]
    assert stacked(["ln_final.hook_scale"]) == []

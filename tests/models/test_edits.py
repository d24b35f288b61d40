"""Every kind of edit, and the model run in parts.

Letters: b batch, t position, q and s query and source position, d model width, h head, g key/value head, k head width,
m neuron.
"""

import functools
from collections.abc import Callable
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_runs import ONE_EACH, TOKENS, run, whole
from flax import struct
from parameters import marked
from plans import array, config_of
from refusals import check_error

from jaxconf.models.decoder import Params, abstract_params, forward
from jaxconf.models.errors import InputError
from jaxconf.models.sites import Ablate, Add, AddFrom, Replace, Scale, check_name

pytestmark = pytest.mark.usefixtures("compiled_quickly")

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
    on_device = jax.device_put(params)
    values = whole(name).captured
    nothing = jax.device_put({site: chain(value) for site, value in values.items()})
    traces = []

    @jax.jit
    def logits(params: Params, edits: dict[str, Any]) -> jax.Array:
        traces.append(1)
        return forward(config, params, TOKENS, edits).logits

    def with_edits(edits: dict[str, Chain]) -> np.ndarray:
        result = np.asarray(logits(on_device, nothing | edits))
        assert len(traces) == 1
        return result

    return with_edits


def chain(value: np.ndarray, add: Any = 0.0, scale: Any = 1.0, mask: Any = False, put: Any = 0.0) -> Chain:
    add, scale, put = (np.full(value.shape, x, np.float32) for x in (add, scale, put))
    return Chain((Add(add), Scale(scale), Ablate(np.full(value.shape, mask), put)))


@pytest.mark.parametrize("name", marked(ONE_EACH, devices=["neox-linear"], quick=["llama-mqa", "neox-linear"]))
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


@pytest.mark.parametrize("name", marked(ONE_EACH, quick=["llama-mqa", "neox-linear"]))
def test_captured_values_put_back_change_nothing(name: str) -> None:
    for site, value in whole(name).captured.items():
        after = edited(name)({site: chain(value, mask=True, put=value)})
        np.testing.assert_allclose(after, whole(name).logits, atol=1e-5, err_msg=site)


@pytest.mark.parametrize("name", marked(ONE_EACH, devices=["llama-mqa"]))
def test_replace(name: str) -> None:
    """Captured values at all sites change nothing; any other value is what is captured next, and the last one decides
    the logits.
    """
    config, params = cases.decoder(name)
    values = whole(name).captured
    put = {site: Replace(value) for site, value in values.items()}
    np.testing.assert_allclose(run(config, params, TOKENS, put, tuple(put)).logits, whole(name).logits, atol=1e-5)
    others = {
        site: np.random.default_rng(2).uniform(1, 2, value.shape).astype(np.float32) for site, value in values.items()
    }
    out = run(config, params, TOKENS, {site: Replace(value) for site, value in others.items()}, tuple(others))
    for site, value in others.items():
        np.testing.assert_array_equal(out.captured[site], value)
    final = others["ln_final.hook_normalized"] * params["ln_final"]["scale"] + params["ln_final"].get("bias", 0)
    W_U = params["embed"]["tokens"].T if config.tied else params["unembed"]["w"]
    np.testing.assert_allclose(out.logits, final @ W_U, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2-unscaled", "llama-mqa"])
def test_frozen_norm(name: str) -> None:
    """Twice the scale halves what is normalized, and the logits follow."""
    config, params = cases.decoder(name)
    scale, normalized = "ln_final.hook_scale", "ln_final.hook_normalized"
    before = whole(name)
    out = run(config, params, TOKENS, {scale: Replace(2 * before.captured[scale])}, (normalized,))
    np.testing.assert_allclose(out.captured[normalized], before.captured[normalized] / 2, atol=1e-5)
    bias = params["ln_final"]["bias"] @ params["unembed"]["w"] if config.norm == "layer" else 0
    np.testing.assert_allclose(out.logits - bias, (before.logits - bias) / 2, atol=2e-5)


@struct.dataclass
class Matrix:
    weights: jax.Array

    def __call__(self, value: jax.Array) -> jax.Array:
        return value @ self.weights


@pytest.mark.parametrize(("name", "reads"), [("neox-linear", "mlp.hook_post"), ("llama-mqa", "hook_resid_post")])
def test_what_is_added_from_another_site(name: str, reads: str) -> None:
    config, params = cases.decoder(name)
    stream, source = "blocks.1.hook_resid_post", f"blocks.1.{reads}"
    captured = whole(name).captured
    weights = 0.1 * np.random.default_rng(0).standard_normal((captured[source].shape[-1], config.d_model))
    added = AddFrom(source, Matrix(jnp.asarray(weights, jnp.float32)))
    found = run(config, params, TOKENS, {stream: added}, (source,))
    expected = run(config, params, TOKENS, {stream: Replace(captured[stream] + captured[source] @ weights)}).logits
    np.testing.assert_allclose(found.logits, expected, atol=1e-4)
    assert np.abs(found.logits - whole(name).logits).max() > 1e-2
    other = Ablate(np.arange(captured[source].shape[-1]) < 3, np.float32(0))  # what is read is the edited value
    if source != stream:
        both = run(config, params, TOKENS, {stream: added, source: other})
        h = np.where(np.arange(captured[source].shape[-1]) < 3, 0, captured[source])
        plain = run(config, params, TOKENS, {source: other}, (stream,)).captured[stream]
        np.testing.assert_allclose(
            both.logits, run(config, params, TOKENS, {stream: Replace(plain + h @ weights)}).logits, atol=1e-4
        )


def test_what_cannot_be_read() -> None:
    config, params = cases.decoder("llama-mqa")
    matrix = Matrix(jnp.zeros((config.d_model, config.d_model)))

    def told(site: str, reads: str, *parts: str) -> None:
        check_error(lambda: run(config, params, TOKENS, {site: AddFrom(reads, matrix)}), *parts)

    told("blocks.1.hook_resid_mid", "blocks.1.hook_resid_post", "which does not run before it", "read one that does")
    told(
        "blocks.1.hook_resid_post", "blocks.0.hook_resid_post", "'blocks.0.hook_resid_post', which does not run before"
    )
    told("blocks.1.hook_resid_post", "blocks.1.hook_resid_pots", "no site", "hook_resid_post")


def test_edits_broadcast() -> None:
    """A mask of neurons and a scalar act at every position, and nowhere else."""
    config, params = cases.decoder("gpt2-unscaled")
    site = "blocks.1.mlp.hook_post"
    mask = np.arange(config.d_mlp) % 3 == 0
    captured = run(config, params, TOKENS, {site: Ablate(mask, 0.25)}, (site,)).captured[site]
    np.testing.assert_array_equal(captured[..., mask], 0.25)
    np.testing.assert_allclose(captured[..., ~mask], whole("gpt2-unscaled").captured[site][..., ~mask], atol=1e-5)


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


@pytest.mark.parametrize("layer", marked([0, 1, 3], devices=[1]))
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
        ({"capture": ("blocks.0.mlp.hook_pots",)}, ["blocks.0.mlp.hook_pots", "blocks.0.mlp.hook_post", "nearest"]),
        ({"edits": {"hook_unembed": Add(1.0)}}, ["hook_unembed", "nearest"]),
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


def test_vmap_over_edits_repeats_only_what_follows_the_edited_site() -> None:
    """By XLA's count: running with more edits of the last layer's activations takes no more attention."""
    config = config_of("gpt_neox")

    def operations(count: int) -> float:
        def run(params: Params, tokens: jax.Array, values: jax.Array) -> jax.Array | None:
            edits = {"blocks.2.mlp.hook_post": Replace(values)}
            return forward(config, params, tokens, edits=edits).logits

        mapped = jax.jit(jax.vmap(run, in_axes=(None, None, 0)))
        arrays = array(1, 64, dtype=jnp.int32), array(count, 1, 64, config.d_mlp)
        counted: Any = mapped.lower(abstract_params(config), *arrays).compile().cost_analysis()
        return counted["flops"]

    behind = 2 * 64 * config.d_model * (config.d_mlp + config.vocab_size)
    assert operations(9) - operations(1) < 1.1 * 8 * behind


def test_a_name_from_an_array_is_shown_as_a_name() -> None:
    name, known = np.str_("blocks.0.hook_x"), [np.str_("blocks.0.hook_resid_pre")]
    assert "np.str_" not in check_error(lambda: check_name(name, known), "'blocks.0.hook_x'")

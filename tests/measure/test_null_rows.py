"""Nulls in an analysis: their effects against a model to whose stream they are added, and what p- and q-values say.

Letters: s window, t position, m null, d width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from edited_runs import metrics
from parameters import marked
from planted_model import PLANTED_ENTROPY, PLANTED_FREQUENCY, planted_model
from random_models import analysed, counts_for, random_model, windows_for

from jaxconf.analysis.nulls import draw_nulls, p_values, rho_p_values
from jaxconf.analysis.unembedding import at_layer, readout
from jaxconf.data.windows import kept_positions
from jaxconf.models.decoder import final_norm_name
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Add, Replace
from jaxconf.results.neuron_table import NeuronTable

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def by_definition(lm: LanguageModel, tokens: np.ndarray, layer: int, neuron: int, direction: np.ndarray) -> dict:
    """The effects of a null: the change of the neuron's activation, written along another direction into the stream."""
    site, stream = f"blocks.{layer}.mlp.hook_post", f"blocks.{layer}.hook_resid_post"
    scale = f"{final_norm_name(lm.config)}.hook_scale"
    behind = [f"blocks.{layer}.ln2_post.{name}" for name in ("hook_normalized", "hook_scale")]
    post = lm.config.norm_place == "both"
    before = lm.apply(tokens, capture=[site, scale, *behind * post])
    h = np.asarray(before.captured[site], np.float64)[..., neuron]
    delta = (h.mean() - h)[..., None]
    if post:  # the norm behind the MLP sees the neuron itself
        normalized, sigma = (np.asarray(before.captured[name], np.float64) for name in behind)
        row = np.asarray(lm.params["blocks"]["mlp"]["w_out"][layer, neuron], np.float64)
        delta = delta / np.sqrt(
            np.mean((normalized * sigma + delta * row) ** 2, -1, keepdims=True) + lm.config.norm_eps
        )
        own = np.asarray(at_layer(lm.config, lm.params, readout(lm.config, lm.params), "paper", layer).w_out)[neuron]
        mean = np.where(np.arange(lm.config.d_mlp) == neuron, h.mean(), before.captured[site])
        ablated = {site: Replace(jnp.asarray(mean, jnp.float32))}
        edit = {**ablated, stream: Add(jnp.asarray(delta * (direction - own), jnp.float32))}
    else:
        edit = {stream: Add(jnp.asarray(delta * direction, jnp.float32))}
    kept = kept_positions(tokens, lm.special_ids)[:, :-1]
    counts = counts_for(lm)
    f = (counts + 1) / (counts + 1).sum()
    u = (np.log(f) - np.log(f).mean()) / np.linalg.norm(np.log(f) - np.log(f).mean())
    frozen = {scale: Replace(before.captured[scale])}
    total, norm_frozen = (np.asarray(lm.apply(tokens, edits={**edit, **of}).logits, np.float64) for of in ({}, frozen))
    plain = np.asarray(before.logits, np.float64)
    logits = plain, total, norm_frozen, total + ((plain - total) @ u)[..., None] * u
    base, te, ln, fr = (metrics(z[:, :-1], tokens[:, 1:], f) for z in logits)
    return {
        "entropy_delta": (te["entropy"] - base["entropy"])[kept].mean(),
        "loss_abs_delta": np.abs(te["loss"] - base["loss"])[kept].mean(),
        "loss_abs_delta_ln_frozen": np.abs(ln["loss"] - base["loss"])[kept].mean(),
        "loss_abs_delta_freq_frozen": np.abs(fr["loss"] - base["loss"])[kept].mean(),
    }


@pytest.mark.parametrize(
    ("kind", "layer"),
    marked(
        [("layer", 1), ("layer", 0), ("rms", 1), ("rms", 0), ("capped", 2), ("capped", 1), ("no norm", 1)],
        quick=[("layer", 1), ("rms", 0), ("capped", 1), ("no norm", 1)],
    ),
)
def test_a_null_is_its_neuron_with_another_direction(kind: str, layer: int) -> None:
    lm = random_model(kind)
    tokens = windows_for(lm)
    table = analysed(lm, tokens, layer=layer, nulls=200, bootstrap_draws=0)
    own = at_layer(lm.config, lm.params, readout(lm.config, lm.params), "paper", layer)
    nulls = draw_nulls(lm.config, np.asarray(own.w_out), 200, seed=0)
    np.testing.assert_array_equal(table.nulls["neuron"], nulls.neurons)
    np.testing.assert_allclose(table.nulls["w_norm"], table.frame["w_norm"][nulls.neurons], rtol=1e-5)
    for m in (0, 57, 199):
        expected = by_definition(lm, tokens, layer, nulls.neurons[m], nulls.directions[m])
        assert expected["loss_abs_delta"] > 1e-3
        for name, value in expected.items():
            assert table.nulls.loc[m, name] == pytest.approx(value, abs=1e-5), (m, name)


def test_nulls_change_nothing_of_the_neurons() -> None:
    lm = random_model("rms")
    without, beside = (analysed(lm, windows_for(lm), nulls=nulls, bootstrap_draws=20).frame for nulls in (0, 200))
    for name in without:
        if not name.endswith(("_p", "_q", "_chance")):
            size = without["loss_abs_delta"] if "mediated" in name else 1  # by which a share divides its rounding
            np.testing.assert_allclose(without[name] * size, beside[name] * size, rtol=1e-6, atol=1e-6, err_msg=name)
    assert without[["ln_mediated_p", "ln_mediated_q", "freq_mediated_p", "freq_mediated_q"]].isna().all(axis=None)
    assert beside[["ln_mediated_q", "freq_mediated_q"]].notna().all(axis=None)


def test_correlations_and_signs_are_those_of_their_definitions() -> None:
    lm = random_model("layer")
    tokens = windows_for(lm, count=30)
    table = analysed(lm, tokens, bootstrap_draws=100)
    h = np.asarray(lm.apply(tokens, capture=["blocks.1.mlp.hook_post"]).captured["blocks.1.mlp.hook_post"], np.float64)
    own = h[table.positions["window"], table.positions["position"]]
    for name in ("entropy", "loss"):
        expected = [np.corrcoef(of_neuron, table.positions[name])[0, 1] for of_neuron in own.T]
        np.testing.assert_allclose(table.frame[f"{name}_corr"], expected, atol=1e-5)
    low, high = table.frame["entropy_delta_lo"], table.frame["entropy_delta_hi"]
    np.testing.assert_array_equal(table.frame["confidence_sign"], (low > 0).astype(int) - (high < 0))
    shares = 1 - table.frame["entropy_abs_delta_ln_frozen"] / table.frame["entropy_abs_delta"]
    np.testing.assert_allclose(table.frame["entropy_mediated"], shares, atol=1e-6)


@functools.cache
def random_world(seed: int) -> NeuronTable:
    """An analysis of a model whose last layer writes along random directions."""
    lm = random_model("rms", seed=seed)
    mlp = lm.params["blocks"]["mlp"]
    drawn = jax.random.normal(jax.random.key(seed), mlp["w_out"].shape[1:]) * 0.3
    params = {**lm.params, "blocks": {**lm.params["blocks"], "mlp": {**mlp, "w_out": mlp["w_out"].at[-1].set(drawn)}}}
    tokens = np.random.default_rng(seed).integers(1, lm.config.vocab_size, (16, 16))
    return analysed(dataclasses.replace(lm, params=params), tokens, nulls=400, seed=seed, k=4, bootstrap_draws=100)


WORLDS = pytest.mark.parametrize("seeds", marked([range(10), range(10, 30)], quick=[range(10)]))


@pytest.mark.command
@WORLDS
def test_p_values_of_nulls_are_uniform(seeds: range) -> None:
    """With nulls in the place of neurons: the first hundred are judged by the others."""
    found: dict[str, list[float]] = {"rho": [], "ln_mediated": [], "freq_mediated": []}
    for seed in seeds:
        nulls = random_world(seed).nulls
        p = {"rho": rho_p_values(nulls["rho"][:100].to_numpy(), 4, 32)}
        for name in ("ln_mediated", "freq_mediated"):
            p[name] = p_values(nulls[name][:100].to_numpy(), nulls[name][100:].to_numpy())
        for name, values in p.items():
            found[name].append(scipy.stats.kstest(values, "uniform").pvalue)
    for name, of_seeds in found.items():
        assert sum(p <= 0.01 for p in of_seeds) <= 1, (name, np.sort(of_seeds)[:4])


@pytest.mark.command
@WORLDS
def test_random_models_have_no_entropy_neurons_and_no_frequency_neurons(seeds: range) -> None:
    named = [random_world(seed).frame[["is_entropy_neuron", "is_frequency_neuron"]].to_numpy().any() for seed in seeds]
    assert sum(named) <= 1, np.flatnonzero(named)


@pytest.mark.command
@pytest.mark.parametrize("seeds", marked([range(4), range(4, 20)], quick=[range(4)]))
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_planted_neurons_are_named_and_no_others_whatever_the_seed(kind: str, seeds: range) -> None:
    for seed in seeds:
        lm, counts = planted_model(kind, seed=seed)
        tokens = np.random.default_rng(seed).integers(1, lm.config.vocab_size, (16, 16))
        frame = analysed(lm, tokens, counts=counts, nulls=200, seed=seed, bootstrap_draws=200).frame
        assert frame.index[frame["is_entropy_neuron"]].tolist() == PLANTED_ENTROPY, seed
        assert frame.index[frame["is_frequency_neuron"]].tolist() == PLANTED_FREQUENCY, seed

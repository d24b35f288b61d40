"""Weight statistics against plain float64 numpy and planted directions. Letters: d width, n neuron, v vocabulary."""

import dataclasses

import cases
import jax
import numpy as np
import pytest
import scipy.stats
from decoder_runs import run
from hypothesis import given, settings
from hypothesis import strategies as st
from parameters import marked
from random_models import random_model
from scipy.special import log_softmax

from jaxconf.analysis import unembedding
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.metrics import PUBLISHED, RHO_AT, TIGHIDET
from jaxconf.analysis.selection import Shape
from jaxconf.analysis.unembedding import Spectrum, convention_notes, readout, spectrum
from jaxconf.analysis.weights import (
    chance_rho,
    cosines,
    knee,
    null_space_size,
    null_spaces,
    rho,
    vocabulary_statistics,
    weight_cost,
)
from jaxconf.models.decoder import final_norm_name
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.leaves import nest
from jaxconf.models.mesh import make_mesh

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIGS = {
    "layer": {
        "model_type": "gpt2",
        "n_layer": 2,
        "n_embd": 24,
        "n_head": 2,
        "vocab_size": 67,
        "n_positions": 32,
        "tie_word_embeddings": False,
    },
    "rms": {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 24,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "vocab_size": 67,
        "max_position_embeddings": 32,
    },
}


@pytest.fixture(params=CONFIGS)
def model(request):
    """A decoder with random parameters, none at its default."""
    config = config_from_hf(CONFIGS[request.param])
    return config, random_params(config)


def random_params(config):
    rng = np.random.default_rng(1)
    return nest(
        (leaf.path, ((leaf.init == "ones") + 0.3 * rng.standard_normal(leaf.shape(config))).astype(np.float32))
        for leaf in leaves(config)
    )


def read_out(*args):
    """The readout as numpy arrays, so that no product with it is a program of its own."""
    return jax.tree.map(np.asarray, readout(*args))


def folded(config, params):
    """Ŵ_U, b̂ and the write directions by SCIENCE section 1, in float64 numpy."""
    gain = np.asarray(params["ln_final"]["scale"], np.float64)
    W = np.asarray(params["unembed"]["w"], np.float64)
    b = np.asarray(params["ln_final"]["bias"], np.float64) @ W if config.norm == "layer" else np.zeros(W.shape[1])
    W, w = gain[:, None] * W, np.asarray(params["blocks"]["mlp"]["w_out"][-1], np.float64)
    if config.norm == "layer":
        W, w = W - W.mean(0), w - w.mean(1, keepdims=True)
    return W - W.mean(1, keepdims=True), b - b.mean(), w


@pytest.mark.device
def test_readout_gives_the_models_own_log_probabilities(model):
    config, params = model
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 20))
    out = run(config, params, tokens, capture=("ln_final.hook_normalized",))
    seen = read_out(config, params)
    logits = out.captured["ln_final.hook_normalized"] @ seen.W_U + seen.b_U
    np.testing.assert_allclose(log_softmax(logits, -1), log_softmax(out.logits, -1), atol=2e-5)


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "opt-summed", "granite", "opt-no-final-norm"])
def test_readout_of_other_norms_factors_and_caps_gives_the_models_own_probabilities(name):
    """Also what the last neurons write: where no norm follows, ablating all of them takes h·w_out from the stream."""
    config, params = cases.decoder(name)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 20))
    last = f"blocks.{config.n_layers - 1}."
    norm = f"{final_norm_name(config)}.hook_normalized"
    out = run(
        config,
        params,
        tokens,
        capture=(norm, last + "mlp.hook_post", last + "ln2_post.hook_scale", last + "hook_mlp_out")[
            : 4 if "ln2_post" in params["blocks"] else 2
        ],
    )
    seen, cap = read_out(config, params), config.logit_softcap
    logits = out.captured[norm] @ seen.W_U + seen.b_U
    if cap is not None:
        logits = cap * np.tanh(logits / cap)
    np.testing.assert_allclose(log_softmax(logits, -1), log_softmax(out.logits, -1), atol=2e-5)
    if "ln2_post" in params["blocks"]:
        written = out.captured[last + "mlp.hook_post"] @ seen.w_out / out.captured[last + "ln2_post.hook_scale"]
        np.testing.assert_allclose(written, out.captured[last + "hook_mlp_out"], atol=2e-5)
    assert np.allclose(seen.W_U.mean(1), 0, atol=1e-6) == (config.logit_softcap is None)


def test_what_the_convention_leaves_out_is_said():
    said = {
        name: " ".join(convention_notes(cases.decoder(name)[0]))
        for name in ("gpt2", "gemma2", "gemma2-open", "olmo", "opt-summed", "opt-no-final-norm")
    }
    assert said["gpt2"] == ""
    assert "soft-capped" in said["gemma2"]
    assert "soft-capped" not in said["gemma2-open"]
    assert all("follows the MLP" in said[name] for name in ("gemma2", "gemma2-open"))
    assert "no parameters" in said["olmo"]
    assert "takes the final norm's place" in said["opt-summed"]
    assert "projection" in said["opt-summed"]
    assert "no final norm" in said["opt-no-final-norm"]
    assert "no parameters" not in said["opt-no-final-norm"]


def test_without_a_final_norm_the_mean_over_the_width_counts():
    """The paper's convention then only centres W_U over the vocabulary, and no direction of the stream is hidden."""
    config, params = cases.decoder("opt-no-final-norm")
    seen, W = read_out(config, params), params["embed"]["tokens"].T
    np.testing.assert_allclose(seen.W_U, W - W.mean(1, keepdims=True), atol=1e-6)
    assert not np.any(seen.b_U)
    np.testing.assert_array_equal(seen.w_out, params["blocks"]["mlp"]["w_out"][-1])
    found = spectrum(config, params)
    assert found.vectors.shape == (config.d_model, config.d_model)
    np.testing.assert_allclose(found.values, np.linalg.svd(np.asarray(seen.W_U, np.float64))[1], rtol=1e-4)


def test_readout_is_the_folding_of_the_definition_and_leaves_the_parameters_alone(model):
    config, params = model
    kept = jax.tree.map(np.array, params)
    seen, (W, b, w) = read_out(config, params), folded(config, params)
    np.testing.assert_allclose(seen.W_U, W, atol=1e-6)
    np.testing.assert_allclose(seen.b_U, b, atol=5e-6)
    np.testing.assert_allclose(seen.w_out, w, atol=1e-6)
    raw = read_out(config, params, "raw")
    np.testing.assert_array_equal(raw.W_U, params["unembed"]["w"])
    np.testing.assert_array_equal(raw.w_out, params["blocks"]["mlp"]["w_out"][-1])
    jax.tree.map(np.testing.assert_array_equal, kept, params)


@pytest.mark.device
def test_vocabulary_statistics_equal_plain_numpy(model):
    config, params = model
    W, _, w = folded(config, params)
    freq = frequency(np.random.default_rng(3).integers(0, 1000, config.vocab_size))
    ours = vocabulary_statistics(make_mesh(data=1), readout(config, params), freq.u)
    norms = np.linalg.norm(w, axis=1)
    angles = w @ W / norms[:, None] / np.linalg.norm(W, axis=0)
    M, u = w @ W, np.asarray(freq.u, np.float64)
    np.testing.assert_allclose(ours["w_norm"], norms, rtol=1e-5)
    np.testing.assert_allclose(ours["logit_var"], angles.var(1, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(ours["vocab_skew"], scipy.stats.skew(angles, axis=1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours["vocab_kurtosis"], scipy.stats.kurtosis(angles, axis=1, fisher=False), rtol=1e-4)
    np.testing.assert_allclose(ours["cos_freq"], M @ u / np.linalg.norm(M, axis=1), rtol=1e-4, atol=1e-6)


@pytest.mark.device
def test_weight_cost_is_the_sum_of_squares_of_all_the_neurons_weights(model):
    config, params = model
    mlp = params["blocks"]["mlp"]
    columns = [np.asarray(mlp[name][-1], np.float64) for name in ("w_in", "w_gate") if name in mlp]
    expected = sum((w**2).sum(0) for w in columns) + (np.asarray(mlp["w_out"][-1], np.float64) ** 2).sum(1)
    np.testing.assert_allclose(jax.jit(weight_cost, static_argnums=0)(config, params), expected, rtol=1e-5)


@pytest.mark.device
def test_spectrum_is_the_svd_without_the_direction_the_norm_ignores(model):
    config, params = model
    W, _, w = folded(config, params)
    U, values, _ = np.linalg.svd(W, full_matrices=False)
    hidden = int(config.norm == "layer")
    D = config.d_model - hidden
    ours = spectrum(config, params)
    assert ours.values.shape == (D,)
    assert ours.vectors.shape == (config.d_model, D)
    np.testing.assert_allclose(ours.values, values[:D], rtol=1e-7)
    np.testing.assert_allclose(np.abs(np.sum(ours.vectors * U[:, :D], axis=0)), 1, atol=1e-6)
    for k in (1, 4):
        expected = np.linalg.norm(w @ U[:, D - k : D], axis=1) / np.linalg.norm(w, axis=1)
        np.testing.assert_allclose(rho(w, ours, k), expected, rtol=1e-4)
    np.testing.assert_allclose(np.square(cosines(w, ours)).sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("convention", ["paper", "raw"])
@pytest.mark.parametrize("name", CONFIGS)
def test_spectrum_is_summed_over_blocks_of_the_vocabulary(name, convention, monkeypatch):
    """Blocks that divide the vocabulary and blocks that do not; no other test has these sizes, so nothing is cached."""
    rng = np.random.default_rng(5)
    for vocab_size in (96, 97):
        monkeypatch.setattr(unembedding, "BLOCK", 16)
        config = config_from_hf(CONFIGS[name] | {"vocab_size": vocab_size})
        params = nest(
            (leaf.path, rng.standard_normal(leaf.shape(config)).astype(np.float32)) for leaf in leaves(config)
        )
        W = folded(config, params)[0] if convention == "paper" else np.asarray(params["unembed"]["w"], np.float64)
        ours = spectrum(config, params, convention).values
        np.testing.assert_allclose(ours, np.linalg.svd(W, compute_uv=False)[: len(ours)], rtol=1e-7)


@pytest.mark.device
def test_small_singular_values_survive(model):
    config, params = model
    U, values, Vt = np.linalg.svd(np.asarray(params["unembed"]["w"], np.float64), full_matrices=False)
    planted = np.concatenate([values[:-1], [1e-5 * values[0]]])
    params = {**params, "unembed": {"w": ((U * planted) @ Vt).astype(np.float32)}}
    stored = np.linalg.svd(np.asarray(params["unembed"]["w"], np.float64), compute_uv=False)
    ours = spectrum(config, params, "raw").values
    np.testing.assert_allclose(ours[-1], stored[-1], rtol=1e-3)


def test_an_exact_null_space_beside_the_hidden_direction_is_found():
    config = config_from_hf(CONFIGS["layer"])
    params = random_params(config)
    params["ln_final"]["scale"] = np.ones(config.d_model, np.float32)
    rng = np.random.default_rng(2)
    null = rng.standard_normal(config.d_model)
    null = (null - null.mean()) / np.linalg.norm(null - null.mean())
    W = rng.standard_normal((config.d_model, config.vocab_size))
    params["unembed"]["w"] = (W - np.outer(null, null @ W)).astype(np.float32)
    ours = spectrum(config, params)
    assert ours.values[-1] < 1e-5 * ours.values[0]
    assert ours.values[-2] > 0.1 * ours.values[0]
    assert abs(ours.vectors[:, -1] @ null) == pytest.approx(1, abs=1e-6)


@settings(max_examples=25)
@given(k=st.integers(1, 6), d=st.integers(7, 40), seed=st.integers(0, 2**31))
def test_rho_is_a_share_and_does_not_depend_on_length(k, d, seed):
    rng = np.random.default_rng(seed)
    vectors = np.linalg.qr(rng.standard_normal((d, d)))[0]
    ours = Spectrum(np.arange(d, 0, -1.0), vectors)
    w = rng.standard_normal((5, d))
    assert (rho(w, ours, k) <= 1 + 1e-12).all()
    np.testing.assert_allclose(rho(7.5 * w, ours, k), rho(w, ours, k))
    np.testing.assert_allclose(rho(vectors[:, -k:].T, ours, k), 1)
    np.testing.assert_allclose(rho(vectors[:, :-k].T, ours, k), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("k", "d", "n"), marked([(1, 64, 172), (11, 767, 3072), (2, 24, 40)], quick=[(1, 64, 172), (2, 24, 40)])
)
def test_chance_level_is_what_random_directions_reach(k, d, n):
    rng = np.random.default_rng(0)
    draws = 400
    first = rng.chisquare(k, (draws, n))
    maxima = np.sqrt(first / (first + rng.chisquare(d - k, (draws, n)))).max(1)
    top, single = chance_rho(k, d, n)
    assert (maxima < top).mean() == pytest.approx(0.99, abs=0.02)
    assert top > single
    alone = rng.standard_normal((20000, d))
    share = np.linalg.norm(alone[:, :k], axis=1) / np.linalg.norm(alone, axis=1)
    assert (share < single).mean() == pytest.approx(0.99, abs=0.005)


def test_default_k():
    config = random_model("rms").config
    assert [null_space_size(dataclasses.replace(config, d_model=d)) for d in (24, 64, 768, 4096)] == [1, 1, 8, 41]
    small = Shape("gpt2", 12, 768, 3072, 50257)
    assert null_space_size(small) == 11  # the paper's 12 count the direction that LayerNorm ignores
    assert null_space_size(small, 8) == 8
    assert null_spaces(small) == dict(zip([*RHO_AT, TIGHIDET, PUBLISHED], [4, 8, 15, 38, 40, 11], strict=True))
    assert PUBLISHED not in null_spaces(config)


@pytest.mark.parametrize("m", [0, 1, 3, 12])
def test_the_knee_is_where_planted_small_values_begin(m):
    rng = np.random.default_rng(m)
    spread = np.sort(np.linalg.svd(rng.standard_normal((96, 800)), compute_uv=False))[::-1]
    values = np.sort(np.append(spread[: 96 - m], spread[-1] / rng.uniform(3, 4, m)))[::-1]
    found, ratio = knee(values)
    if m:
        assert found == m
        assert ratio == pytest.approx(values[-m - 1] / values[-m])
    else:
        assert ratio < 1.1


def test_values_that_only_rounding_tells_from_zero_are_below_the_knee():
    assert knee(np.array([9.0, 8, 7, 6, 5, 1e-9, 1e-12, 0])) == (3, 5 / 9e-7)
    assert knee(np.array([2.0])) == (0, 1.0)


def test_frequency_direction():
    counts = np.array([10, 0, 3, 999])
    freq = frequency(counts)
    f = (counts + 1) / (counts + 1).sum()
    np.testing.assert_allclose(freq.f, f, rtol=1e-6)
    np.testing.assert_allclose(freq.log_f, np.log(f), rtol=1e-6)
    assert np.sum(freq.u) == pytest.approx(0, abs=1e-6)
    assert np.linalg.norm(freq.u) == pytest.approx(1, abs=1e-6)
    assert not np.asarray(frequency(np.full(5, 7)).u).any()

"""The effects against re-running the edited model for every neuron, against independent tables, and on planted neurons.

Letters: s window, t position, n neuron, v vocabulary. Losses, entropies and divergences in nats.
"""

import dataclasses
import functools
from typing import Any

import cases
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ablated_activations import ABLATIONS, by_definition
from edited_runs import metrics, rerun
from parameters import marked
from planted_model import PLANTED_ENTROPY, PLANTED_FREQUENCY, planted_model
from random_models import HF, analysed, random_model, windows_for

from jaxconf.analysis.ablation import Ablation
from jaxconf.analysis.adaptive_softmax import HEAD
from jaxconf.analysis.effects import effects, sharded_effects
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.kinds import KINDS
from jaxconf.analysis.metrics import EFFECTS
from jaxconf.analysis.unembedding import readout
from jaxconf.data.windows import kept_positions
from jaxconf.measure import last_layer
from jaxconf.measure.weights import weight_statistics
from jaxconf.models.errors import InputError
from jaxconf.models.families import FAMILIES

pytestmark = pytest.mark.usefixtures("compiled_quickly")

EVERY_FAMILY = {cases.CASES[name]["model_type"]: name for name in cases.CASES}


def test_every_kind_is_among_them():
    assert {ablation.kind for ablation in ABLATIONS} == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "ablation"),
    [
        pytest.param("layer", Ablation("mean"), marks=pytest.mark.device),
        *(("layer", ablation) for ablation in ABLATIONS if ablation.kind not in ("mean", "zero", "fixed")),
        *(("rms", ablation) for ablation in ABLATIONS if ablation.kind in ("zero", "fixed")),
        ("capped", Ablation("mean")),
        ("no norm", Ablation("mean")),
        pytest.param("summed", Ablation("mean"), marks=pytest.mark.parity),  # for its length
    ],
    ids=str,
)
def test_effects_equal_running_the_edited_model_again(kind, ablation):
    lm = random_model(kind)
    tokens = windows_for(lm)
    kept = kept_positions(tokens, lm.special_ids)
    counts = np.random.default_rng(1).integers(0, 500, lm.config.vocab_size)
    expected = rerun(lm, tokens, kept, counts, functools.partial(by_definition, ablation))
    table = analysed(lm, tokens, counts=counts, ablation=ablation, bootstrap_draws=0)
    assert table.facts["ablation"] == ablation.kind
    assert table.facts["ablation_value"] == (ablation.value or 0)
    assert expected["loss_abs_delta"].median() > 1e-3  # the neurons do something, so that agreement means something
    for column in EFFECTS:
        one_tie = (
            1e-3 if column in ("rr_abs_delta", "top1_change") else 0
        )  # between tokens that are equally likely but for rounding
        np.testing.assert_allclose(table.frame[column], expected[column], atol=max(2e-5, one_tie), err_msg=column)
    shares = 1 - expected["loss_abs_delta_ln_frozen"] / expected["loss_abs_delta"]
    measured, size = table.frame["ln_mediated"], table.frame["loss_abs_delta"]
    assert (
        ((measured - shares).abs() <= np.maximum(2e-3, 3e-7 / size)).where(size > 1e-6, measured.isna()).all()
    )  # 3e-7: rounding


@pytest.mark.parity  # for its length; it needs nothing else
@pytest.mark.parametrize("name", EVERY_FAMILY.values())
def test_effects_in_every_family(name):
    test_effects_equal_running_the_edited_model_again(name, Ablation("mean"))


def test_every_family_is_among_them():
    assert EVERY_FAMILY.keys() == FAMILIES.keys()


@pytest.mark.parametrize("kind", marked(HF, quick=["rms"]))  # test_reproduce_paper.py has a model of the other kind
def test_planted_neurons_are_found_and_no_others(kind):
    lm, counts = planted_model(kind)
    tokens = np.random.default_rng(3).integers(1, lm.config.vocab_size, (8, 48))
    frame = analysed(lm, tokens, counts=counts, nulls=200, bootstrap_draws=100).frame
    assert frame.index[frame["is_entropy_neuron"]].tolist() == PLANTED_ENTROPY
    assert frame.index[frame["is_frequency_neuron"]].tolist() == PLANTED_FREQUENCY
    planted = frame.loc[PLANTED_ENTROPY]
    np.testing.assert_allclose(planted["rho"], 1, atol=1e-5)
    np.testing.assert_allclose(planted["ln_mediated"], 1, atol=1e-3)
    assert (planted["ln_mediated_lo"] > 0.99).all()
    np.testing.assert_allclose(frame.loc[PLANTED_FREQUENCY, "cos_freq"].abs(), 1, atol=1e-5)


def extreme(case: str):
    """Inputs on which sums of exponentials go wrong: r rows, n neurons, d width."""
    lm = random_model("layer", seed=3)
    rng = np.random.default_rng(0)
    R, d, N, V = 12, lm.config.d_model, lm.config.d_mlp, lm.config.vocab_size
    x, delta = rng.standard_normal((R, d)), rng.standard_normal((R, N))
    params = dict(lm.params)
    if case == "huge change":
        delta[:, :7] *= 1e4
    elif case == "huge logits":
        params["unembed"] = {"w": 1e3 * lm.params["unembed"]["w"]}
    elif case == "all logits equal":
        params["unembed"] = {"w": jnp.zeros((d, V))}
        params["ln_final"] = {**lm.params["ln_final"], "bias": jnp.zeros(d)}
    elif case == "nothing changes":
        delta[:] = 0
    elif case == "the neuron is the whole stream":
        w = np.asarray(readout(lm.config, params).w_out)
        x = 3 * w[:R] + 1e-3 * x
        delta[np.arange(R), np.arange(R)] = -3
    else:
        raise ValueError(case)
    return lm.config, params, x.astype(np.float32), delta.astype(np.float32), rng.integers(0, V, R)


CASES = ["huge change", "huge logits", "all logits equal", "nothing changes", "the neuron is the whole stream"]


@pytest.mark.device
@pytest.mark.parametrize("case", CASES)
def test_effects_stay_finite_and_right_at_the_extremes(case):
    config, params, x, delta, target = extreme(case)
    freq = frequency(np.arange(config.vocab_size))
    R = len(x)
    ours, before, _ = jax.jit(effects, static_argnames="config")(
        config, readout(config, params), freq, x, delta, target, np.eye(R, dtype=np.float32)
    )

    W = np.asarray(readout(config, params).W_U, np.float64)
    b = np.asarray(readout(config, params).b_U, np.float64)
    w = np.asarray(readout(config, params).w_out, np.float64)
    f, u = np.asarray(freq.f, np.float64), np.asarray(freq.u, np.float64)
    centred = (x - x.mean(1, keepdims=True)).astype(np.float64)
    scale = np.sqrt((centred**2).mean(1, keepdims=True) + config.norm_eps)
    base = metrics(centred / scale @ W + b, target, f)
    size = max(1.0, float(np.abs(centred / scale @ W).max()))
    np.testing.assert_allclose(before["loss"], base["loss"], atol=3e-6 * size)
    for n in range(delta.shape[1]):
        moved = centred + delta[:, n, None].astype(np.float64) * w[n]
        scale_te = np.sqrt((moved**2).mean(1, keepdims=True) + config.norm_eps)
        z, z_ln = moved / scale_te @ W + b, moved / scale @ W + b
        z_fr = z + ((centred / scale @ W + b - z) @ u)[:, None] * u
        cancelled = np.max(scale / scale_te)  # A + δM loses what the neuron takes away from the stream
        size = max(1.0, float(np.abs(z_ln).max()), float(np.abs(z).max())) * max(1.0, cancelled)
        te = metrics(z, target, f)
        changes = {
            "loss_delta": te["loss"] - base["loss"],
            "entropy_delta": te["entropy"] - base["entropy"],
            "kl_freq_delta": te["kl"] - base["kl"],
            "loss_abs_delta_ln_frozen": np.abs(metrics(z_ln, target, f)["loss"] - base["loss"]),
            "loss_abs_delta_freq_frozen": np.abs(metrics(z_fr, target, f)["loss"] - base["loss"]),
        }
        for name, change in changes.items():
            np.testing.assert_allclose(ours[name][:, n], change, atol=1e-5 * size, err_msg=f"{name} of neuron {n}")
    if case == "nothing changes":
        assert not any(np.asarray(ours[name]).round(5).any() for name in EFFECTS)


@pytest.mark.device
def test_dead_and_pruned_neurons_have_no_effect_and_no_share():
    lm = random_model("layer")
    mlp = lm.params["blocks"]["mlp"]
    dead = {"w_in": mlp["w_in"].at[-1, :, 3].set(0), "b_in": mlp["b_in"].at[-1, 3].set(-50.0)}  # never active
    pruned = {"w_out": mlp["w_out"].at[-1, 5].set(0)}
    params = {**lm.params, "blocks": {**lm.params["blocks"], "mlp": {**mlp, **dead, **pruned}}}
    frame = analysed(dataclasses.replace(lm, params=params), windows_for(lm), bootstrap_draws=10).frame
    assert not frame.loc[[3, 5], list(EFFECTS)].to_numpy().any()
    assert frame.loc[[3, 5], ["ln_mediated", "freq_mediated", "ln_mediated_lo"]].isna().all(axis=None)
    assert not frame.loc[[3, 5], ["is_entropy_neuron", "is_frequency_neuron"]].to_numpy().any()
    assert np.isnan(frame.loc[5, "rho"])
    assert frame.drop(index=[3, 5])[[*EFFECTS, "ln_mediated", "rho"]].notna().all(axis=None)


def test_positions_are_the_unablated_models_own_figures():
    lm = random_model("rms")
    tokens = windows_for(lm)
    counts = np.arange(lm.config.vocab_size)
    table = analysed(lm, tokens, counts=counts, bootstrap_draws=0)
    where = table.positions[["window", "position"]].to_numpy().T
    np.testing.assert_array_equal(np.argwhere(kept_positions(tokens, lm.special_ids)), where.T)
    f = (counts + 1) / (counts + 1).sum()
    expected = metrics(lm.apply(tokens).logits[:, :-1], tokens[:, 1:], f)
    for column, name in (("loss", "loss"), ("entropy", "entropy"), ("kl_freq", "kl")):
        np.testing.assert_allclose(table.positions[column], expected[name][tuple(where)], atol=2e-5)
    assert table.facts["loss"] == pytest.approx(table.positions["loss"].mean())
    np.testing.assert_array_equal(table.positions["target"], tokens[where[0], where[1] + 1])


A_WINDOW = 450_000  # bytes of memory in which the positions of one window fit, but not of two


@pytest.mark.parametrize(
    ("kind", "engine", "memory"),
    marked(
        [
            ("layer", "exact", A_WINDOW),
            ("layer", "exact", 1),
            ("capped", "exact", A_WINDOW),
            ("capped", "exact", 1),
            ("large", "adaptive", 3_500_000),
        ],
        quick=[("layer", "exact", A_WINDOW), ("capped", "exact", 1)],
    ),
)
def test_little_memory_gives_the_same_numbers(kind, engine, memory):
    lm = random_model(kind)
    tokens = windows_for(lm, count=3)
    whole = analysed(lm, tokens, seed=4, engine=engine, bootstrap_draws=30)
    little = analysed(lm, tokens, seed=4, engine=engine, bootstrap_draws=30, memory=memory)
    for column in whole.frame:
        size = (
            whole.frame["loss_abs_delta"] if "mediated" in column else 1
        )  # a share divides by the effect, and with it its rounding
        rough = (
            column.endswith("_corr") or "entropy_mediated" in column or "norm_delta" in column
        )  # a length is near 10
        off = 1e-5 if rough else 1e-6  # that of entropies and losses
        np.testing.assert_allclose(whole.frame[column] * size, little.frame[column] * size, atol=off, err_msg=column)
    pd.testing.assert_frame_equal(whole.positions, little.positions, atol=1e-5)
    if engine == "adaptive":
        assert whole.facts["pairs_redone"] == little.facts["pairs_redone"]


def test_out_of_memory_the_work_is_done_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = random_model("layer")
    tokens = windows_for(lm, count=6)
    whole = analysed(lm, tokens, bootstrap_draws=5, memory=2 * 10**6)
    compiled, tried, said = last_layer.compiled_effects, [], []

    def small(*arguments: Any) -> Any:
        rows = arguments[4].shape[1]
        tried.append(rows)
        if rows > 40:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return compiled(*arguments)

    monkeypatch.setattr(last_layer, "compiled_effects", small)
    monkeypatch.setattr("jaxconf.runtime.memory.LEAST", 1)
    little = analysed(
        lm, tokens, bootstrap_draws=5, memory=2 * 10**6, progress=lambda what, done, total: said.append(what)
    )
    assert max(tried) > 40 >= min(tried)
    assert any("out of memory" in what for what in said)
    for column in whole.frame:
        np.testing.assert_allclose(little.frame[column], whole.frame[column], atol=1e-4, err_msg=column)
    pd.testing.assert_frame_equal(little.positions, whole.positions, atol=1e-6)


def test_an_interrupted_analysis_goes_on_where_it_stopped(monkeypatch, tmp_path):
    lm = random_model("layer")
    tokens = windows_for(lm, count=4)
    whole = analysed(lm, tokens, bootstrap_draws=10, memory=A_WINDOW)

    def stop(what: str, done: int, total: int) -> None:
        if what == "effects" and done == 2 * tokens.shape[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analysed(lm, tokens, bootstrap_draws=10, resume_folder=tmp_path, memory=A_WINDOW, progress=stop)
    assert len(list(tmp_path.glob("*/*.npz"))) == 2

    computed = []
    compiled = last_layer.compiled_effects
    monkeypatch.setattr(last_layer, "compiled_effects", lambda *a: computed.append(1) or compiled(*a))
    resumed = analysed(lm, tokens, bootstrap_draws=10, resume_folder=tmp_path, memory=A_WINDOW)
    assert len(computed) == 2
    pd.testing.assert_frame_equal(resumed.frame, whole.frame)
    pd.testing.assert_frame_equal(resumed.positions, whole.positions)
    other = (
        {"ablation": Ablation("zero")},
        {"counts": np.arange(lm.config.vocab_size)},
        {"kept": np.ones(tokens.shape, bool)},
    )
    for change in other:  # what a group was computed for is part of its name
        computed.clear()
        analysed(lm, tokens, bootstrap_draws=0, resume_folder=tmp_path, memory=A_WINDOW, **change)
        assert len(computed) == 4
    computed.clear()
    analysed(random_model("layer", seed=8), tokens, bootstrap_draws=0, resume_folder=tmp_path, memory=A_WINDOW)
    assert len(computed) == 4


def test_groups_of_windows_compile_once(monkeypatch):
    counted = jax.jit(chex.assert_max_traces(sharded_effects, n=1), static_argnames=("mesh", "config"))
    monkeypatch.setattr("jaxconf.measure.last_layer.compiled_effects", counted)
    lm = random_model("layer", seed=9)
    analysed(lm, windows_for(lm, count=4, length=24), bootstrap_draws=0, memory=A_WINDOW)


def test_conventions_change_weight_statistics_and_not_effects():
    lm = random_model("layer")
    tokens = windows_for(lm)
    paper, raw = (analysed(lm, tokens, convention=name, bootstrap_draws=0) for name in ("paper", "raw"))
    for column in EFFECTS:
        np.testing.assert_array_equal(paper.frame[column], raw.frame[column])
    assert (paper.frame["w_norm"] != raw.frame["w_norm"]).all()
    assert len(raw.singular_values) == len(paper.singular_values) + 1
    np.testing.assert_allclose(
        raw.frame["w_norm"], np.linalg.norm(lm.params["blocks"]["mlp"]["w_out"][-1], axis=1), rtol=1e-6
    )
    assert (paper.facts["convention"], raw.facts["convention"]) == ("paper", "raw")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": np.full((2, 16), 71)}, "token id 71"),
        ({"tokens": np.zeros(16, int)}, "windows, length"),
        ({"counts": np.ones(70)}, "one count for each"),
        ({"k": 32}, "null-space size"),
        ({"seed": -1}, "seed is -1"),
        ({"nulls": 20}, "nulls is 20; give 0 for none, or at least 200"),
        ({"counts": None}, "no tokenizer to count"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"engine": "adaptive"}, f"more than {HEAD} tokens"),
        ({"tokens": np.zeros((2, 16), int)}, "no position"),
    ],
)
def test_bad_input_is_one_sentence(change, words):
    lm = random_model("layer")
    arguments = {"tokens": windows_for(lm), **change}
    with pytest.raises(InputError, match=words):
        analysed(lm, **arguments)


@pytest.mark.parametrize("convention", ["paper", "raw"])
@pytest.mark.parametrize("kind", HF)
def test_weight_statistics_are_the_analysis_without_running_the_model(kind, convention):
    lm = random_model(kind)
    counts = np.arange(lm.config.vocab_size) ** 2
    frame = weight_statistics(lm, counts, convention, k=2)
    whole = analysed(lm, windows_for(lm), counts=counts, convention=convention, k=2, bootstrap_draws=0).frame
    assert {"layer", "neuron", "w_norm", "weight_cost", "logit_var", "rho", "rho_chance", "cos_freq"} < set(frame)
    pd.testing.assert_frame_equal(frame, whole[list(frame)])
    pd.testing.assert_frame_equal(weight_statistics(lm, convention=convention, k=2), frame.drop(columns="cos_freq"))
    for wrong in ({"counts": counts[:-1]}, {"k": 0}):
        with pytest.raises(InputError, match=r"counts have shape|null-space size"):
            weight_statistics(lm, **wrong)


@pytest.mark.parametrize("kind", marked(["large, no norm", "large, norm-free"], quick=["large, no norm"]))
def test_without_a_final_norm_nothing_passes_through_its_scale(kind):
    lm = random_model(kind)
    frames = {
        engine: analysed(lm, windows_for(lm), engine=engine, tolerance=1e-5, nulls=200, bootstrap_draws=20).frame
        for engine in ("exact", "adaptive")
    }
    rounding = 2e-5  # the exact engine's sums, or the adaptive engine's tolerance
    for frame in frames.values():
        assert frame["loss_abs_delta"].median() > 1e-2
        for effect in ("loss", "entropy"):
            total, direct = frame[f"{effect}_abs_delta"], frame[f"{effect}_abs_delta_ln_frozen"]
            np.testing.assert_allclose(direct, total, rtol=0, atol=rounding)
        assert (frame["ln_mediated"].isna() == (frame["loss_abs_delta"] == 0)).all()  # NaN: a ReLU that is never active
        assert (frame["ln_mediated"] * frame["loss_abs_delta"]).abs().max() <= rounding
        assert not frame[["scale_delta", "norm_delta"]].to_numpy().any()
        assert not frame["is_entropy_neuron"].any()
    for column in EFFECTS:
        most = 5e-5 if column == "rr_abs_delta" else 1.5e-5  # most targets are not in the head
        np.testing.assert_allclose(frames["adaptive"][column], frames["exact"][column], atol=most, err_msg=column)


@pytest.mark.parametrize(
    "kind", marked(["large", "large, capped", "large, no norm"], devices=["large"], quick=["large"])
)
def test_the_adaptive_engine_keeps_to_its_tolerance_and_says_how_it_did(kind):
    lm = random_model(kind)
    tokens = windows_for(lm)
    exact, adaptive = (
        analysed(lm, tokens, engine=engine, tolerance=1e-5, bootstrap_draws=0) for engine in ("exact", "adaptive")
    )
    for column in EFFECTS:
        most = 5e-5 if column == "rr_abs_delta" else 1.5e-5  # most targets are not in the head
        np.testing.assert_allclose(adaptive.frame[column], exact.frame[column], atol=most, err_msg=column)
    np.testing.assert_array_equal(adaptive.frame["top1_change"], exact.frame["top1_change"])
    facts = adaptive.facts
    assert (exact.facts["engine"], facts["engine"], facts["tolerance"]) == ("exact", "adaptive", 1e-5)
    assert 0 < facts["largest_bound"] <= 1e-5
    gated = adaptive.frame["gate_norm_delta"].notna().sum()
    assert facts["pairs"] == facts["positions"] * (lm.config.d_mlp + gated)
    assert 0 < facts["pairs_redone"] < facts["pairs"]
    assert 0 < facts["audit_error"] < 2e-5
    assert analysed(lm, tokens, bootstrap_draws=0).facts["engine"] == "exact"


def test_auto_is_adaptive_for_large_vocabularies():
    def chosen(size):
        return last_layer.chosen_tolerance(
            dataclasses.replace(random_model("layer").config, vocab_size=size), "auto", 1e-4
        )

    assert chosen(last_layer.ADAPTIVE_FROM) == 1e-4
    assert chosen(last_layer.ADAPTIVE_FROM - 1) is None

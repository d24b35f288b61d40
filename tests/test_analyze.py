"""The effects against re-running the edited model for every neuron, against independent tables, and on planted neurons.

Letters: s window, t position, n neuron, v vocabulary. Losses, entropies and divergences in nats.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import cases
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxconf import measure
from jaxconf.analysis.effects import METRICS, effects, sharded_effects
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.unembedding import readout
from jaxconf.measure import analyze, weight_statistics
from jaxconf.models.decoder import Decoder, final_norm_name, forward
from jaxconf.models.errors import InputError
from jaxconf.models.families import FAMILIES, config_from_hf, leaves
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.models.leaves import nest
from jaxconf.models.sites import Replace
from jaxconf.text import kept_positions

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SHARED = Path(__file__).parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

SHAPE = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 71,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
HF = {"layer": {"model_type": "gpt_neox", **SHAPE}, "rms": {"model_type": "llama", "mlp_bias": True, **SHAPE}}
HF_LARGE = {  # more tokens than the adaptive engine's head
    "large": {**HF["rms"], "vocab_size": 1500},
    "large, capped": {
        **SHAPE,
        "model_type": "gemma2",
        "head_dim": 16,
        "num_key_value_heads": 1,
        "final_logit_softcapping": 8.0,
        "vocab_size": 1500,
    },
}
# What else can stand between a neuron and the logits: a norm behind the MLP and soft caps; a norm of the sum, and a projection.
OTHERS = {"capped": "gemma2", "summed": "opt-summed"}
EVERY_FAMILY = {cases.CASES[name]["model_type"]: name for name in cases.CASES}


def random_model(kind: str, seed: int = 0, hf: dict | None = None) -> LanguageModel:
    """Parameters of a size that gives confident predictions, no gain or bias at its default; of `hf`, or of what the kind is here."""
    if hf is None and kind not in HF | HF_LARGE:
        config, params = cases.decoder(OTHERS.get(kind, kind))
        return LanguageModel(
            config, jax.tree.map(jnp.asarray, params), f"random {kind}", None, Path(), {"bos_token_id": 0, "eos_token_id": 0}
        )
    hf = hf or (HF | HF_LARGE)[kind]
    config = config_from_hf(hf)
    rng = np.random.default_rng(seed)
    params = {leaf.path: (leaf.init == "ones") + 0.3 * rng.standard_normal(leaf.shape(config)) for leaf in leaves(config)}
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), nest(params.items()))
    return LanguageModel(config, params, f"random {kind}", None, Path(), hf)


def windows_for(lm: LanguageModel, count: int = 3, length: int = 24) -> np.ndarray:
    tokens = np.random.default_rng(5).integers(0, lm.config.vocab_size, (count, length))
    tokens[:, 0] = 0
    return tokens


def metrics(logits: np.ndarray, target: np.ndarray, f: np.ndarray) -> dict[str, np.ndarray]:
    logits = np.asarray(logits, np.float64)
    lp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    own = np.take_along_axis(lp, target[..., None], -1)
    return {
        "loss": -own[..., 0],
        "entropy": -(np.exp(lp) * lp).sum(-1),
        "kl": (f * (np.log(f) - lp)).sum(-1),
        "top": lp.argmax(-1),
        "rr": 1 / (1 + (lp > own).sum(-1)),
    }


def rerun(
    lm: LanguageModel, tokens: np.ndarray, kept: np.ndarray, counts: np.ndarray, replaced, layer: int = -1, frozen=(), sets=None
) -> pd.DataFrame:
    """The table's effect columns by the definitions: set one neuron (or a set of them), run the whole model again, subtract.

    `frozen`: norms that keep their scale beside the final one.
    """
    config, last = lm.config, f"blocks.{layer % lm.config.n_layers}.mlp.hook_post"
    sets = np.eye(config.d_mlp, dtype=bool) if sets is None else sets
    target, mask = tokens[:, 1:], kept[:, :-1] & True
    f = (counts + 1) / (counts + 1).sum()
    v_freq = np.log(f) - np.log(f).mean()
    u = v_freq / np.linalg.norm(v_freq)

    norms = [f"{final_norm_name(config)}.hook_scale", *frozen]
    run = jax.jit(functools.partial(forward, config, capture=(last, *norms)))
    before = run(lm.params, tokens)
    h = before.captured[last]
    values = replaced(np.asarray(h))

    @jax.jit
    @jax.vmap
    def edited(members):
        edit = {last: Replace(jnp.where(members, values, h))}
        total = forward(config, lm.params, tokens, edits=edit).logits
        scales = {norm: Replace(before.captured[norm]) for norm in norms}
        return total, forward(config, lm.params, tokens, edits={**edit, **scales}).logits

    totals, frozens = edited(jnp.asarray(sets))
    logits0 = np.asarray(before.logits, np.float64)[:, :-1]
    base = metrics(logits0, target, f)
    rows = []
    for total, frozen in zip(np.asarray(totals, np.float64)[:, :, :-1], np.asarray(frozens)[:, :, :-1], strict=True):
        coordinate = (logits0 - total) @ u
        found = {name: metrics(z, target, f) for name, z in (("te", total), ("ln", frozen), ("fr", total + coordinate[..., None] * u))}
        d = {name: {m: (value[m] - base[m])[mask] for m in ("loss", "entropy", "kl", "rr")} for name, value in found.items()}
        rows.append(
            {
                "loss_delta": d["te"]["loss"].mean(),
                "loss_abs_delta": np.abs(d["te"]["loss"]).mean(),
                "loss_abs_delta_ln_frozen": np.abs(d["ln"]["loss"]).mean(),
                "loss_abs_delta_freq_frozen": np.abs(d["fr"]["loss"]).mean(),
                "entropy_delta": d["te"]["entropy"].mean(),
                "entropy_abs_delta": np.abs(d["te"]["entropy"]).mean(),
                "entropy_abs_delta_ln_frozen": np.abs(d["ln"]["entropy"]).mean(),
                "kl_freq_delta": d["te"]["kl"].mean(),
                "kl_freq_abs_delta": np.abs(d["te"]["kl"]).mean(),
                "top1_change": (found["te"]["top"] != base["top"])[mask].mean(),
                "rr_abs_delta": np.abs(d["te"]["rr"]).mean(),
            }
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("kind", "ablation", "value"),
    [
        pytest.param("layer", "mean", 0.0, marks=pytest.mark.device),
        *(("layer", "scale", -2.0), ("rms", "zero", 0.0), ("rms", "fixed", 1.7)),
        *((kind, "mean", 0.0) for kind in OTHERS),
    ],
)
def test_effects_equal_running_the_edited_model_again(kind, ablation, value):
    lm = random_model(kind)
    tokens = windows_for(lm)
    kept = kept_positions(tokens, lm.special_ids)
    counts = np.random.default_rng(1).integers(0, 500, lm.config.vocab_size)
    replaced = {
        "mean": lambda h: np.broadcast_to(h.mean((0, 1)), h.shape),
        "zero": np.zeros_like,
        "fixed": lambda h: np.full_like(h, value),
        "scale": lambda h: value * h,
    }[ablation]
    expected = rerun(lm, tokens, kept, counts, replaced)
    table = analyze(lm, tokens, counts=counts, ablation=ablation, ablation_value=value, bootstrap_draws=0)
    assert expected["loss_abs_delta"].median() > 1e-3  # the neurons do something, so that agreement means something
    for column in METRICS:
        one_tie = 1e-3 if column in ("rr_abs_delta", "top1_change") else 0  # between tokens that are equally likely but for rounding
        np.testing.assert_allclose(table.frame[column], expected[column], atol=max(2e-5, one_tie), err_msg=column)
    shares = 1 - expected["loss_abs_delta_ln_frozen"] / expected["loss_abs_delta"]
    measured, size = table.frame["ln_mediated"], table.frame["loss_abs_delta"]
    assert ((measured - shares).abs() <= np.maximum(2e-3, 3e-7 / size)).where(size > 1e-6, measured.isna()).all()  # 3e-7: rounding


@pytest.mark.parity  # for its length; it needs nothing else
@pytest.mark.parametrize("name", EVERY_FAMILY.values())
def test_effects_in_every_family(name):
    test_effects_equal_running_the_edited_model_again(name, "mean", 0.0)


def test_every_family_is_among_them():
    assert EVERY_FAMILY.keys() == FAMILIES.keys()


@needs_shared
@pytest.mark.parametrize("name", ["stories260K", "random-gpt2", "random-gpt-neox", "random-gemma2"])
def test_every_column_equals_the_oracle(name):
    lm, oracle = load(SHARED / "models" / name), SHARED / "oracle" / name
    expected = pd.read_csv(oracle / "neurons.csv")
    kept = np.load(oracle / "kept.npy")
    table = analyze(lm, np.load(oracle / "windows.npy"), kept=kept, counts=np.load(oracle / "counts.npy"), bootstrap_draws=20)
    frame = table.frame
    for column in ("w_norm", "logit_var", "rho", "cos_freq", "activation_mean", "activation_std"):
        np.testing.assert_allclose(frame[column], expected[column], rtol=1e-4, atol=1e-9, err_msg=column)
    compared = set(expected) - {"neuron", "rho_k4"}
    assert compared >= {*METRICS, "ln_mediated", "freq_mediated"}
    for column in (*METRICS, "ln_mediated", "freq_mediated"):
        np.testing.assert_allclose(frame[column], expected[column], atol=1e-4, err_msg=column)
    np.testing.assert_allclose(table.singular_values, np.load(oracle / "singular_values.npy"), rtol=1e-6)
    np.testing.assert_array_equal(kept, kept_positions(np.load(oracle / "windows.npy"), lm.special_ids))
    np.testing.assert_allclose(weight_statistics(lm, k=4)["rho"], expected["rho_k4"], rtol=1e-4)


PLANTED_ENTROPY, PLANTED_FREQUENCY = [7, 31], [12, 55, 101, 118]


def planted_model(kind: str, counts: np.ndarray | None = None) -> tuple[LanguageModel, np.ndarray]:
    """A one-layer model in which two neurons write into an exact null direction of the unembedding, and four along the token frequencies.

    With the token counts, int [v], that those frequencies are of: those given, or 211 that fall off as Zipf's law says.
    """
    rng = np.random.default_rng(11)
    if counts is None:
        counts = np.round(1e5 / rng.permutation(np.arange(1, 212))).astype(np.int64)
    hf = {**HF[kind], "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 120, "vocab_size": len(counts)}
    config = config_from_hf(hf)
    d, V, N = config.d_model, config.vocab_size, config.d_mlp
    params = Decoder(config).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    f = (counts + 1) / (counts + 1).sum()
    u = (np.log(f) - np.log(f).mean()) / np.linalg.norm(np.log(f) - np.log(f).mean())

    basis, _ = np.linalg.qr(np.column_stack([np.ones(d), rng.standard_normal((d, d - 1))]))
    null, toward_frequency = basis[:, 1], basis[:, 2]
    logits = rng.standard_normal((d, V)) @ (np.eye(V) - 1 / V - np.outer(u, u))
    W = logits - np.outer(null, null @ logits) - np.outer(toward_frequency, toward_frequency @ logits)
    params["unembed"]["w"] = 0.5 * W + 40 * np.outer(toward_frequency, u)  # far along u at little cost in norm
    params["embed"]["tokens"] = 0.5 * rng.standard_normal((V, d))
    mlp = params["blocks"]["mlp"]
    for name in ("w_in", "w_gate"):
        if name in mlp:
            mlp[name] = 2.0 * rng.standard_normal((1, d, N)) / d**0.5
    mlp["w_out"] = 0.15 * rng.standard_normal((1, N, d))
    for branch, name in ((params["embed"], "tokens"), (params["blocks"]["attn"], "wo"), (mlp, "w_out")):
        branch[name] = branch[name] - (branch[name] @ toward_frequency)[..., None] * toward_frequency
    mlp["w_out"][0, PLANTED_ENTROPY] = 4 * null
    mlp["w_out"][0, PLANTED_FREQUENCY] = np.outer([0.4, -0.4, 0.4, -0.4], toward_frequency)
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    return LanguageModel(config, params, f"planted {kind}", None, Path(), hf), counts


@pytest.mark.parametrize("kind", HF)
def test_planted_neurons_are_found_and_no_others(kind):
    lm, counts = planted_model(kind)
    tokens = np.random.default_rng(3).integers(1, lm.config.vocab_size, (8, 48))
    frame = analyze(lm, tokens, counts=counts, bootstrap_draws=100).frame
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
    np.testing.assert_allclose(before.loss, base["loss"], atol=3e-6 * size)
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
        assert not any(np.asarray(ours[name]).round(5).any() for name in METRICS)


@pytest.mark.device
def test_dead_and_pruned_neurons_have_no_effect_and_no_share():
    lm = random_model("layer")
    mlp = lm.params["blocks"]["mlp"]
    dead = {"w_in": mlp["w_in"].at[-1, :, 3].set(0), "b_in": mlp["b_in"].at[-1, 3].set(-50.0)}  # never active
    pruned = {"w_out": mlp["w_out"].at[-1, 5].set(0)}
    params = {**lm.params, "blocks": {**lm.params["blocks"], "mlp": {**mlp, **dead, **pruned}}}
    frame = analyze(dataclasses.replace(lm, params=params), windows_for(lm), bootstrap_draws=10).frame
    assert not frame.loc[[3, 5], list(METRICS)].to_numpy().any()
    assert frame.loc[[3, 5], ["ln_mediated", "freq_mediated", "ln_mediated_lo"]].isna().all(axis=None)
    assert not frame.loc[[3, 5], ["is_entropy_neuron", "is_frequency_neuron"]].to_numpy().any()
    assert np.isnan(frame.loc[5, "rho"])
    assert frame.drop(index=[3, 5])[[*METRICS, "ln_mediated", "rho"]].notna().all(axis=None)


def test_default_counts_are_those_of_the_text():
    lm = random_model("layer")
    tokens = windows_for(lm)
    counts = np.bincount(tokens.ravel(), minlength=lm.config.vocab_size)
    counts[0] = 0  # BOS and EOS
    default, given = (analyze(lm, tokens, counts=c, bootstrap_draws=0) for c in (None, counts))
    pd.testing.assert_frame_equal(default.frame, given.frame)


def test_positions_are_the_unablated_models_own_figures():
    lm = random_model("rms")
    tokens = windows_for(lm)
    counts = np.arange(lm.config.vocab_size)
    table = analyze(lm, tokens, counts=counts, bootstrap_draws=0)
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
    [
        ("layer", "exact", A_WINDOW),
        ("layer", "exact", 1),
        ("capped", "exact", A_WINDOW),
        ("capped", "exact", 1),
        pytest.param("large", "adaptive", 3_500_000, marks=pytest.mark.slow),
    ],
)
def test_little_memory_gives_the_same_numbers(kind, engine, memory):
    lm = random_model(kind)
    tokens = windows_for(lm, count=3)
    whole = analyze(lm, tokens, seed=4, engine=engine, bootstrap_draws=30)
    little = analyze(lm, tokens, seed=4, engine=engine, bootstrap_draws=30, memory=memory)
    for column in whole.frame:
        size = whole.frame["loss_abs_delta"] if "mediated" in column else 1  # a share divides by the effect, and with it its rounding
        np.testing.assert_allclose(whole.frame[column] * size, little.frame[column] * size, atol=1e-6, err_msg=column)
    pd.testing.assert_frame_equal(whole.positions, little.positions, atol=1e-5)
    if engine == "adaptive":
        assert whole.facts["pairs_redone"] == little.facts["pairs_redone"]


def test_out_of_memory_the_work_is_done_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = random_model("layer")
    tokens = windows_for(lm, count=6)
    whole = analyze(lm, tokens, bootstrap_draws=5, memory=2 * 10**6)
    compiled, tried, said = measure._compiled_effects(), [], []

    def small(*arguments: Any) -> Any:
        rows = arguments[4].shape[1]
        tried.append(rows)
        if rows > 40:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return compiled(*arguments)

    monkeypatch.setattr(measure, "_compiled_effects", lambda: small)
    monkeypatch.setattr("jaxconf.memory.LEAST", 1)
    little = analyze(lm, tokens, bootstrap_draws=5, memory=2 * 10**6, progress=lambda what, done, total: said.append(what))
    assert max(tried) > 40 >= min(tried)
    assert any("out of memory" in what for what in said)
    for column in whole.frame:
        np.testing.assert_allclose(little.frame[column], whole.frame[column], atol=1e-4, err_msg=column)
    pd.testing.assert_frame_equal(little.positions, whole.positions, atol=1e-6)


def test_an_interrupted_analysis_goes_on_where_it_stopped(monkeypatch, tmp_path):
    lm = random_model("layer")
    tokens = windows_for(lm, count=4)
    whole = analyze(lm, tokens, bootstrap_draws=10, memory=A_WINDOW)

    def stop(what: str, done: int, total: int) -> None:
        if what == "effects" and done == 2 * tokens.shape[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyze(lm, tokens, bootstrap_draws=10, partial=tmp_path, memory=A_WINDOW, progress=stop)
    assert len(list(tmp_path.glob("*/*.npz"))) == 2

    computed = []
    compiled = measure._compiled_effects()
    monkeypatch.setattr("jaxconf.measure._compiled_effects", lambda: lambda *a: computed.append(1) or compiled(*a))
    resumed = analyze(lm, tokens, bootstrap_draws=10, partial=tmp_path, memory=A_WINDOW)
    assert len(computed) == 2
    pd.testing.assert_frame_equal(resumed.frame, whole.frame)
    pd.testing.assert_frame_equal(resumed.positions, whole.positions)
    other = {"ablation": "zero"}, {"counts": np.arange(lm.config.vocab_size)}, {"kept": np.ones(tokens.shape, bool)}
    for change in other:  # what a group was computed for is part of its name
        computed.clear()
        analyze(lm, tokens, bootstrap_draws=0, partial=tmp_path, memory=A_WINDOW, **change)
        assert len(computed) == 4
    computed.clear()
    analyze(random_model("layer", seed=8), tokens, bootstrap_draws=0, partial=tmp_path, memory=A_WINDOW)
    assert len(computed) == 4


def test_groups_of_windows_compile_once(monkeypatch):
    counted = jax.jit(chex.assert_max_traces(sharded_effects, n=1), static_argnames=("mesh", "config"))
    monkeypatch.setattr("jaxconf.measure._compiled_effects", lambda: counted)
    lm = random_model("layer", seed=9)
    analyze(lm, windows_for(lm, count=4, length=24), bootstrap_draws=0, memory=A_WINDOW)


def test_conventions_change_weight_statistics_and_not_effects():
    lm = random_model("layer")
    tokens = windows_for(lm)
    paper, raw = (analyze(lm, tokens, convention=name, bootstrap_draws=0) for name in ("paper", "raw"))
    for column in METRICS:
        np.testing.assert_array_equal(paper.frame[column], raw.frame[column])
    assert (paper.frame["w_norm"] != raw.frame["w_norm"]).all()
    assert len(raw.singular_values) == len(paper.singular_values) + 1
    np.testing.assert_allclose(raw.frame["w_norm"], np.linalg.norm(lm.params["blocks"]["mlp"]["w_out"][-1], axis=1), rtol=1e-6)
    assert (paper.facts["convention"], raw.facts["convention"]) == ("paper", "raw")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": np.full((2, 16), 71)}, "token id 71"),
        ({"tokens": np.zeros(16, int)}, "windows, length"),
        ({"counts": np.ones(70)}, "one count for each"),
        ({"k": 32}, "null-space size"),
        ({"seed": -1}, "seed is -1"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"engine": "adaptive"}, "1024 likeliest tokens"),
        ({"tokens": np.zeros((2, 16), int)}, "no position"),
    ],
)
def test_bad_input_is_one_sentence(change, words):
    lm = random_model("layer")
    arguments = {"tokens": windows_for(lm), **change}
    with pytest.raises(InputError, match=words):
        analyze(lm, **arguments)


@pytest.mark.parametrize("convention", ["paper", "raw"])
@pytest.mark.parametrize("kind", HF)
def test_weight_statistics_are_the_analysis_without_running_the_model(kind, convention):
    lm = random_model(kind)
    counts = np.arange(lm.config.vocab_size) ** 2
    frame = weight_statistics(lm, counts, convention, k=2)
    whole = analyze(lm, windows_for(lm), counts=counts, convention=convention, k=2, bootstrap_draws=0).frame
    assert {"layer", "neuron", "w_norm", "weight_cost", "logit_var", "rho", "rho_chance", "cos_freq"} < set(frame)
    pd.testing.assert_frame_equal(frame, whole[list(frame)])
    pd.testing.assert_frame_equal(weight_statistics(lm, convention=convention, k=2), frame.drop(columns="cos_freq"))
    for wrong in ({"counts": counts[:-1]}, {"k": 0}):
        with pytest.raises(InputError, match=r"counts have shape|null-space size"):
            weight_statistics(lm, **wrong)


@pytest.mark.parametrize("kind", [pytest.param("large", marks=pytest.mark.device), pytest.param("large, capped", marks=pytest.mark.slow)])
def test_the_adaptive_engine_keeps_to_its_tolerance_and_says_how_it_did(kind):
    lm = random_model(kind)
    tokens = windows_for(lm)
    exact, adaptive = (analyze(lm, tokens, engine=engine, tolerance=1e-5, bootstrap_draws=0) for engine in ("exact", "adaptive"))
    for column in METRICS:
        np.testing.assert_allclose(adaptive.frame[column], exact.frame[column], atol=1.5e-5, err_msg=column)
    np.testing.assert_array_equal(adaptive.frame["top1_change"], exact.frame["top1_change"])
    facts = adaptive.facts
    assert (exact.facts["engine"], facts["engine"], facts["tolerance"]) == ("exact", "adaptive", 1e-5)
    assert 0 < facts["largest_bound"] <= 1e-5
    assert facts["pairs"] == facts["positions"] * lm.config.d_mlp
    assert 0 < facts["pairs_redone"] < facts["pairs"]
    assert 0 < facts["audit_error"] < 2e-5
    assert analyze(lm, tokens, bootstrap_draws=0).facts["engine"] == "exact"


def test_auto_is_adaptive_for_large_vocabularies():
    def chosen(size):
        return measure._tolerance(dataclasses.replace(random_model("layer").config, vocab_size=size), "auto", 1e-4)

    assert chosen(measure.ADAPTIVE_FROM) == 1e-4
    assert chosen(measure.ADAPTIVE_FROM - 1) is None

"""Heads, biases, latents and directions: their effects against edits of the whole model, and planted ones."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from autoencoders import lens, weights
from edited_runs import rerun_edits
from parameters import marked
from planted_model import planted_model
from random_models import analysed, counts_for, random_model, windows_for
from refusals import check_error

from jaxconf.analysis.metrics import EFFECTS
from jaxconf.data.windows import kept_positions
from jaxconf.measure.analyze import analyze
from jaxconf.measure.component_sets import ablate_component_sets, is_component_set
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Replace
from jaxconf.report.shown import token_boxes
from jaxconf.results.neuron_table import NeuronTable

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KINDS = ["gpt2", "layer", "rms", "capped"]  # serial and parallel LayerNorm, RMSNorm, norms behind both parts and caps


def sites_of(lm: LanguageModel, tokens: np.ndarray, *names: str) -> list[np.ndarray]:
    """Sites of the last layer."""
    last = f"blocks.{lm.config.n_layers - 1}."
    captured = lm.apply(tokens, capture=[last + name for name in names]).captured
    return [np.asarray(captured[last + name], np.float32) for name in names]


def at_last(lm: LanguageModel, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"blocks.{lm.config.n_layers - 1}.{name}": values.astype(np.float32)}


def close(
    table: NeuronTable, component: str, lm: LanguageModel, tokens: np.ndarray, edits: dict, suffix: str = ""
) -> None:
    """The effects of the components of a kind equal those of the edits."""
    frame = table.frame[table.frame["component"] == component]
    expected = rerun_edits(lm, tokens, kept_positions(tokens, lm.special_ids), counts_for(lm), edits)
    assert expected["loss_abs_delta"].max() > 1e-3  # something happens, so that agreement means something
    for effect in EFFECTS:
        one_tie = 1e-3 if effect in ("rr_abs_delta", "top1_change") else 0
        np.testing.assert_allclose(
            frame[effect + suffix], expected[effect], atol=max(1e-4, one_tie), err_msg=effect + suffix
        )


def without_one(z: np.ndarray, instead: np.ndarray) -> np.ndarray:
    """z [s t h k] with one head after the other replaced, [c s t h k]."""
    return np.stack([np.where(np.arange(z.shape[2])[:, None] == head, instead, z) for head in range(z.shape[2])])


@pytest.mark.parametrize("kind", marked(KINDS, quick=["capped"]))
def test_heads_and_biases(kind: str) -> None:
    lm = random_model(kind)
    tokens = windows_for(lm)
    biased = kind in ("gpt2", "layer")
    names = ("heads", "biases") if biased else ("heads",)
    table = analysed(lm, tokens, components=",".join(names), bootstrap_draws=0)
    z, out, stream = sites_of(lm, tokens, "attn.hook_z", "hook_attn_out", "hook_resid_post")
    edits = at_last(lm, "attn.hook_z", without_one(z, z.mean((0, 1))))
    close(table, "head", lm, tokens, edits)
    ((site, edited),) = edits.items()
    out_site = f"blocks.{lm.config.n_layers - 1}.hook_attn_out"
    runs = [lm.apply(tokens, edits={site: Replace(value)}, capture=[out_site]) for value in edited]
    moved = np.stack([np.asarray(run.captured[out_site], np.float32) - out for run in runs])
    close(table, "head", lm, tokens, at_last(lm, "hook_resid_post", stream + moved), "_direct")
    if biased:
        (mlp_out,) = sites_of(lm, tokens, "hook_mlp_out")
        attn, mlp = lm.params["blocks"]["attn"], lm.params["blocks"]["mlp"]
        bias = table.to_pandas().query("component == 'bias'")
        last = lm.config.n_layers - 1
        assert bias.index.tolist() == [f"{last}.b_out", f"{last}.b_O"]
        for name, place, value, b in (
            ("b_out", "hook_mlp_out", mlp_out, mlp["b_out"][-1]),
            ("b_O", "hook_attn_out", out, attn["bo"][-1]),
        ):
            one = NeuronTable(bias.loc[[f"{last}.{name}"]], {}, *[np.zeros(0)] * 2, [], table.positions)
            close(one, "bias", lm, tokens, at_last(lm, place, (value - np.asarray(b))[None]))


@pytest.mark.parametrize("ablation", marked(["zero", "resample"], quick=["resample"]))
def test_other_ablations_of_heads(ablation: str) -> None:
    lm = random_model("rms")
    tokens = windows_for(lm)
    table = analysed(lm, tokens, components="heads", head_ablation=ablation, bootstrap_draws=0)
    (z,) = sites_of(lm, tokens, "attn.hook_z")
    # Of three windows, each takes the values of another one, in one of two cyclic orders, which the seed draws.
    order = np.random.default_rng(0).permutation(3)
    other = np.empty(3, int)
    other[order] = np.roll(order, 1)
    assert (other != np.arange(3)).all()
    instead = np.zeros_like(z) if ablation == "zero" else z[other]
    close(table, "head", lm, tokens, at_last(lm, "attn.hook_z", without_one(z, instead)))


RNG = np.random.default_rng(3)


def written(lm: LanguageModel, tokens: np.ndarray, h: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
    """The edits of the last stream that set one coefficient, of [s t n], after the other to its mean."""
    (stream,) = sites_of(lm, tokens, "hook_resid_post")
    delta = h.mean((0, 1)) - h
    return at_last(lm, "hook_resid_post", np.stack([stream + delta[..., n, None] * w[n] for n in range(len(w))]))


@pytest.mark.parametrize("kind", marked(KINDS, quick=["layer"]))
def test_latents_of_every_form(kind: str, tmp_path: Path) -> None:
    lm = random_model(kind)
    tokens, d, n = windows_for(lm), lm.config.d_model, 7
    last = f"blocks.{lm.config.n_layers - 1}."
    stream, out, normed = sites_of(lm, tokens, "hook_resid_post", "hook_mlp_out", "ln2.hook_normalized")
    threshold = 0.3 * RNG.random(n)

    def jump(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0) * (x > threshold)

    def top(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0) * (x >= np.sort(x, -1)[..., -3, None])

    a, b, c = weights(RNG, d, n, d), weights(RNG, d, n, d), weights(RNG, d, n, d)
    standard = {"hook_point": last + "hook_resid_post"}  # b_dec is subtracted unless it is said not to be
    metadata = {"metadata": {"hook_name": last + "hook_mlp_out"}, "normalize_activations": False}
    topk = {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": False}
    topk |= metadata
    transcoder = {
        "architecture": "jumprelu_transcoder",
        "hook_name": last + "ln2.hook_normalized",
        "hook_name_out": last + "hook_mlp_out",
    }
    scope = tmp_path / "scope"
    scope.mkdir()
    small = {name.replace("W_", "w_"): array for name, array in a.items()}  # as some of them are stored
    np.savez(scope / "params.npz", threshold=threshold, **small)
    length = np.linalg.norm(b["W_dec"], axis=1)
    values = (stream - a["b_dec"], stream, out, normed)
    of_a, plain, of_b, of_c = (x @ of["W_enc"] + of["b_enc"] for x, of in zip(values, (a, a, b, c), strict=True))
    cases = [
        (lens(tmp_path / "a", standard, **a), np.maximum(of_a, 0), a["W_dec"]),
        (lens(tmp_path / "b", topk, **b), top(of_b * length), b["W_dec"] / length[:, None]),
        (lens(tmp_path / "c", transcoder, threshold=threshold, **c), jump(of_c), c["W_dec"]),
        (f"sae={scope}", jump(plain), a["W_dec"]),
    ]
    for component, h, w in cases:
        table = analysed(lm, tokens, components=component, bootstrap_draws=0)
        assert table.names == [f"sae.{n}" for n in range(7)]
        np.testing.assert_allclose(table.frame["activation_mean"], h.mean((0, 1)), atol=1e-5)
        close(table, "sae", lm, tokens, written(lm, tokens, h, w))


@pytest.mark.parametrize("kind", marked(KINDS, quick=["gpt2"]))
def test_directions(kind: str, tmp_path: Path) -> None:
    lm = random_model(kind)
    tokens, d = windows_for(lm), lm.config.d_model
    (stream,) = sites_of(lm, tokens, "hook_resid_post")
    w, read, bias = RNG.standard_normal((3, d)), RNG.standard_normal((3, d)), RNG.standard_normal(3)
    np.savez(tmp_path / "fitted.npz", write=w)
    np.savez(tmp_path / "probes.npz", write=w, read=read, bias=bias, names=["a", "b", "c"])
    components = [f"directions={tmp_path / name}" for name in ("fitted.npz", "probes.npz")]
    fitted, probes = (analysed(lm, tokens, components=name, bootstrap_draws=0) for name in components)
    assert (fitted.names, probes.names) == (["direction.0", "direction.1", "direction.2"], ["a", "b", "c"])
    close(fitted, "direction", lm, tokens, written(lm, tokens, stream @ w.T / np.square(w).sum(1), w))
    close(probes, "direction", lm, tokens, written(lm, tokens, stream @ read.T + bias, w))


def test_principal_components_and_the_null_space() -> None:
    lm = random_model("layer")
    tokens = windows_for(lm)
    kept = kept_positions(tokens, lm.special_ids)
    table = analysed(lm, tokens, components="pc=2,null", bootstrap_draws=0, k=3)
    assert table.names == ["pc.0", "pc.1", "null.0", "null.1", "null.2"]
    (stream,) = sites_of(lm, tokens, "hook_resid_post")
    _, vectors = np.linalg.eigh(np.cov(stream[kept].T.astype(np.float64)))
    scores = stream @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(table.frame["activation_std"][:2], scores.std((0, 1)), rtol=1e-3)
    np.testing.assert_allclose(table.frame["rho"][2:], 1, atol=1e-6)
    of_null = table.frame.query("component == 'null'")
    assert (of_null["logit_var"].diff().dropna() > 0).all()  # the least visible comes first


@pytest.mark.parametrize("changes", marked([0, 32], quick=[0]))
def test_a_planted_head_and_a_planted_latent_are_found(changes: int, tmp_path: Path) -> None:
    lm, counts = planted_model("layer")  # with parallel blocks, so that heads act on the stream alone
    params, d = lm.params, lm.config.d_model
    null = np.asarray(params["blocks"]["mlp"]["w_out"][0, 7], np.float64) / 4
    attn = dict(params["blocks"]["attn"])
    wo = np.array(attn["wo"])  # 1 h k d
    wo[0, 1] = 3 * np.outer(np.random.default_rng(0).standard_normal(wo.shape[2]), null)
    blocks = {**params["blocks"], "attn": {**attn, "wo": jnp.asarray(wo)}}
    lm = dataclasses.replace(lm, params={**params, "blocks": blocks})
    latents = weights(RNG, d, 12, d)
    latents["W_dec"] *= 0.1
    latents["W_dec"][5] = 2 * null
    sae = {"architecture": "standard", "hook_name": "blocks.0.hook_resid_post"}
    components = f"heads,{lens(tmp_path / 'sae', sae, **latents)}"
    tokens = np.random.default_rng(2).integers(0, lm.config.vocab_size, (20, 32))
    table = analyze(
        lm, tokens, counts=counts, components=components, nulls=200, bootstrap_draws=100, token_changes=changes
    )
    assert len(table.names) == lm.config.n_heads + 12
    assert sorted(table.members("entropy").index) == ["0.h1", "sae.5"]
    if changes:
        assert {"0.h1", "sae.5"} <= set(table.token_changes["neuron"])
        assert {"0.h1", "sae.5"} <= {name for name, *_ in token_boxes(table, "entropy")}  # of Figure 2c


def test_sets_of_latents_are_ablated_together(tmp_path: Path) -> None:
    lm = random_model("layer")
    tokens, d = windows_for(lm), lm.config.d_model
    a = weights(RNG, d, 9, d)
    source = lens(tmp_path / "a", {"hook_name": "blocks.1.hook_resid_post", "apply_b_dec_to_input": False}, **a)
    how = {"counts": counts_for(lm), "bootstrap_draws": 0, "controls": 2}
    found = ablate_component_sets(lm, tokens, ["sae.1,sae.4", "sae.7"], f"heads,{source}", **how)
    assert found["set"].tolist() == [0, 0, 0, 1, 1, 1]
    assert found["control"].tolist() == [0, 1, 2] * 2
    members = [[int(name.removeprefix("sae.")) for name in names.split(",")] for names in found["neurons"]]
    assert (members[0], members[3]) == ([1, 4], [7])
    assert all(not {1, 4} & set(own) for own in members[1:3])
    (stream,) = sites_of(lm, tokens, "hook_resid_post")
    h = np.maximum(stream @ a["W_enc"] + a["b_enc"], 0)
    delta = h.mean((0, 1)) - h
    edits = at_last(lm, "hook_resid_post", np.stack([stream + delta[..., own] @ a["W_dec"][own] for own in members]))
    expected = rerun_edits(lm, tokens, kept_positions(tokens, lm.special_ids), counts_for(lm), edits)
    for effect in ("loss_abs_delta", "entropy_delta", "loss_abs_delta_ln_frozen", "loss_abs_delta_freq_frozen"):
        np.testing.assert_allclose(found[effect], expected[effect], atol=1e-4, err_msg=effect)


BAD_SETS = {
    "sae.9": "those of --components are: sae.0 to sae.8",
    "sae.1,sae.9": "of which there are sae.0 to sae.8",
    "sae.1,sae.1": "more than once",
    "1.h0": "there is no direction or latent 1.h0",
    "sae.0,sae.1,sae.2,sae.3,sae.4": "too few for random sets",
}


@pytest.mark.parametrize("names", BAD_SETS)
def test_sets_that_there_are_not(names: str, tmp_path: Path) -> None:
    lm = random_model("rms")
    source = lens(tmp_path / "a", {"hook_name": "blocks.1.hook_resid_post"}, **weights(RNG, 32, 9, 32))
    how = {"counts": counts_for(lm), "controls": 2}
    check_error(lambda: ablate_component_sets(lm, windows_for(lm), [names], f"heads,{source}", **how), BAD_SETS[names])


def test_a_bias_is_no_set_of_directions() -> None:
    lm = random_model("layer")
    how = {"counts": counts_for(lm), "controls": 0}
    check_error(
        lambda: ablate_component_sets(lm, windows_for(lm), ["1.b_out"], "biases", **how), "no direction or latent"
    )


def test_which_sets_are_of_components() -> None:
    assert [is_component_set(text) for text in ("sae.1,sae.2", "11.584,11.3", "null.0", "1.2.3", "mine")] == [
        *(True, False, True, False, False)
    ]


BAD = {
    "nothing": "is not known; the nearest is",
    "sae": "without a value",
    "heads=3": "takes no value",
    "pc=0": "at least 1",
    "pc=99": "has the width 32",
    "biases": "no output biases",
}


@pytest.mark.parametrize("component", BAD)
def test_components_that_there_are_not(component: str) -> None:
    lm = random_model("capped")
    check_error(lambda: analysed(lm, windows_for(lm), components=component), BAD[component])


def test_components_of_other_layers_and_twice() -> None:
    lm = random_model("rms")
    check_error(lambda: analysed(lm, windows_for(lm), components="null", layer=0), "those of the last layer, 1")
    check_error(lambda: analysed(lm, windows_for(lm), components="heads,heads"), "heads more than once")
    check_error(lambda: analysed(lm, windows_for(lm), components="pc=1,pc=2"), "pc more than once")
    check_error(lambda: analysed(lm, windows_for(lm), components="heads", frozen="all"), "heads and biases do not take")
    check_error(lambda: analysed(lm, windows_for(lm)[:1], components="heads", head_ablation="resample"), "one window")


def test_autoencoders_of_other_models(tmp_path: Path) -> None:
    lm = random_model("rms")

    def refused(why: str, config: dict, **arrays: np.ndarray) -> None:
        source = lens(tmp_path / "sae", config, **arrays)
        check_error(lambda: analysed(lm, windows_for(lm), components=source), why)

    here, good = {"hook_name": "blocks.1.hook_resid_post"}, weights(RNG, 32, 4, 32)
    refused("has the width 48, and blocks.1.hook_resid_post of the model has 32", here, **weights(RNG, 48, 4, 48))
    refused("writes to blocks.0.hook_resid_post", {"hook_name": "blocks.0.hook_resid_post"}, **good)
    refused(
        "reads blocks.1.nothing", {"hook_name": "blocks.1.nothing", "hook_name_out": "blocks.1.hook_mlp_out"}, **good
    )
    refused("the architecture 'gated'", {**here, "architecture": "gated"}, **good)
    refused("normalises what it reads", {**here, "normalize_activations": "layer_norm"}, **good)
    refused("no array 'threshold'", {**here, "architecture": "jumprelu"}, **good)
    refused("keeps 9 latents of 4", {**here, "architecture": "topk", "k": 9}, **good)
    refused("no array 'W_dec'", here, W_enc=good["W_enc"], b_enc=good["b_enc"])
    refused("no array 'b_dec', which it subtracts", here, **{name: x for name, x in good.items() if name != "b_dec"})
    refused("does not say which site", {"architecture": "standard"}, **good)
    check_error(lambda: analysed(lm, windows_for(lm), components=f"sae={tmp_path}"), "neither sae_weights")


def test_files_of_directions_that_do_not_fit(tmp_path: Path) -> None:
    lm, file = random_model("rms"), tmp_path / "directions.npz"

    def refused(why: str, **arrays: np.ndarray) -> None:
        np.savez(file, **arrays)
        check_error(lambda: analysed(lm, windows_for(lm), components=f"directions={file}"), why)

    check_error(lambda: analysed(lm, windows_for(lm), components=f"directions={file}"), "there is no file")
    refused("no array 'write'", w=np.ones((1, 32)))
    refused("has the width 5, and the model 32", write=np.ones((1, 5)))
    refused("a row of zeros", write=np.zeros((1, 32)))
    refused("one entry for each of its 2", write=np.ones((2, 32)), read=np.ones((2, 32)), bias=np.ones(3))
    refused("'bias' without 'read'", write=np.ones((2, 32)), bias=np.ones(2))
    refused("has 'a' more than once", write=np.ones((2, 32)), names=["a", "a"])
    file.write_text("no arrays")
    check_error(lambda: analysed(lm, windows_for(lm), components=f"directions={file}"), "is not a file of NumPy")

"""Mixtures of experts: effects against running the edited model again, statistics where neurons are routed, and names.

Letters: s window, t position, n neuron, e expert. Losses, entropies and divergences in nats.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ablated_activations import by_definition
from edited_runs import rerun
from mixture_configs import MIXTURES
from random_models import SHAPE, analysed, counts_for, random_model, windows_for
from refusals import check_error

from jaxconf.analysis.ablated_answers import reading
from jaxconf.analysis.ablated_sets import Ablations, set_logits, states
from jaxconf.analysis.ablation import Ablation
from jaxconf.analysis.effects import last_layer
from jaxconf.analysis.metrics import EFFECTS
from jaxconf.analysis.neuron_names import neuron_name, place, read_names
from jaxconf.analysis.nulls import draw_nulls
from jaxconf.analysis.unembedding import at_layer, readout
from jaxconf.data.windows import kept_positions
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.neuron_sets import ablate_sets, check_form, check_set, per_token
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Replace
from jaxconf.report.page import write_report
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.studies.carry.study import carry
from jaxconf.studies.induction.study import induction

pytestmark = pytest.mark.usefixtures("compiled_quickly")

HF = {
    "shared": {**MIXTURES["qwen2_moe"], **SHAPE, "num_key_value_heads": 2},
    "large": {**MIXTURES["mixtral"], **SHAPE, "intermediate_size": 12, "vocab_size": 1500},
    "unused": {**MIXTURES["mixtral-window"], **SHAPE, "intermediate_size": 10, "tie_word_embeddings": False},
}
UNUSED = 0  # the expert of the model "unused" that is never chosen


@functools.cache
def model(kind: str) -> LanguageModel:
    lm = random_model(kind, hf=HF[kind])
    if kind == "unused":  # of three experts, the best one is taken; the scores of the last two are opposite numbers
        router = lm.params["blocks"]["mlp"]["router"][..., 1]
        mlp = {**lm.params["blocks"]["mlp"], "router": jnp.stack([0 * router, router, -router], -1)}
        lm = dataclasses.replace(lm, params={**lm.params, "blocks": {**lm.params["blocks"], "mlp": mlp}})
    return lm


@functools.cache
def measured(kind: str, layer: int, engine: str = "exact") -> NeuronTable:
    lm = model(kind)
    return analysed(lm, windows_for(lm), layer=layer, engine=engine, nulls=200, bootstrap_draws=20)


@functools.cache
def seen(kind: str, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """The activations of a layer and the router's weights of its neurons, float64 [s t n]."""
    lm = model(kind)
    sites = [f"blocks.{layer}.mlp.{name}" for name in ("hook_post", "hook_router")]
    h, router = (np.asarray(x, np.float64) for x in lm.apply(windows_for(lm), capture=sites).captured.values())
    return h, np.repeat(router, lm.config.experts, -1)


@pytest.mark.parametrize(
    ("kind", "layer", "engine"),
    [("shared", 1, "exact"), ("shared", 0, "exact"), ("large", 1, "adaptive"), ("unused", 1, "exact")],
)
def test_effects_equal_running_the_edited_model_again(kind: str, layer: int, engine: str) -> None:
    lm = model(kind)
    tokens, counts = windows_for(lm), counts_for(lm)
    table = measured(kind, layer, engine)
    assert table.facts["engine"] == engine
    neurons = np.arange(lm.config.d_mlp)
    if kind == "large":  # the adaptive engine measures them all; running again takes long, and one expert will do
        neurons = neurons[lm.config.experts[0] : 2 * lm.config.experts[0]]
    mean = functools.partial(by_definition, Ablation("mean"))
    sets = np.eye(lm.config.d_mlp, dtype=bool)[neurons]
    expected = rerun(lm, tokens, kept_positions(tokens, lm.special_ids), counts, mean, layer, sets=sets)
    found = table.frame.iloc[neurons]
    if kind != "unused":
        assert expected["loss_abs_delta"].median() > 1e-3  # the neurons do something
    for column in EFFECTS:
        one_tie = 1e-3 if column in ("rr_abs_delta", "top1_change") else 0
        atol = max(1e-4 if engine == "adaptive" else 2e-5, one_tie)
        np.testing.assert_allclose(found[column], expected[column], atol=atol, err_msg=column)


def test_a_null_is_its_neuron_with_another_direction() -> None:
    """In the last layer by the algebra, below it by running again: where the expert is chosen, times its weight."""
    lm = model("shared")
    tokens = windows_for(lm)
    kept = kept_positions(tokens, lm.special_ids)[:, :-1]
    before = np.asarray(lm.apply(tokens).logits, np.float64)

    def loss(logits: np.ndarray) -> np.ndarray:
        lp = jax.nn.log_softmax(np.asarray(logits, np.float64)[:, :-1])
        return -np.take_along_axis(np.asarray(lp), tokens[:, 1:, None], -1)[kept]

    for layer in (1, 0):
        table, (h, weight) = measured("shared", layer), seen("shared", layer)
        own = at_layer(lm.config, lm.params, readout(lm.config, lm.params), "paper", layer)
        nulls = draw_nulls(lm.config, np.asarray(own.w_out), 200, seed=0)
        stream = f"blocks.{layer}.hook_resid_post"
        resid = np.asarray(lm.apply(tokens, capture=[stream]).captured[stream])
        for m in (0, 91, 199):
            n = nulls.neurons[m]
            mean = h[..., n][weight[..., n] > 0].mean()
            moved = (mean - h[..., n]) * weight[..., n]
            edit = {stream: Replace(jnp.asarray(resid + moved[..., None] * nulls.directions[m], jnp.float32))}
            expected = np.abs(loss(lm.apply(tokens, edits=edit).logits) - loss(before)).mean()
            assert table.nulls.loc[m, "loss_abs_delta"] == pytest.approx(expected, abs=2e-5), (layer, m)


@pytest.mark.parametrize("kind", ["shared", "unused"])
def test_statistics_are_those_where_the_expert_is_chosen(kind: str) -> None:
    lm, table, (h, weight) = model(kind), measured(kind, 1), seen(kind, 1)
    frame, kept = table.frame, kept_positions(windows_for(lm), lm.special_ids)
    activity = LayerActivations(lm, windows_for(lm), 1, 2**28)
    found = activation_statistics(activity, lambda *_: None, ordered=True)
    entropy = np.full(kept.shape, np.nan)
    entropy[table.positions["window"], table.positions["position"]] = table.positions["entropy"]
    for n in range(lm.config.d_mlp):
        own = h[..., n][weight[..., n] > 0]
        at = (weight[..., n] > 0) & ~np.isnan(entropy)
        assert frame["routed_share"][n] == pytest.approx(at.sum() / (~np.isnan(entropy)).sum(), abs=1e-6)
        if not own.size:
            assert np.isnan([x[n] for x in found]).all()
            assert frame.loc[n, ["activation_mean", "entropy_corr", "loss_delta_where_routed"]].isna().all()
            continue
        expected = (own.mean(), own.std(), own.min(), own.max(), np.median(own))
        for value, of in zip(expected, found[:5], strict=True):
            assert of[n] == pytest.approx(value, abs=1e-5)
        assert frame["activation_mean"][n] == pytest.approx(own.mean(), abs=1e-5)
        assert frame["entropy_corr"][n] == pytest.approx(np.corrcoef(h[..., n][at], entropy[at])[0, 1], abs=1e-4)
        for name in EFFECTS:
            assert frame[f"{name}_where_routed"][n] == pytest.approx(frame[name][n] / frame["routed_share"][n])


def test_neurons_of_an_expert_that_is_never_chosen_change_nothing() -> None:
    lm, frame = model("unused"), measured("unused", 1).frame
    own = frame[frame["expert"] == UNUSED]
    assert len(own) == lm.config.experts[UNUSED]
    assert (own[list(EFFECTS)] == 0).all(axis=None)
    assert (frame.loc[frame["expert"] != UNUSED, "loss_abs_delta"] > 0).all()
    words = measured("unused", 1).verdict()
    assert any("1 expert is never chosen" in sentence for sentence in words)


def test_sets_share_the_algebra_of_single_neurons() -> None:
    """`ablated_sets`, by which models answer, against the edited model."""
    lm = model("shared")
    tokens, n = windows_for(lm), np.array([3, 45, 51])
    read = reading(lm.config, readout(lm.config, lm.params), n)
    last, _ = last_layer(lm.config, lm.params, tokens)
    here = states(lm.config, read.readout, read.neurons, last)
    of_set = Ablations(np.arange(3), np.float32([0.5, -0.2, 1.0]), np.ones(3, bool))
    found = set_logits(lm.config, read.readout, read.writes, here, of_set)
    site = "blocks.1.mlp.hook_post"
    h = np.array(lm.apply(tokens, capture=[site]).captured[site])
    h[..., n] = of_set.values
    expected = np.asarray(lm.apply(tokens, edits={site: Replace(jnp.asarray(h))}).logits).reshape(found.shape)
    centred = (np.asarray(x) - np.asarray(x).mean(-1, keepdims=True) for x in (found, expected))
    np.testing.assert_allclose(*centred, atol=1e-4)


def test_neurons_are_named_by_their_experts(tmp_path: Path) -> None:
    lm, table = model("shared"), measured("shared", 1)
    experts = lm.config.experts
    assert experts == (10, 10, 10, 10, 14)
    assert [neuron_name(1, index, experts) for index in (0, 9, 10, 39, 40, 53)] == [
        *("1.0.0", "1.0.9", "1.1.0", "1.3.9", "1.4.0", "1.4.13")
    ]
    for index, name in enumerate(table.names):
        assert place(read_names(name)[0], experts) == (1, index)
        assert table.frame["expert"][index] == int(name.split(".")[1])
    table.save(tmp_path)
    assert NeuronTable.load(tmp_path).names == table.names
    assert set(table.cosine_neurons) <= {*table.names}
    page = write_report(table, tmp_path).read_text()
    assert "1.4.13" in page
    assert "routed_share" in page


def test_what_each_expert_carries() -> None:
    table = measured("shared", 1)
    frame, experts = table.frame, table.experts
    assert experts["neurons"].tolist() == [10, 10, 10, 10, 14]
    assert experts["share"].sum() == pytest.approx(1)
    for expert, rows in frame.groupby("expert"):
        assert experts["loss_abs_delta"][expert] == pytest.approx(rows["loss_abs_delta"].sum())
        assert experts["routed_share"][expert] == rows["routed_share"].iloc[0]
    assert experts["routed_share"].tolist()[-1] == 1  # the shared one
    assert experts["routed_share"][:4].sum() == pytest.approx(2)  # two are chosen for each token
    most = experts["loss_abs_delta"].idxmax()
    assert any(f"expert {most} carries most" in sentence for sentence in table.verdict())
    assert table.summary()["experts"][most]["expert"] == most


def test_sets_name_experts_and_are_compared_with_neurons_of_the_same_experts() -> None:
    lm = model("shared")
    of = {"counts": counts_for(lm), "bootstrap_draws": 0}
    named = ablate_sets(lm, windows_for(lm), [[(1, 0, 3), (1, 4, 2)]], controls=2, **of)
    flat = ablate_sets(lm, windows_for(lm), [[(1, 3), (1, 42)]], controls=2, **of)
    pd.testing.assert_frame_equal(named, flat)
    assert named["neurons"][0] == "1.0.3,1.4.2"
    for text in named["neurons"][1:]:
        assert [name.split(".")[:2] for name in text.split(",")] == [["1", "0"], ["1", "4"]]
    alone = per_token(lm, windows_for(lm), [(1, 4, 2)], counts=counts_for(lm))
    assert set(alone["neuron"]) == {"1.4.2"}
    change = (alone["loss_ablated"] - alone["loss"]).mean()
    assert change == pytest.approx(measured("shared", 1).frame["loss_delta"][42], abs=1e-5)


def test_names_that_there_are_not_are_one_sentence() -> None:
    shared, plain = model("shared"), random_model("rms")
    check_error(lambda: check_set(shared.config, [(1, 5, 0)], 0), "1.5.0", "10, 10, 10, 10, 14")
    check_error(lambda: check_set(shared.config, [(1, 0, 10)], 0), "1.0.10")
    check_error(lambda: check_set(plain.config, [(1, 0, 3)], 0), "1.0.3", "no experts")
    check_error(lambda: check_form(shared.config, [(1, 3)], "--set"), "1.3", "LAYER.EXPERT.NEURON")
    check_error(lambda: check_form(plain.config, [(1, 0, 3)], "--set"), "1.0.3", "LAYER.NEURON")
    check_error(lambda: check_set(shared.config, [(1, 0, n) for n in range(6)], 1), "an expert's 10 neurons")
    check_error(lambda: check_set(shared.config, [(1, 4, 2), (1, 42)], 0), "neuron 1.4.2 is named more than once")
    check_error(lambda: induction(shared), "mixture of experts", "the study of induction")
    check_error(lambda: carry(shared), "mixture of experts", "the study of carrying")

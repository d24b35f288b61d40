"""Statistics of a layer over text, against numpy on all activations. Letters: s window, t position, n neuron."""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
import pytest
from ablated_activations import by_definition
from random_models import random_model

from jaxconf.analysis import activations as analysis
from jaxconf.analysis.ablation import Ablation
from jaxconf.analysis.activations import ActivationStatistics
from jaxconf.analysis.effects import last_layer
from jaxconf.measure import activations as measure
from jaxconf.measure.activations import (
    LayerActivations,
    activation_correlations,
    activation_statistics,
    activations_of_each,
)
from jaxconf.models.language_model import LanguageModel

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def quiet(what: str, done: int, total: int) -> None:
    pass


def statistics(lm: LanguageModel, tokens: np.ndarray, layer: int, memory: int) -> ActivationStatistics:
    return activation_statistics(LayerActivations(lm, tokens, layer, memory), quiet, ordered=True)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(
    "memory", [10**9, 20_000, 1]
)  # everything at once; several blocks of neurons; one neuron and window at a time
def test_statistics_are_those_of_all_tokens(layer: int, memory: int) -> None:
    lm = random_model("layer")
    tokens = np.random.default_rng(3).integers(1, lm.config.vocab_size, (5, 24))
    site = f"blocks.{layer}.mlp.hook_post"
    h = np.asarray(lm.apply(tokens, capture=[site]).captured[site])
    found = statistics(lm, tokens, layer, memory)
    for name in ("mean", "std"):
        np.testing.assert_allclose(getattr(found, name), getattr(h.astype(np.float64), name)((0, 1)), atol=1e-6)
    for name, expected in (("low", h.min((0, 1))), ("high", h.max((0, 1))), ("median", np.median(h, (0, 1)))):
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found.mode, by_definition(Ablation("mode"), h)[0, 0], atol=1e-5)
    assert found.mode.dtype == found.mean.dtype == np.float64


def test_groups_of_windows_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the last group, which has fewer windows."""
    programs = {"activations": ("config", "layer"), "moments_of_a_layer": (), "activations_of_neurons": ()}
    for name, static in programs.items():
        function = chex.assert_max_traces(getattr(analysis, name).__wrapped__, n=1)
        monkeypatch.setattr(measure, name, jax.jit(function, static_argnames=static))
    lm = random_model("layer")
    tokens = np.ones((5, 24), int)
    a_window = measure.bytes_of_a_window(lm.config, 24)
    said = []
    activity = LayerActivations(lm, tokens, 0, 8 * a_window)
    activation_statistics(activity, lambda what, done, total: said.append((what, done, total)), ordered=True)
    assert said[:4] == [("activations", done * 24, 120) for done in (0, 2, 4, 5)]
    assert said[-1] == ("activations of 48 neurons", 120, 120)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_model_runs_over_the_text_once_where_the_host_can_keep_its_activations(
    layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *of, **more: (ran.append(of), function(*of, **more))[1]

    monkeypatch.setattr(measure, "activations", counting(analysis.activations))
    monkeypatch.setattr(measure, "last_layer", counting(last_layer))
    lm = random_model("layer")
    tokens = np.random.default_rng(3).integers(1, lm.config.vocab_size, (5, 24))
    neurons, kept, values = np.array([3, 40]), np.ones((5, 24), bool), np.zeros((1, 5, 24), np.float32)
    values[0] = tokens % 7
    expected = measured = None
    for memory, runs in ((8 * measure.bytes_of_a_window(lm.config, 24), 3), (20_000, 3 * 5 + layer)):
        ran.clear()
        activity = LayerActivations(lm, tokens, layer, memory)
        mean = activation_statistics(activity, quiet).mean
        each = [*activations_of_each(activity, neurons, quiet)]
        measured = [mean, each, activation_correlations(activity, mean, kept, values, quiet)]
        if layer == 1:
            measured.append(activity.last_layer(np.array([4, 0])))
        assert len(ran) == runs
        expected = expected or measured
    chex.assert_trees_all_close(measured, expected, atol=1e-6)


def test_a_neuron_that_never_changes_has_one_value() -> None:
    lm = random_model("layer")
    params = jax.tree.map(lambda w: w, lm.params)
    params["blocks"]["mlp"]["w_in"] = params["blocks"]["mlp"]["w_in"].at[1, :, 5].set(0)
    found = statistics(dataclasses.replace(lm, params=params), np.ones((2, 8), int), 1, 10**9)
    values = [Ablation(kind).level(found)[5] for kind in ("mean", "median", "mode", "min", "mean+3std", "mean-3std")]
    assert np.ptp(values) < 1e-6

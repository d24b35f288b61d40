"""The changes at single positions that the figures show, against runs with one ablation after the other."""

import time
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from random_models import analysed, counts_for, random_model, windows_for
from repeated_runs import MEMORY, in_nats

from jaxconf.analysis.ablation import MEAN
from jaxconf.analysis.rerun import Frozen
from jaxconf.data.windows import Windows
from jaxconf.measure import analyze as module
from jaxconf.measure.groups import Group, How, seen_by
from jaxconf.measure.heads import head_token_changes
from jaxconf.measure.inputs import Text
from jaxconf.measure.neuron_sets import per_token
from jaxconf.measure.token_changes import CHANGES
from jaxconf.measure.work import work_on
from jaxconf.models.sites import Replace

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WAIT = 2.0  # seconds


@pytest.mark.parametrize(
    ("kind", "layer", "frozen"),
    [("rms", "all", "final"), ("capped", "last", "final"), ("capped", "last", "all"), ("mixtral", "last", "final")],
)
def test_the_changes_at_single_positions(kind: str, layer: Literal["all", "last"], frozen: Frozen) -> None:
    lm = random_model(kind)
    tokens, counts = windows_for(lm, count=5), counts_for(lm)
    T = tokens.shape[1]
    kept = np.ones(tokens.shape, bool)
    kept[0], kept[1:, 3] = False, False
    how = {"layer": layer, "frozen": frozen, "nulls": 200, "bootstrap_draws": 5, "token_changes": T}
    table = analysed(lm, tokens, counts=counts, kept=kept, **how)
    found = table.token_changes
    names = found["neuron"].unique()
    layers = range(lm.config.n_layers) if layer == "all" else [lm.config.n_layers - 1]
    assert {int(name.split(".")[0]) for name in names} == set(layers)
    neurons = [tuple(map(int, name.split("."))) for name in names]
    alone = per_token(lm, tokens, neurons, counts=counts, kept=kept, frozen=frozen)
    for effect in ("", "_ln_frozen", "_freq_frozen"):
        alone[f"loss_abs_delta{effect}"] = (alone[f"loss_ablated{effect}"] - alone["loss"]).abs()
    assert alone["loss_abs_delta"].median() > 1e-3
    alone = alone[alone["window"] == 4]  # two windows of five are chosen, and the first has no kept position
    for name, of_neuron in found.groupby("neuron"):
        expected = alone[alone["neuron"] == name][list(of_neuron.columns[1:])]
        assert len(expected) == T - 2
        np.testing.assert_allclose(of_neuron.iloc[:, 1:], expected, atol=2e-5)


def test_every_window_is_chosen_if_evenly_chosen_ones_have_no_kept_position() -> None:
    lm = random_model("rms")
    tokens = windows_for(lm, count=5)
    text = Text(Windows(tokens, np.indices(tokens.shape)[0]), counts_for(lm), {})
    work = work_on(lm, text, np.indices(tokens.shape)[0] == 1, MEMORY, lambda *_: None)
    np.testing.assert_array_equal(work.some_windows(1), np.arange(5))


def test_the_seconds_of_a_run_are_also_those_of_the_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = random_model("rms")
    tokens = windows_for(lm)

    def slow(*_: Any) -> pd.DataFrame:
        time.sleep(WAIT)
        return pd.DataFrame({"neuron": []})

    monkeypatch.setattr(module, "token_changes", slow)
    begun = time.perf_counter()
    facts = analysed(lm, tokens, bootstrap_draws=0, token_changes=9).facts
    assert facts["seconds"] > time.perf_counter() - begun - WAIT / 2


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_the_changes_of_heads(kind: str) -> None:
    lm = random_model(kind)
    tokens, site = windows_for(lm), f"blocks.{lm.config.n_layers - 1}.attn.hook_z"
    text = Text(Windows(tokens, np.indices(tokens.shape)[0]), counts_for(lm), {})
    how = How(MEAN, "mean", "paper", "final", None, 1, 0, 0, 0, 0)
    work = work_on(lm, text, None, MEMORY, lambda *_: None)
    group = Group("head", 1, ["1.h0", "1.h1"], attention=True)
    found = pd.concat(head_token_changes(work, how, seen_by(lm, "paper"), group, [0, 1], CHANGES))
    plain = lm.apply(tokens, capture=[site])
    z, before = np.asarray(plain.captured[site]), in_nats(plain.logits, tokens)["loss"]
    for head in range(2):
        edited = np.where(np.arange(2)[:, None] == head, z.mean((0, 1)), z).astype(np.float32)
        after = in_nats(lm.apply(tokens, edits={site: Replace(edited)}).logits, tokens)["loss"]
        of_one = found[found["neuron"] == f"1.h{head}"]
        assert set(of_one) == {"neuron", *CHANGES}
        np.testing.assert_allclose(of_one["loss_abs_delta"], np.abs(after - before)[work.kept], atol=1e-4)
        assert of_one["loss_abs_delta"].max() > 1e-3

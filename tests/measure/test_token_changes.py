"""The changes at single positions that the figures show, against the predictions with one neuron after the other."""

import numpy as np
import pytest
from random_models import analysed, counts_for, random_model, windows_for

from jaxconf.measure.neuron_sets import per_token

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_the_changes_at_single_positions_in_every_layer() -> None:
    lm = random_model("rms")
    tokens, counts = windows_for(lm), counts_for(lm)
    kept = np.ones(tokens.shape, bool)
    kept[0], kept[1:, 3] = False, False
    how = {"layer": "all", "nulls": 200, "bootstrap_draws": 5, "token_changes": tokens.size}
    table = analysed(lm, tokens, counts=counts, kept=kept, **how)
    found = table.token_changes
    names = found["neuron"].unique()
    assert {name.split(".")[0] for name in names} == {str(layer) for layer in range(lm.config.n_layers)}
    neurons = [tuple(map(int, name.split("."))) for name in names]
    alone = per_token(lm, tokens, neurons, counts=counts, kept=kept)
    for effect in ("", "_ln_frozen", "_freq_frozen"):
        alone[f"loss_abs_delta{effect}"] = (alone[f"loss_ablated{effect}"] - alone["loss"]).abs()
    assert alone["loss_abs_delta"].median() > 1e-3
    for name, of_neuron in found.groupby("neuron"):
        expected = alone[alone["neuron"] == name][list(of_neuron.columns[1:])]
        assert len(expected) == 2 * (tokens.shape[1] - 2)
        np.testing.assert_allclose(of_neuron.iloc[:, 1:], expected, atol=2e-5)

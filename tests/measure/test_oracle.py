"""The neuron table against tables that were computed independently, of real and of random models."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxconf.analysis.metrics import EFFECTS
from jaxconf.data.windows import kept_positions
from jaxconf.measure.analyze import analyze
from jaxconf.measure.weights import weight_statistics
from jaxconf.models.language_model import load

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize(
    "name",
    [
        "random-gpt-neox",
        *(
            pytest.param(name, marks=pytest.mark.parity)  # for their length; they need nothing else
            for name in ("stories260K", "random-gpt2", "random-gemma2")
        ),
    ],
)
def test_every_column_equals_the_oracle(name: str, shared: Path) -> None:
    lm, oracle = load(shared / "models" / name), shared / "oracle" / name
    expected = pd.read_csv(oracle / "neurons.csv")
    kept = np.load(oracle / "kept.npy")
    table = analyze(
        lm,
        np.load(oracle / "windows.npy"),
        kept=kept,
        counts=np.load(oracle / "counts.npy"),
        nulls=0,
        bootstrap_draws=20,
    )
    frame = table.frame
    for column in ("w_norm", "logit_var", "rho", "cos_freq", "activation_mean", "activation_std"):
        np.testing.assert_allclose(frame[column], expected[column], rtol=1e-4, atol=1e-9, err_msg=column)
    compared = set(expected) - {"neuron", "rho_k4"}
    effects = {*EFFECTS, "ln_mediated", "freq_mediated"} - {
        "scale_delta",
        "norm_delta",
    }  # which the oracle does not have
    assert compared >= effects
    for column in effects:
        np.testing.assert_allclose(frame[column], expected[column], atol=1e-4, err_msg=column)
    np.testing.assert_allclose(table.singular_values, np.load(oracle / "singular_values.npy"), rtol=1e-6)
    np.testing.assert_array_equal(kept, kept_positions(np.load(oracle / "windows.npy"), lm.special_ids))
    np.testing.assert_allclose(weight_statistics(lm, k=4)["rho"], expected["rho_k4"], rtol=1e-4)

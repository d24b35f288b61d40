"""The measurements of the rule `gates`, against running the edited model again by their definitions.

Letters: s window, t position, n neuron.
"""

import numpy as np
import pandas as pd
import pytest
from edited_runs import metrics
from random_models import analysed, random_model, windows_for

from jaxconf.analysis.metrics import GATES
from jaxconf.analysis.unembedding import readout
from jaxconf.data.windows import kept_positions
from jaxconf.measure import gates
from jaxconf.models.decoder import final_norm_name
from jaxconf.models.sites import Replace


def by_definition(lm, tokens: np.ndarray, neuron: int) -> dict[str, float]:
    kept = kept_positions(tokens, lm.special_ids)
    site, scale = f"blocks.{lm.config.n_layers - 1}.mlp.hook_post", f"{final_norm_name(lm.config)}.hook_scale"
    before = lm.apply(tokens, capture=[site, scale])
    h = np.asarray(before.captured[site])
    high = kept & (h[..., neuron] > np.quantile(h[..., neuron][kept], 0.9))
    edited = h.copy()
    edited[high, neuron] = np.minimum(h[high, neuron], h[..., neuron].mean())
    after = lm.apply(tokens, edits={site: Replace(edited)}, capture=[scale])
    f, target = np.full(lm.config.vocab_size, 1 / lm.config.vocab_size), np.roll(tokens, -1, 1)
    was, now = (metrics(np.asarray(run.logits), target, f) for run in (before, after))
    moved = np.asarray(after.captured[scale] - before.captured[scale], np.float64)[..., 0]
    return {
        "gate_entropy_delta": (now["entropy"] - was["entropy"])[high].mean(),
        "gate_top1_change": (now["top"] != was["top"])[high].mean(),
        "gate_norm_delta": moved[high].mean() * np.sqrt(lm.config.d_model),
    }


@pytest.mark.parametrize("kind", ["layer", "rms", "capped"])
def test_gates_are_neurons_whose_high_activations_are_clipped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "PROXY", 0.9)  # a few of so few neurons
    lm = random_model(kind)
    tokens = windows_for(lm)
    frame = analysed(lm, tokens, bootstrap_draws=0).frame
    measured = frame.index[frame["null_proxy"] > frame["null_proxy"].quantile(0.9)]
    assert len(measured) >= 3
    assert frame.index[frame["gate_norm_delta"].notna()].tolist() == measured.tolist()
    for neuron in measured:
        expected = by_definition(lm, tokens, neuron)
        assert abs(expected["gate_norm_delta"]) > 1e-3
        for name, value in expected.items():
            assert frame.loc[neuron, name] == pytest.approx(value, abs=2e-5), (neuron, name)


def test_the_null_proxy_is_that_of_its_definition() -> None:
    lm = random_model("layer")
    seen = readout(lm.config, lm.params)
    W, w = np.asarray(seen.W_U, np.float64), np.asarray(seen.w_out, np.float64)
    written = w @ W
    written -= written.mean(1, keepdims=True)
    expected = 1 / (1 + np.linalg.norm(written, axis=1) / np.linalg.norm(w, axis=1))
    frame = analysed(lm, windows_for(lm), bootstrap_draws=0).frame
    np.testing.assert_allclose(frame["null_proxy"], expected, rtol=1e-5)


def test_layers_below_the_last_have_no_gates() -> None:
    lm = random_model("rms")
    frame: pd.DataFrame = analysed(lm, windows_for(lm), layer=0, bootstrap_draws=0).frame
    assert frame[list(GATES)].isna().all(axis=None)

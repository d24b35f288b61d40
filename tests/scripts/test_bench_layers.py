"""The benchmark of layers below the last one: both sides compute the same changes, and the page has a row for each."""

import json
from pathlib import Path

import bench_effects
import bench_layers
import cases
import effects_page
import numpy as np
import pytest
from hub_models import TEXT, build
from plan_tables import between

from jaxconf.analysis.frequency import frequency
from jaxconf.models.language_model import load

HF = cases.CASES["llama-gqa"] | {"vocab_size": 262, "max_position_embeddings": 40, "num_hidden_layers": 3}
ROW = {
    "model": "model",
    "layer": 3,
    "layers": 30,
    "windows": 4,
    "length": 64,
    "seconds_hooks": 3.0,
    "seconds_reruns": 1.5,
    "ratio": 2.0,
    "loss_abs_delta": 4e-3,
    "error": 2e-5,
    "unchanged": 5e-4,
    "unchanged_from_the_start": 1e-4,
    "device": "Some CPU",
}


@pytest.mark.parity
def test_hooks_and_reruns_find_the_same_changes(tmp_path: Path) -> None:
    pytest.importorskip("transformer_lens")
    folder = build(tmp_path / "model", 0, HF)
    (tmp_path / "text.txt").write_text("".join(TEXT))
    bench = bench_layers.Bench((folder,), data=tmp_path / "text.txt", layer=1, length=24, neurons=4, rounds=1)
    found = bench_layers.main(bench, folder)
    assert found["loss_abs_delta"] > 1e-3
    assert 0 < found["error"] < 1e-4
    assert (found["layer"], found["layers"], found["device"]) == (1, 3, bench_effects.device())
    assert found["ratio"] == found["seconds_hooks"] / found["seconds_reruns"]


def test_reruns_of_some_neurons_are_in_their_order(tmp_path: Path) -> None:
    """A neuron's changes do not depend on which others are timed, nor on the chunk that it is in."""
    lm = load(build(tmp_path / "model", 0, HF))
    tokens, freq = np.arange(48).reshape(2, 24), frequency(np.arange(262))
    bench = bench_layers.Bench((), layer=1)
    both, levels = bench_layers.by_reruns(lm, bench, tokens, freq, np.array([2, 5]))
    alone, level = bench_layers.by_reruns(lm, bench, tokens, freq, np.array([5]))
    assert levels[1:] == level
    for name in bench_layers.ALL:
        np.testing.assert_allclose(both()[name][1].astype(float), alone()[name][0].astype(float), atol=1e-5)


def test_pairs_without_a_change_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, tokens = load(build(tmp_path / "model", 0, HF)), np.arange(48).reshape(2, 24)
    assert bench_layers.unchanged(lm, 1, tokens) == (0, 0)
    monkeypatch.setattr(bench_layers, "SMALL", 0.05)
    sites = "blocks.1.mlp.hook_post", "blocks.1.hook_resid_post"
    h, x = (np.asarray(lm.apply(tokens, capture=sites).captured[site]) for site in sites)
    w_out, counted, from_start = np.asarray(lm.params["blocks"]["mlp"]["w_out"])[1], 0, 0
    for window, neuron in np.ndindex(2, lm.config.d_mlp):
        begun = False
        for t in range(24):
            write = (h[:, :, neuron].mean() - h[window, t, neuron]) * w_out[neuron]
            small = np.linalg.norm(write) < 0.05 * np.linalg.norm(x[window, t])
            begun |= not small
            counted, from_start = counted + small, from_start + (not begun)
    assert 0 < from_start < counted < h.size
    assert bench_layers.unchanged(lm, 1, tokens) == (counted / h.size, from_start / h.size)


def test_the_page_has_a_row_for_each_layer(tmp_path: Path) -> None:
    files = [tmp_path / f"{layer}.json" for layer in (15, 3)]
    for file, layer in zip(files, (15, 3), strict=True):
        file.write_text(json.dumps(ROW | {"layer": layer}))
    text = effects_page.page(files)
    rows = [line for line in text.splitlines() if " of 30 " in line]
    assert rows == [
        f"| model | {layer} of 30 | 4 × 64 | 3.00 s | 1.50 s | 2.0 | 0.004 | 2e-05 | 0.05% | 0.01% | Some CPU |"
        for layer in (3, 15)
    ]
    assert "Machines: Some CPU." in text
    alone = between(text, effects_page.LAYERS, effects_page.layers([ROW]))
    assert alone == effects_page.page([files[1]])

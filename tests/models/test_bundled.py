"""The model that comes along: it is small, it loads, it knows its text, and it has neurons to show."""

import json
from pathlib import Path

import numpy as np
import pytest

import jaxconf
from jaxconf.cli import main
from jaxconf.data.worlds import SOURCE, world_of
from jaxconf.results.neuron_table import NeuronTable

OWN = jaxconf.source_for("own", jaxconf.BUNDLED)
WORLD = world_of(OWN)


def test_the_bundled_model_is_small():
    assert sum(file.stat().st_size for file in jaxconf.BUNDLED.iterdir()) < 2 * 2**20
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in jaxconf.BUNDLED.iterdir()}


def test_its_own_text_is_what_its_folder_says():
    said = json.loads((jaxconf.BUNDLED / "tokenizer_config.json").read_text())
    assert said.get(SOURCE, "stdlib") == OWN


def test_it_predicts_its_text():
    """Text of a world nearly as well as possible, other text far better than by chance."""
    lm = jaxconf.load(jaxconf.BUNDLED)
    tokens = jaxconf.windows(
        jaxconf.documents(OWN), lm.tokenizer, n_tokens=16384, length=min(256, lm.config.n_positions)
    ).tokens
    logits = np.asarray(lm.apply(tokens).logits, np.float64)[:, :-1]
    lp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    def loss(lp: np.ndarray) -> float:
        return -np.take_along_axis(lp, tokens[:, 1:, None], -1).mean()

    assert loss(lp) < (loss(WORLD.optimum(tokens).log_probs[:, :-1]) + 0.2 if WORLD else 0.5 * np.log(lp.shape[-1]))


@pytest.mark.slow
@pytest.mark.skipif(not WORLD, reason="the bundled model is of no world")
@pytest.mark.usefixtures("drawn_quickly")
def test_analyze_names_its_entropy_and_frequency_neurons(tmp_path: Path):
    main(["analyze", "bundled", "--out", str(tmp_path / "run")])
    table = NeuronTable.load(tmp_path / "run")
    assert len(table.members("entropy")) >= 3
    assert len(table.members("frequency")) >= 2

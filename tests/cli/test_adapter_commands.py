"""Commands take an adapter where they take a model."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from commands import run

from jaxconf.models.language_model import BUNDLED
from jaxconf.models.tensor_files import read_tensors
from jaxconf.results.neuron_table import NeuronTable

pytestmark = pytest.mark.command

MODULE = "gpt_neox.layers.0.mlp.dense_4h_to_h"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter to the bundled model that doubles what two neurons of its last layer write."""
    folder = tmp_path_factory.mktemp("adapter")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "bundled"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    w_out = np.array(read_tensors(BUNDLED)[f"{MODULE}.weight"].map())
    matrices = {"A": np.eye(w_out.shape[1], dtype=np.float32)[[3, 5]], "B": np.ascontiguousarray(w_out[:, [3, 5]])}
    safetensors.numpy.save_file(
        {f"base_model.model.{MODULE}.lora_{x}.weight": value for x, value in matrices.items()},
        folder / "adapter_model.safetensors",
    )
    return folder


def test_analyze(adapter: Path, tmp_path: Path) -> None:
    small = ("--tokens", 300, "--nulls", 0, "--bootstrap-draws", 10, "--quiet")
    for model, out in ((adapter, "adapted"), ("bundled", "base")):
        run("analyze", model, *small, "--out", tmp_path / out)
    adapted, base = (NeuronTable.load(tmp_path / out) for out in ("adapted", "base"))
    ratio = adapted.frame["w_norm"] / base.frame["w_norm"]
    np.testing.assert_allclose(ratio, np.where(np.isin(base.frame["neuron"], [3, 5]), 2, 1), rtol=1e-5)
    assert (adapted.facts["model"], adapted.facts["base_model"]) == (str(adapter), "bundled")
    assert adapted.facts["data"] == base.facts["data"]  # the base model's own text

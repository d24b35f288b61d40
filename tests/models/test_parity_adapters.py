"""Adapters against PEFT (`make parity`, where peft is installed; REWRITE=1 records what other tests read)."""

import shutil
from pathlib import Path
from typing import Any

import adapters
import cases
import numpy as np
import pytest
from test_parity import REWRITE, torch_model

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", adapters.ADAPTERS)
def test_merged_as_by_peft(name: str, tmp_path: Path) -> None:
    """Adapters with random matrices, which peft draws, saves, loads again and merges."""
    base, settings = adapters.ADAPTERS[name]
    folder, saved, tokens = cases.build(base, tmp_path / "base"), tmp_path / name, cases.prompt(67)
    torch.manual_seed(0)
    drawn = peft.get_peft_model(torch_model(folder), peft.LoraConfig(**settings))
    for parameter in drawn.parameters():
        if parameter.requires_grad:
            parameter.data = 0.25 * torch.randn_like(parameter)
    drawn.save_pretrained(saved)
    model: Any = peft.PeftModel.from_pretrained(torch_model(folder), saved).merge_and_unload()
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens).long()).logits.numpy()
    lm = adapters.load_on(saved, folder)
    assert np.abs(logits - np.load(cases.REFERENCES / f"{base}.npz")["logits"]).max() > 0.1  # the base model's own
    np.testing.assert_allclose(lm.apply(tokens).logits, logits, rtol=0, atol=1e-4)
    if REWRITE:
        kept = adapters.RECORDED / name
        kept.mkdir(parents=True, exist_ok=True)
        adapters.name_base(saved, "base")
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(saved / file, kept / file)
        np.save(kept / "logits.npy", logits)

"""Models in Hugging Face layout, each with one mistake."""

import json
from pathlib import Path

import numpy as np
import safetensors.numpy


def spoil_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def spoil_weights(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    change(tensors)
    safetensors.numpy.save_file(tensors, file)


BIAS = "gpt_neox.layers.0.mlp.dense_h_to_4h.bias"
MISTAKES = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer in"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "only pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled"),
    "unknown model_type": (lambda f: spoil_config(f, model_type="mamba"), "'mamba' is not supported"),
    "unknown attribute": (lambda f: spoil_config(f, logit_twist=2), "'logit_twist'"),
    "no heads": (lambda f: spoil_config(f, num_attention_heads=0), "does not divide"),
    "a text for a number": (lambda f: spoil_config(f, hidden_size="16"), "wrong kind"),
    "unsupported value": (lambda f: spoil_config(f, hidden_act="sinus"), "'hidden_act'"),
    "missing tensor": (lambda f: spoil_weights(f, lambda t: t.pop(BIAS)), "lack tensor"),
    "extra tensor": (lambda f: spoil_weights(f, lambda t: t.update(odd=np.zeros(2, np.float32))), "'odd'"),
    "misshapen tensor": (lambda f: spoil_weights(f, lambda t: t.update({BIAS: t[BIAS][:-1]})), "has shape [23]"),
    "NaN": (lambda f: spoil_weights(f, lambda t: t[BIAS].__setitem__(3, np.nan)), "NaN or Inf"),
    "Inf": (lambda f: spoil_weights(f, lambda t: t[BIAS].__setitem__(3, np.inf)), "NaN or Inf"),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-40]),
        "truncated or corrupt",
    ),
    "corrupt": (lambda f: (f / "model.safetensors").write_bytes(b"\x10" + bytes(40)), "truncated or corrupt"),
}

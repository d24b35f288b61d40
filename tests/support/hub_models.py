"""Small models with a tokenizer, for the stand-in for the hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cases
import numpy as np

from jaxconf.data.corpus import END, train_tokenizer
from jaxconf.models.checkpoint import save_params
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.leaves import nest

NAME = "owner/name"

TEXT = [f"def f{i}(x):\n    return x * {i} + {i % 7}\n" for i in range(120)]

HF = cases.CASES["neox"] | {"vocab_size": 262, "max_position_embeddings": 40}


def text() -> Iterator[str]:
    return iter(TEXT)


def build(folder: Path, seed: int, hf: dict[str, Any] = HF) -> Path:
    """A random model with a tokenizer, in Hugging Face layout."""
    folder.mkdir()
    config, rng = config_from_hf(hf), np.random.default_rng(seed)
    params = nest(
        (leaf.path, (0.3 * rng.standard_normal(leaf.shape(config))).astype(np.float32)) for leaf in leaves(config)
    )
    save_params(config, params, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf))
    train_tokenizer(text(), 262).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": END, "eos_token": END}))
    return folder

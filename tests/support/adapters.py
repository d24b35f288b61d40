"""LoRA adapters of the tiny random models of `cases`, which between them use every switch that is merged.

`references/adapters/{name}` holds each as peft saved it, with the logits of the merged model
(tests/models/test_parity_adapters.py records and checks them).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import cases

from jaxconf.models.language_model import LanguageModel, load
from jaxconf.models.mesh import make_mesh

RECORDED = cases.REFERENCES / "adapters"

# Name → the base model, and the arguments of peft's LoraConfig.
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    # Matrices stored as [in, out], of which attention's last is square; a prefix in the tensors' names.
    "gpt2-ranks": (
        "gpt2",
        {
            "r": 4,
            "lora_alpha": 6,
            "target_modules": ["c_attn", "c_proj", "c_fc"],
            "fan_in_fan_out": True,
            "use_rslora": True,
            "rank_pattern": {"h.1.mlp.c_fc": 3, "^transformer.h.0.attn.c_attn": 2},
            "alpha_pattern": {r"h\.\d.attn.c_proj": 5},
        },
    ),
    # Every matrix, a product on the embedding, and an unembedding of its own.
    "llama-saved": (
        "llama-gqa",
        {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": "all-linear",
            "exclude_modules": ["lm_head"],
            "modules_to_save": ["lm_head"],
        },
    ),
    "llama-embedding": (
        "llama-gqa",
        {"r": 2, "lora_alpha": 4, "target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    ),
    # The unembedding is no longer the embedding.
    "gemma-untied": (
        "gemma",
        {"r": 2, "target_modules": ["down_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
}


def recorded(name: str, folder: Path) -> Path:
    """A copy of a recorded adapter, which names a copy of its base model; in subfolders of `folder`."""
    shutil.copytree(RECORDED / name, folder / name)
    name_base(folder / name, cases.build(ADAPTERS[name][0], folder / "base"))
    return folder / name


def load_on(folder: Path, base: Path | str, **how: Any) -> LanguageModel:
    """The adapter of a folder, merged into the base model of another, which its config is made to name."""
    name_base(folder, base)
    return load(folder, mesh=make_mesh(data=1), **how)


def name_base(folder: Path, base: Path | str) -> None:
    change(folder, base_model_name_or_path=str(base))


def change(folder: Path, **values: Any) -> None:
    """Sets attributes of the adapter's config."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))

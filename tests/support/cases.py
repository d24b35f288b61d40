"""Tiny random models of each family that between them exercise every switch of the config mappings.

    config, params = decoder("llama-mqa")
    lm = jaxconf.load(build("llama-mqa", tmp_path))

Their weights are drawn in the order of the leaf table, with norm gains and biases off their defaults.
`references/{case}.npz` holds what transformers makes of them (tests/test_parity.py records and checks it).
"""

import functools
import json
import zlib
from pathlib import Path

import numpy as np
from case_configs import CASES as EARLIER
from recent_case_configs import RECENT

from jaxconf.models.checkpoint import save_params
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.leaves import Leaf, nest

CASES = {**EARLIER, **RECENT}
REFERENCES = Path(__file__).parent / "references"
LENGTH = 72  # tokens of a prompt

REFERENCED = tuple(
    dict.fromkeys(
        [
            *{CASES[name]["model_type"]: name for name in reversed(CASES)}.values(),
            *(
                "neox-serial",
                "llama-gqa",
                "llama-mqa",
                "llama3",
                "stablelm-parallel",
                "stablelm-qk-norm",
                "qwen2-window",
                "phi3-long",
            ),
            *("gemma3-capped", "opt-no-final-norm", "opt-summed", "falcon-grouped", "falcon-alibi"),
            *("gpt2-unscaled", "gpt2-layer-scaled", "gpt2-norm-free"),
        ]
    )
)


def with_new_leaves() -> list[str]:
    """The cases whose family, or a row of whose leaf table, no case before them has."""
    known: set[Leaf | str] = set()
    found = []
    for name, hf in CASES.items():
        rows = {*leaves(config_from_hf(hf)), hf["model_type"]}
        if rows - known:
            found.append(name)
        known |= rows
    return found


def usual_gain(config: DecoderConfig, leaf: Leaf) -> float:
    """What a drawn parameter is multiplied by: the gains of norms that divide by a constant make up for it, as if they
    had taken in a usual σ of 4.
    """
    return config.frozen_scale / 4 if config.frozen_scale and leaf.init == "ones" else 1.0


@functools.cache
def decoder(name: str) -> tuple[DecoderConfig, Params]:
    """A case's config and its parameters as numpy arrays."""
    config = config_from_hf(CASES[name])
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))

    def draw(leaf: Leaf) -> np.ndarray:
        drawn = (leaf.init == "ones") + 0.25 * rng.standard_normal(leaf.shape(config))
        return (drawn * usual_gain(config, leaf)).astype(np.float32)

    return config, nest((leaf.path, draw(leaf)) for leaf in leaves(config))


def build(name: str, folder: Path) -> Path:
    """Writes the case's config.json and model.safetensors into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CASES[name]))
    save_params(*decoder(name), folder / "model.safetensors")
    return folder


def prompt(vocab_size: int) -> np.ndarray:
    """Token ids, int32 [1, LENGTH]."""
    rng = np.random.Generator(np.random.PCG64(LENGTH))
    return rng.integers(vocab_size, size=(1, LENGTH), dtype=np.int32)

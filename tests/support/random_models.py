"""Random models that are confident in what they predict, one for each way from a neuron to the logits, and windows for
them.
"""

from pathlib import Path
from typing import Any

import cases
import jax
import numpy as np

from jaxconf.measure.analyze import analyze
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.leaves import Leaf, nest
from jaxconf.results.neuron_table import NeuronTable

SHAPE = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 71,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}

HF = {"layer": {"model_type": "gpt_neox", **SHAPE}, "rms": {"model_type": "llama", "mlp_bias": True, **SHAPE}}

HF_LARGE = {  # more tokens than the adaptive engine's head
    "large": {**HF["rms"], "vocab_size": 1500},
    "large, capped": {
        **SHAPE,
        "model_type": "gemma2",
        "head_dim": 16,
        "num_key_value_heads": 1,
        "final_logit_softcapping": 8.0,
        "vocab_size": 1500,
    },
    "large, norm-free": {**cases.CASES["gpt2-norm-free"], "vocab_size": 1500, "bos_token_id": 0, "eos_token_id": 0},
    "large, no norm": {
        **cases.CASES["opt-no-final-norm"],
        "vocab_size": 1500,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
}

# What else can stand between a neuron and the logits: a norm behind the MLP and soft caps; a norm of the sum, and a
# projection; nothing.
OTHERS = {"capped": "gemma2", "summed": "opt-summed", "no norm": "opt-no-final-norm"}


def random_model(kind: str, seed: int = 0, hf: dict | None = None) -> LanguageModel:
    """Parameters of a size that gives confident predictions, no gain or bias at its default; of `hf`, or of what the
    kind is here.
    """
    if hf is None and kind not in HF | HF_LARGE:
        config, params = cases.decoder(OTHERS.get(kind, kind))
        return LanguageModel(
            config,
            jax.device_put(params),
            f"random {kind}",
            None,
            Path(),
            {"bos_token_id": 0, "eos_token_id": 0},
        )
    hf = hf or (HF | HF_LARGE)[kind]
    config = config_from_hf(hf)
    rng = np.random.default_rng(seed)

    def draw(leaf: Leaf) -> np.ndarray:
        drawn = (leaf.init == "ones") + 0.3 * rng.standard_normal(leaf.shape(config))
        return (drawn * cases.usual_gain(config, leaf)).astype(np.float32)

    params = {leaf.path: draw(leaf) for leaf in leaves(config)}
    return LanguageModel(config, jax.device_put(nest(params.items())), f"random {kind}", None, Path(), hf)


def windows_for(lm: LanguageModel, count: int = 3, length: int = 24) -> np.ndarray:
    tokens = np.random.default_rng(5).integers(0, lm.config.vocab_size, (count, length))
    tokens[:, 0] = 0
    return tokens


def counts_for(lm: LanguageModel) -> np.ndarray:
    """Token counts, int [v]."""
    return np.random.default_rng(1).integers(0, 500, lm.config.vocab_size)


def analysed(lm: LanguageModel, tokens: Any, **how: Any) -> NeuronTable:
    """`jaxconf.analyze` with these token counts and without nulls, unless it is told otherwise."""
    return analyze(lm, tokens, **{"counts": counts_for(lm), "nulls": 0, **how})


def with_repeats(vocabulary: int) -> np.ndarray:
    """Windows of which every second one has six tokens twice, and every fourth the token after them too."""
    rng = np.random.default_rng(6)
    windows = rng.integers(1, vocabulary, (30, 40))
    for s in range(0, 30, 2):
        windows[s, 4:10] = windows[s, 20:26] = rng.permutation(np.arange(1, vocabulary))[:6]
        if s % 4 == 0:
            windows[s, 26] = windows[s, 10]
    return windows

"""Random models that are confident in what they predict, one for each way from a neuron to the logits, and windows for
them.
"""

from pathlib import Path

import cases
import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.leaves import nest

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
}

# What else can stand between a neuron and the logits: a norm behind the MLP and soft caps; a norm of the sum, and a
# projection.
OTHERS = {"capped": "gemma2", "summed": "opt-summed"}


def random_model(kind: str, seed: int = 0, hf: dict | None = None) -> LanguageModel:
    """Parameters of a size that gives confident predictions, no gain or bias at its default; of `hf`, or of what the
    kind is here.
    """
    if hf is None and kind not in HF | HF_LARGE:
        config, params = cases.decoder(OTHERS.get(kind, kind))
        return LanguageModel(
            config,
            jax.tree.map(jnp.asarray, params),
            f"random {kind}",
            None,
            Path(),
            {"bos_token_id": 0, "eos_token_id": 0},
        )
    hf = hf or (HF | HF_LARGE)[kind]
    config = config_from_hf(hf)
    rng = np.random.default_rng(seed)
    params = {
        leaf.path: (leaf.init == "ones") + 0.3 * rng.standard_normal(leaf.shape(config)) for leaf in leaves(config)
    }
    params = jax.tree.map(lambda w: jnp.asarray(w.astype(np.float32)), nest(params.items()))
    return LanguageModel(config, params, f"random {kind}", None, Path(), hf)


def windows_for(lm: LanguageModel, count: int = 3, length: int = 24) -> np.ndarray:
    tokens = np.random.default_rng(5).integers(0, lm.config.vocab_size, (count, length))
    tokens[:, 0] = 0
    return tokens


def with_repeats(vocabulary: int) -> np.ndarray:
    """Windows of which every second one has six tokens twice, and every fourth the token after them too."""
    rng = np.random.default_rng(6)
    windows = rng.integers(1, vocabulary, (30, 40))
    for s in range(0, 30, 2):
        windows[s, 4:10] = windows[s, 20:26] = rng.permutation(np.arange(1, vocabulary))[:6]
        if s % 4 == 0:
            windows[s, 26] = windows[s, 10]
    return windows

"""The selection of entropy neurons by Tighidet et al., and the sizes of the null space that papers use.

Letters: n neuron of a layer. Sources: Tighidet et al. 2025 (arXiv 2509.10663); Stolfo et al. 2024 (arXiv 2406.16254).
"""

from typing import Literal, NamedTuple

import numpy as np

from jaxconf.models.config import DecoderConfig

LEAST_RHO = 0.4
COUNT = 10
SIZES = (6, 14)
"""The sizes of the smallest and of the largest set of Tighidet et al."""
SHARE = 96 / 4096
"""k as a share of the width, in all models of Tighidet et al. except GPT-2 Small, where it is 40 of 768."""

Paper = Literal["stolfo", "tighidet"]


class Shape(NamedTuple):
    """What a known model is recognised by. Its fine-tunes, and other models of the same shape, have it too."""

    model_type: str
    n_layers: int
    d_model: int
    d_mlp: int
    vocab_size: int


GPT2_SMALL = Shape("gpt2", 12, 768, 3072, 50257)

PUBLISHED_K: dict[Paper, dict[Shape, int]] = {
    "stolfo": {
        GPT2_SMALL: 11,  # 12 in the paper, which counts the all-ones direction of LayerNorm
        Shape("llama", 32, 4096, 11008, 32000): 40,  # LLaMA-2 7B
    },
    "tighidet": {
        GPT2_SMALL: 40,
        Shape("phi", 24, 2048, 8192, 51200): 48,  # Phi-1.5
        Shape("gpt_neox", 24, 2048, 8192, 50304): 48,  # Pythia 1.4B
        Shape("mistral", 32, 4096, 14336, 32000): 96,  # Mistral 7B v0.1
        Shape("llama", 32, 4096, 14336, 128256): 96,  # Llama-3 8B
    },
}
"""The size of the null space, k, that each paper uses for each of its models."""


def published_k(config: DecoderConfig | Shape, paper: Paper = "tighidet") -> int | None:
    """The k that a paper uses for a model of this shape; None if the paper has no such model."""
    shape = Shape(config.model_type, config.n_layers, config.d_model, config.d_mlp, config.vocab_size)
    return PUBLISHED_K[paper].get(shape)


def scaled_k(d_model: int) -> int:
    """k for a model that Tighidet et al. do not have: SHARE of the width, at least 1."""
    return max(1, round(SHARE * d_model))


def candidates(logit_var: np.ndarray, rho: np.ndarray, least_rho: float = LEAST_RHO, count: int = COUNT) -> np.ndarray:
    """Among the neurons with ρ_k of at least `least_rho`, the `count` with the lowest LogitVar.

    `logit_var` and `rho`: [n]. Returns indices, int64, lowest LogitVar first and of equal ones the first; all such
    neurons if they are fewer. A neuron whose LogitVar or ρ is NaN is never chosen.
    """
    eligible = np.flatnonzero((rho >= least_rho) & ~np.isnan(logit_var))
    return eligible[np.argsort(logit_var[eligible], kind="stable")[:count]]
